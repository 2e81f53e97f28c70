"""The measured speed of a segmenter."""

from __future__ import annotations

import time

import numpy as np

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


def test_what_the_first_batch_loads_does_not_count():
    """Workers load it before their first job, so that it says nothing about their speed."""
    frames = np.zeros((speed.BATCH, 8, 8), np.int16)
    found = speed._measure(SlowAtFirst(num_workers=1), frames, 3, 0.01)
    assert found.frames_per_second > 3 * speed.BATCH / LOADING_SECONDS
    assert (found.processes, found.frame_shape) == (3, (8, 8))
