"""Recordings whose recorder has crashed: failed as incomplete, or processed as far as all features go."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import hashlib

import dclab
import h5py
import pytest
import structlog

from dcnumd.config.values import LogSettings, ResourceSettings, Settings, WatchSettings
from dcnumd.daemon.ledger.records import State
from dcnumd.daemon.measurements.lifecycle import begin_anew
from dcnumd.daemon.measurements.settle import PATIENCE
from dcnumd.simulate.measurement import MeasurementSpec, write_measurement
from tests.support.swmr import crashed_recording, tear_last_chunk
from tests.support.works import in_works, with_works

SPEC = MeasurementSpec(size=(45, 100), frames=300, rate=400, density=1.0, seed=11)
FAIL = Settings(
    watch=WatchSettings(settle_seconds=0.1, rescan_seconds=0.5),
    resources=ResourceSettings(num_workers=1, min_free_gb=0.01),
    log=LogSettings(level="warning"),
)
PROCESS = dataclasses.replace(FAIL, watch=dataclasses.replace(FAIL.watch, interrupted="process"))
settling = functools.partial(in_works, with_jobs=False)


@pytest.fixture
def crashed(tmp_path):
    """Return a recording with 250 frames that all features have."""
    path = tmp_path / "M001_data.rtdc"
    crashed_recording(path, SPEC, {"image": 250, "time": 270})
    return path


@settling(FAIL)
async def test_by_default_it_fails_as_incomplete(works, crashed):
    """After the usual patience; the message names both cures."""
    await works.offer(crashed)
    await works.next_left()
    (entry,) = works.ledger.entries()
    assert (entry.state, entry.reason) == (State.FAILED, "incomplete")
    assert 'watch.interrupted to "process"' in entry.error
    assert "h5clear" in entry.error


@settling(PROCESS)
async def test_its_common_frames_pass_after_the_usual_patience(works, crashed):
    """Until then it counts as being written; the log says how many frames there are."""
    begin = asyncio.get_running_loop().time()
    with structlog.testing.capture_logs() as heard:
        await works.offer(crashed)
        entry = await works.next_passed()
    assert asyncio.get_running_loop().time() - begin > PATIENCE * 0.1
    assert (entry.state, entry.frames, entry.interrupted) == (State.QUEUED, 250, 1)
    told = [{key: event[key] for key in ("event", "log_level", "frames")} for event in heard if "frames" in event]
    assert told == [
        {"event": "file.interrupted", "log_level": "warning", "frames": 250},
        {"event": "file.settled", "log_level": "info", "frames": 250},
    ]
    assert works.tracker.quiet.is_set()


def test_a_changed_setting_applies_to_earlier_failures(tmp_path, crashed):
    """What has failed as incomplete is processed once the config says so."""

    async def fail(works):
        await works.offer(crashed)
        await works.next_left()
        assert works.states() == [State.FAILED]

    async def process(works):
        await works.offer(crashed)
        assert (await works.next_passed()).frames == 250

    with_works(tmp_path, fail, FAIL, with_jobs=False)
    with_works(tmp_path, process, PROCESS, with_jobs=False)


@settling(PROCESS)
async def test_growth_restarts_the_patience(works, crashed):
    """A recorder that flushes rarely is not taken for one that has crashed."""
    await works.offer(crashed)
    (candidate,) = works.tracker.candidates
    await asyncio.sleep(PATIENCE * 0.1 / 2)
    crashed_recording(crashed, SPEC, {"image": 280})
    await works.offer(crashed)
    grown = asyncio.get_running_loop().time()
    assert not candidate.interrupted
    entry = await works.next_passed()
    assert asyncio.get_running_loop().time() - grown > PATIENCE * 0.1
    assert entry.frames == 280


@settling(PROCESS)
async def test_a_retry_needs_no_patience(works, tmp_path, crashed):
    """What nobody wrote before, and has not changed since, is processed again at once."""
    await works.offer(crashed)
    entry = works.finish(await works.next_passed(), tmp_path / "M_dcn.rtdc")
    begin_anew(works.ledger, entry)
    works.tracker.doubt()
    begin = asyncio.get_running_loop().time()
    await works.offer(crashed)
    again = await works.next_passed()
    assert asyncio.get_running_loop().time() - begin < PATIENCE * 0.1 / 2
    assert (again.id, again.interrupted) == (entry.id, 1)


@settling(PROCESS)
async def test_recordings_that_cannot_be_cut_fail_with_one_reason(works, tmp_path):
    """Without frames, or if the recorder crashed while it wrote the last ones."""
    empty, torn = tmp_path / "M001_data.rtdc", tmp_path / "M002_data.rtdc"
    crashed_recording(empty, SPEC, {"image": 0, "time": 20})
    crashed_recording(torn, SPEC, {"image": 250})
    tear_last_chunk(torn)
    await works.offer(empty, torn)
    await works.next_left()
    found = {entry.path: (entry.state, entry.reason) for entry in works.ledger.entries()}
    assert found[str(empty)] == (State.FAILED, "no_frames")
    assert found[str(torn)] == (State.FAILED, "checksum")


@settling(PROCESS)
async def test_frames_that_are_zero_are_incomplete(works, tmp_path):
    """After a power failure, the bytes of uncompressed frames may be missing."""
    path = tmp_path / "M001_data.rtdc"
    crashed_recording(path, dataclasses.replace(SPEC, compression="none", fletcher32=False), {"image": 250})
    with h5py.File(path, swmr=True, locking=False) as h5:
        chunks = []
        h5["events/image"].id.chunk_iter(chunks.append)
    with path.open("r+b") as file:
        for chunk in chunks:
            file.seek(chunk.byte_offset)
            file.write(bytes(chunk.size))
    await works.offer(path)
    await works.next_left()
    (entry,) = works.ledger.entries()
    assert (entry.state, entry.reason) == (State.FAILED, "incomplete")
    assert "all zero, and its recording was interrupted" in entry.error


@pytest.mark.slow
@in_works(PROCESS, with_jobs=True)
async def test_it_is_processed_and_later_replaced_by_its_continuation(works, tmp_path, crashed):
    """The file stays as it is; if the recorder comes back, the result of the new content replaces the former one."""
    digest = hashlib.sha256(crashed.read_bytes()).digest()
    with structlog.testing.capture_logs() as heard:
        await works.offer(crashed)
        await works.until(lambda: works.states() == [State.DONE])
    finished = next(event for event in heard if event["event"] == "job.finished")
    assert (finished["frames"], finished["interrupted"]) == (250, True)
    assert hashlib.sha256(crashed.read_bytes()).digest() == digest
    with dclab.new_dataset(tmp_path / "M001_data_dcn.rtdc") as dataset:
        assert len(dataset["image"]) == len(dataset) > 50
    crashed.unlink()
    write_measurement(crashed, SPEC)
    await works.offer(crashed)
    await works.until(lambda: works.states().count(State.DONE) == 2)
    newest = works.ledger.latest(str(crashed))
    assert (newest.frames, newest.interrupted) == (300, 0)
    with dclab.new_dataset(tmp_path / "M001_data_dcn.rtdc") as dataset:
        assert dataset["basinmap0"].max() >= 250
