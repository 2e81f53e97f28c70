"""The result of a recording that was processed while it grew is that of the finished file."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import random

import h5py
import numpy as np
import pytest

from dcnumd.errors import DcnumdError
from dcnumd.logic.job import Job, PipelineSettings
from dcnumd.logic.live.messages import LiveRequest
from dcnumd.logic.live.session import LiveSession
from dcnumd.simulate.spec import MeasurementSpec
from tests.support.live_results import SPOOL_BYTES, catch_up, compare_results, record_live, spool_of
from tests.support.recorder import Peculiarities, RecorderProcess

SPEC = MeasurementSpec(size=(48, 100), frames=3000, rate=1000, seed=5, density=0.8, chunk=20)
SPARSE = {"kernel_size": 50, "split_time": 0.1}
"""Thirty background images in three seconds."""


@pytest.fixture(autouse=True)
def chosen_at_once(monkeypatch):
    """Choose the background whenever there are new frames, however long that takes on a busy computer."""
    monkeypatch.setattr("dcnumd.logic.live.recording.CHOICE_SHARE", math.inf)


def finish(job, *, differs=False):
    """Make the result with the spool and without it, compare them, and return what came of the first."""
    live, plain, differences = compare_results(job)
    assert differences == []
    assert (live.frames, live.events, live.masks_dropped) == (plain.frames, plain.events, plain.masks_dropped)
    assert plain.frames_known == 0
    assert (live.frames_known > 0) != differs
    return live


def job_for(path, **changes):
    """Return the job of a recording."""
    settings = changes.pop("settings", PipelineSettings(background_kwargs=SPARSE))
    return Job(path, path.with_name("live.rtdc"), settings, num_workers=2, **changes)


CASES = {
    "tap": ({}, {}),
    "drain": ({"basin_strategy": "drain"}, {}),
    "uncompressed": ({"compression": "none"}, {"compression": "none", "fletcher32": False}),
    "gzip": ({}, {"compression": "gzip"}),
    "large chunks": ({}, {"chunk": 500}),
    "flicker": ({}, {"flicker": 3.0}),
    "drift": ({}, {"drift": 25.0}),
    "clogged": ({}, {"clog_at": 0.4}),
}


@pytest.mark.parametrize(("changes", "content"), CASES.values(), ids=CASES)
def test_result_is_that_of_the_finished_file(changes, content, tmp_path):
    """All datasets, attributes and logs are equal, for several kinds of recordings and results."""
    spec = dataclasses.replace(SPEC, **content)
    job = job_for(tmp_path / "M001.rtdc", **changes)
    state = record_live(job, spec)
    assert state.frames_done > 0.9 * spec.frames
    assert finish(job).frames_known > 0.4 * spec.frames


PIPELINES = {
    "rolling median": PipelineSettings(background_code="rollmed", background_kwargs={"kernel_size": 20}),
    "no offset": PipelineSettings(background_kwargs={**SPARSE, "offset_correction": False}),
    "automatic offset": PipelineSettings(background_kwargs={**SPARSE, "offset_correction": "auto"}),
    "no cleansing": PipelineSettings(background_kwargs={**SPARSE, "frac_cleansing": 1}),
    "threshold": PipelineSettings(background_kwargs=SPARSE, segmenter_kwargs={"thresh": -3}),
    "few features": PipelineSettings(
        background_kwargs=SPARSE, feature_kwargs={"brightness": False, "haralick": False, "volume": False}
    ),
}


@pytest.mark.parametrize("settings", PIPELINES.values(), ids=PIPELINES)
def test_each_pipeline_gives_the_same_result(settings, tmp_path):
    """What is known of the background while the recording grows depends on the method."""
    job = job_for(tmp_path / "M001.rtdc", settings=settings)
    record_live(job, SPEC)
    assert finish(job).frames_known > 0.4 * SPEC.frames


def test_background_of_the_recording_is_copied(tmp_path):
    """Background images that the instrument records grow with the frames."""
    job = job_for(tmp_path / "M001.rtdc", settings=PipelineSettings(background_code="copy"))
    record_live(job, SPEC, Peculiarities(background=True))
    assert finish(job).frames_known > 0.8 * SPEC.frames


def test_repeated_frames_have_no_events_also_between_units(tmp_path):
    """Frames that equal their predecessor are dropped, whether both are in one unit or not."""
    job = job_for(tmp_path / "M001.rtdc")
    record_live(job, SPEC, Peculiarities(repeated=(5, 99, 100, 101, 200, 300, 1500, 1600, 2000)))
    finish(job)


def test_frames_whose_background_changes_are_processed_again(tmp_path, monkeypatch):
    """With a look at the background at each step, fewer frames are left for the end."""
    monkeypatch.setattr("dcnumd.logic.live.recording.LOOK_SECONDS", 0.5)
    monkeypatch.setattr("dcnumd.logic.live.recording.MOST_AGAIN", 2.0)
    # the choice among medians of 7 frames changes with each new one
    job = job_for(tmp_path / "M001.rtdc", settings=PipelineSettings(background_kwargs={**SPARSE, "kernel_size": 7}))
    state = record_live(job, dataclasses.replace(SPEC, density=3.0))
    assert state.frames_again > 0
    assert finish(job).frames_known > 0.8 * SPEC.frames


def test_recording_that_ends_before_its_first_background_is_processed_afterwards(tmp_path):
    """A spool without any events is complete, too."""
    job = job_for(tmp_path / "M001.rtdc", settings=PipelineSettings(background_kwargs={"kernel_size": 500}))
    state = record_live(job, dataclasses.replace(SPEC, frames=450))
    assert state.frames_done == 0
    finish(job, differs=True)


def test_spool_with_too_little_room_costs_only_time(tmp_path):
    """What does not fit is computed for the result."""
    job = job_for(tmp_path / "M001.rtdc")
    state = record_live(job, SPEC, limit=200_000)
    assert state.spool_full
    assert state.spool_bytes <= 200_000
    assert 0 < finish(job).frames_known < 0.6 * SPEC.frames


def test_events_with_a_former_background_are_not_kept_in_a_full_spool(tmp_path, monkeypatch):
    """A unit whose new events do not fit is computed for the result, although its former events are in the file."""
    monkeypatch.setattr("dcnumd.logic.live.recording.LOOK_SECONDS", 0.5)
    monkeypatch.setattr("dcnumd.logic.live.recording.MOST_AGAIN", 2.0)
    job = job_for(tmp_path / "M001.rtdc", settings=PipelineSettings(background_kwargs={**SPARSE, "kernel_size": 7}))
    state = record_live(job, dataclasses.replace(SPEC, density=3.0), limit=1_000_000)
    assert state.spool_full
    assert state.frames_again > 0
    finish(job)


@pytest.mark.parametrize("part", ["image", "time"])
def test_file_that_changed_afterwards_is_processed_as_it_is(part, tmp_path):
    """Units that do not hold for the finished file are computed anew."""
    job = job_for(tmp_path / "M001.rtdc")
    record_live(job, SPEC)
    with h5py.File(job.path_in, "r+") as h5:
        values = h5["events"][part][:]
        if part == "image":
            values[400:450] = values[449:399:-1]
        else:
            values[1000:] += 0.35
        h5["events"][part][:] = values
    finish(job)


def test_recording_that_was_shortened_afterwards_is_processed_as_it_is(tmp_path):
    """With a rolling median, the last frames then share a background that they did not have."""
    settings = PipelineSettings(background_code="rollmed", background_kwargs={"kernel_size": 22})
    job = job_for(tmp_path / "M001.rtdc", settings=settings)
    # The window of the last frame of a unit ends where the file ends then, so that all chunks of the unit are there.
    frames = 20 * 98 + 21
    record_live(job, dataclasses.replace(SPEC, chunk=7, density=3.0), Peculiarities(jump_at=frames - 11))
    with h5py.File(job.path_in, "r+") as h5:
        for dataset in h5["events"].values():
            dataset.resize(frames, axis=0)
        h5.attrs["experiment:event count"] = frames
    finish(job)


@pytest.mark.parametrize("change", ["removed", "changed"])
def test_offset_of_the_recording_counts(change, tmp_path):
    """Events that were found with an offset which the finished file has not are computed anew."""
    job = job_for(tmp_path / "M001.rtdc", settings=PipelineSettings(background_code="copy"))
    record_live(job, SPEC, Peculiarities(background=True, offset=2.5))
    assert compare_results(job)[0].frames_known > 0.8 * SPEC.frames
    with h5py.File(job.path_in, "r+") as h5:
        if change == "removed":
            del h5["events/bg_off"]
        else:
            h5["events/bg_off"][...] = -1.5
    for name in ("live.rtdc", "plain.rtdc"):
        (tmp_path / name).unlink()
    finish(job, differs=True)


@pytest.mark.parametrize("damage", ["no index", "empty", "foreign", "flipped bits", "missing", "other recording"])
def test_damaged_spool_costs_only_time(damage, tmp_path):
    """Nothing in a spool is believed that its checksums and keys do not show."""
    job = job_for(tmp_path / "M001.rtdc")
    record_live(job, SPEC)
    spool = job.path_in.with_suffix(".spool")
    content = spool.read_bytes()
    if damage == "no index":
        os.truncate(spool, len(content) - 1)
    elif damage == "empty":
        os.truncate(spool, 0)
    elif damage == "foreign":
        spool.write_bytes(os.urandom(5000))
    elif damage == "flipped bits":
        chosen = random.Random(3)
        spoiled = bytearray(content)
        for place in chosen.sample(range(len(content)), 200):
            spoiled[place] ^= 0x10
        spool.write_bytes(spoiled)
    elif damage == "missing":
        spool.unlink()
    else:
        job.path_in.rename(tmp_path / "other.rtdc")
        other = job_for(tmp_path / "M002.rtdc")
        record_live(other, dataclasses.replace(SPEC, seed=77))
        other.path_in.rename(job.path_in)
    assert compare_results(job)[2] == []


def test_other_settings_use_nothing_of_the_spool(tmp_path):
    """A threshold that was changed meanwhile applies to all frames."""
    job = job_for(tmp_path / "M001.rtdc")
    record_live(job, SPEC)
    settings = dataclasses.replace(job.settings, segmenter_kwargs={"thresh": -9})
    finish(dataclasses.replace(job, settings=settings), differs=True)


def test_view_shows_the_newest_events_and_their_course(tmp_path):
    """The view has the features of the result for the frames that were processed, and rates that fit it."""
    job = job_for(tmp_path / "M001.rtdc")
    spool = tmp_path / "x.spool"
    with RecorderProcess(job.path_in, SPEC) as instrument, LiveSession(LiveRequest(job, spool, SPOOL_BYTES)) as session:
        assert session.view is None
        instrument.record(SPEC.frames)
        state = catch_up(session)
        view = session.view
        assert len(view.table) == len(view.time) == state.events
        assert (np.diff(view.time) >= 0).all()
        np.testing.assert_array_equal(view.frames_per_second, [1000, 1000])
        assert np.nansum(view.events_per_second) == pytest.approx(state.events * 2 / 3, rel=0.2)
        brightness = view.table[:, view.names.index("bg_med")].mean()
        assert view.brightness[0] == pytest.approx(brightness, rel=0.05)
        instrument.finish()


def test_newest_frames_are_shown_first_if_the_camera_is_faster(tmp_path):
    """The view follows the recording, while the other frames wait for their turn; the result is the same."""
    job = job_for(tmp_path / "M001.rtdc")
    with (
        RecorderProcess(job.path_in, SPEC) as instrument,
        LiveSession(LiveRequest(job, tmp_path / "M001.spool", SPOOL_BYTES, view_seconds=0.5)) as session,
    ):
        instrument.record(SPEC.frames)
        state = session.advance(0.001)
        while state.frames_done == 0:
            # the first steps compute background images
            state = session.advance(0.001)
        assert state.lagging
        assert state.frames_done < 0.5 * SPEC.frames
        assert state.lag_seconds < 0.5
        assert not catch_up(session).lagging
        instrument.finish()
        assert catch_up(session).frames_done > 0.9 * SPEC.frames
        session.finish()
    finish(job)


def test_crash_of_the_recorder_leaves_a_spool_that_holds(tmp_path):
    """A recorder that is killed leaves the flags set; what it has flushed was processed."""
    job = job_for(tmp_path / "M001.rtdc")
    with (
        RecorderProcess(job.path_in, SPEC) as instrument,
        LiveSession(LiveRequest(job, tmp_path / "M001.spool", SPOOL_BYTES)) as session,
    ):
        instrument.record(SPEC.frames)
        instrument.crash()
        state = catch_up(session)
        session.finish()
    assert not state.ended
    assert state.frames_done > 0.9 * SPEC.frames


@pytest.mark.parametrize("code", ["sparsemed", "rollmed", "copy"])
def test_file_that_is_renamed_is_read_on(code, tmp_path):
    """The name may change at any time; what is found is that of the file, also when another one gets its name."""
    kwargs = {"sparsemed": SPARSE, "rollmed": {"kernel_size": 20}, "copy": {}}[code]
    job = job_for(tmp_path / "tmp.rtdc", settings=PipelineSettings(background_code=code, background_kwargs=kwargs))
    renamed = job_for(tmp_path / "M001.rtdc", settings=job.settings)
    peculiar = Peculiarities(background=code == "copy")
    with (
        RecorderProcess(job.path_in, SPEC, peculiar) as instrument,
        LiveSession(LiveRequest(job, spool_of(renamed), SPOOL_BYTES)) as session,
    ):
        instrument.record(1000)
        catch_up(session)
        job.path_in.rename(renamed.path_in)
        job.path_in.write_bytes(random.Random(1).randbytes(100_000))
        instrument.record(SPEC.frames)
        catch_up(session)
        instrument.finish()
        assert catch_up(session).frames_done > 0.9 * SPEC.frames
        assert session.finish()
    assert finish(renamed).frames_known > 0.4 * SPEC.frames


def test_file_that_is_deleted_is_read_to_its_end(tmp_path):
    """It lasts as long as somebody has it open."""
    job = job_for(tmp_path / "M001.rtdc")
    with (
        RecorderProcess(job.path_in, SPEC) as instrument,
        LiveSession(LiveRequest(job, spool_of(job), SPOOL_BYTES)) as session,
    ):
        instrument.record(1000)
        catch_up(session)
        job.path_in.unlink()
        instrument.record(2000)
        assert catch_up(session).frames_done > 1000


def test_frames_of_a_file_that_replaces_the_recording_are_not_taken_for_its_own(tmp_path):
    """Without a checksum, other bytes in the places of the frames would look like frames."""
    job = job_for(tmp_path / "M001.rtdc")
    moved = job_for(tmp_path / "moved.rtdc")
    with (
        RecorderProcess(job.path_in, dataclasses.replace(SPEC, compression="none", fletcher32=False)) as instrument,
        LiveSession(LiveRequest(job, spool_of(moved), SPOOL_BYTES)) as session,
    ):
        instrument.record(SPEC.frames)
        session.advance(0.001)
        instrument.finish()
        assert session.advance(0.001).ended
        size = job.path_in.stat().st_size
        job.path_in.rename(moved.path_in)
        job.path_in.write_bytes(random.Random(1).randbytes(size))
        catch_up(session)
        session.finish()
    assert finish(moved).frames_known > 0.4 * SPEC.frames


def test_session_that_is_given_up_leaves_no_spool(tmp_path):
    """Who has asked for it may be gone."""
    job = job_for(tmp_path / "M001.rtdc")
    with RecorderProcess(job.path_in, SPEC) as instrument:
        with LiveSession(LiveRequest(job, spool_of(job), SPOOL_BYTES)) as session:
            instrument.record(1000)
            catch_up(session)
            assert spool_of(job).exists()
        assert not spool_of(job).exists()


def test_recording_without_a_whole_unit_has_no_spool(tmp_path):
    """That is no error."""
    job = job_for(tmp_path / "M001.rtdc")
    with (
        RecorderProcess(job.path_in, SPEC) as instrument,
        LiveSession(LiveRequest(job, spool_of(job), SPOOL_BYTES)) as session,
    ):
        instrument.record(10)
        instrument.finish()
        assert catch_up(session).ended
        assert not session.finish()
    finish(job, differs=True)


def test_times_that_fall_are_accepted(tmp_path):
    """The delay is never negative, and the result is that of the finished file."""
    job = job_for(tmp_path / "M001.rtdc")
    assert record_live(job, SPEC, Peculiarities(last_time=0.05)).lag_seconds >= 0
    assert compare_results(job)[2] == []


@pytest.mark.parametrize("moment", [1e15, -1.0, float("nan")])
def test_absurd_times_are_not_processed_live(moment, tmp_path):
    """A time of 30 million years is no reason to count its seconds."""
    job = job_for(tmp_path / "M001.rtdc")
    with pytest.raises(DcnumdError) as error:
        record_live(job, SPEC, Peculiarities(last_time=moment))
    assert error.value.reason == "not_live"


def test_selected_frames_are_not_processed_live(tmp_path):
    """A job for some frames only waits for the end."""
    job = job_for(tmp_path / "M001.rtdc", settings=PipelineSettings(index_mapping=100))
    with RecorderProcess(job.path_in, SPEC) as instrument:
        instrument.record(500)
        with (
            LiveSession(LiveRequest(job, tmp_path / "one.spool", SPOOL_BYTES)) as session,
            pytest.raises(DcnumdError) as error,
        ):
            session.advance(1.0)
    assert error.value.reason == "not_live"


def test_more_background_images_than_memory_holds_end_the_session(tmp_path):
    """Many seconds between two frames tell that before anything is computed."""
    job = job_for(tmp_path / "M001.rtdc")
    with (
        RecorderProcess(job.path_in, dataclasses.replace(SPEC, rate=0.05)) as instrument,
        LiveSession(LiveRequest(job, tmp_path / "one.spool", SPOOL_BYTES)) as session,
    ):
        instrument.record(100)
        session.advance(1.0)
        instrument.record(SPEC.frames)
        with pytest.raises(DcnumdError, match="too many background images"):
            # the background is not chosen in each step
            any(not session.advance(1.0) for _ in itertools.count())


def test_file_that_is_not_in_swmr_mode_is_refused(tmp_path):
    """Only HDF5's promise to readers makes it safe to read a file that is being written."""
    path = tmp_path / "M001.rtdc"
    with h5py.File(path, "w") as h5:
        h5["events/image"] = np.zeros((10, 48, 100), np.uint8)
    with pytest.raises(DcnumdError) as error:
        LiveSession(LiveRequest(job_for(path), tmp_path / "one.spool", SPOOL_BYTES))
    assert error.value.reason == "not_live"
