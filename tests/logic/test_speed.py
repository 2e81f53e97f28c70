"""The measured speed of a segmenter."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

from dcnumd.errors import WorkerError
from dcnumd.logic import speed
from dcnumd.segm.segm_thresh import SegmentThresh

LOADING_SECONDS = 2.0
"""How long the first batch of the segmenter below takes [s]."""


class SlowAtFirst(SegmentThresh):
    """Loads something with its first batch."""

    loaded = False

    def segment_batch(self, *args, **kwargs):
        if not self.loaded:
            time.sleep(LOADING_SECONDS)
            self.loaded = True
        return super().segment_batch(*args, **kwargs)


class Stuck(SegmentThresh):
    """Never ends."""

    def segment_batch(self, *_, **__):
        time.sleep(1000)


class Crashing(SegmentThresh):
    """Kills its process."""

    def segment_batch(self, *_, **__):
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_the_first_batch_loads_does_not_count():
    """Workers load it before their first job, so that it says nothing about their speed."""
    frames = np.zeros((speed.BATCH, 8, 8), np.int16)
    found = speed._measure(SlowAtFirst(num_workers=1), frames, 3, 0.01)
    assert found.frames_per_second > 3 * speed.BATCH / LOADING_SECONDS
    assert (found.processes, found.frame_shape) == (3, (8, 8))


@pytest.mark.parametrize(("segmenter", "limit", "reason"), [(Stuck, 1.0, "timeout"), (Crashing, 100.0, "worker_died")])
def test_segmenter_that_never_ends_or_crashes_is_an_error(monkeypatch, segmenter, limit, reason):
    """The command that measures the speed says so, instead of ending without a word or never."""
    monkeypatch.setattr(speed, "LOAD_SECONDS", limit)
    with pytest.raises(WorkerError, match=r"(the|its) speed") as error:
        speed._measure(segmenter(num_workers=1), np.zeros((speed.BATCH, 8, 8), np.int16), 3, 0.01)
    assert error.value.reason == reason
