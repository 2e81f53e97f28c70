"""Memory that recordings take which are processed while they grow."""

from __future__ import annotations

import dataclasses
import os

from dcnumd.logic.job import Job, PipelineSettings
from dcnumd.logic.live.messages import LiveRequest
from dcnumd.logic.process import engine
from dcnumd.report.live_calls import advance_recording, finish_recording, open_recording
from dcnumd.simulate.spec import MeasurementSpec
from tests.support.live_results import SPOOL_BYTES, compare_results, spool_of
from tests.support.recorder import RecorderProcess

SPEC = MeasurementSpec(size=(80, 320), frames=1500, rate=1000, seed=6, density=0.8)
MIB = 2**20


def bytes_of_slots() -> int:
    """Return the memory of all slots of this process [bytes]."""
    slots = engine.pipeline(2).register.slots
    return sum(512 * os.fstat(slot.handle.descriptor).st_blocks for slot in slots)


def test_slots_are_freed(tmp_path):
    """After the end of the last recording, its slots take no memory; its job gets along with small ones."""
    settings = PipelineSettings(background_kwargs={"kernel_size": 50, "split_time": 0.2})
    job = Job(tmp_path / "M001.rtdc", tmp_path / "live.rtdc", settings, num_workers=2)
    for path in (tmp_path / "M001.rtdc", tmp_path / "M002.rtdc"):
        one = dataclasses.replace(job, path_in=path)
        with RecorderProcess(path, SPEC) as instrument:
            open_recording(path.name, LiveRequest(one, spool_of(one), SPOOL_BYTES))
            instrument.record(SPEC.frames)
            while advance_recording(path.name, 60.0, want_values=False).progress.frames_done < SPEC.frames // 2:
                pass
            assert bytes_of_slots() > 10 * MIB
            instrument.finish()
            advance_recording(path.name, 60.0, want_values=False)
            finish_recording(path.name)
        assert bytes_of_slots() < MIB
    live, plain, differences = compare_results(job)
    assert differences == []
    assert live.frames_known > plain.frames_known == 0
