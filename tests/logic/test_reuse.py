"""Whether the file in the place of a result is the result of the content at hand."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import uuid

import h5py
import hdf5plugin  # noqa: F401 -- registers the Zstandard filter
import numpy as np
import pytest

from dcnumd.errors import MeasurementError
from dcnumd.logic.job import Job, JobResult, KnownContent, PipelineSettings
from dcnumd.logic.origin import Input, Origin
from dcnumd.logic.plan import open_plan
from dcnumd.logic.process import engine, process_measurement
from dcnumd.logic.reuse import settle_existing
from dcnumd.logic.stamp import Stamp
from dcnumd.read.metadata import ORIGIN
from dcnumd.simulate.measurement import MeasurementSpec, write_measurement

pytestmark = pytest.mark.slow

SPEC = MeasurementSpec(size=(45, 100), frames=60, density=3, seed=3)
IDENTIFYING = ("experiment:date", "experiment:time", "setup:identifier", "experiment:run identifier")


@pytest.fixture(scope="module", params=["named", "nameless"])
def processed(request, tmp_path_factory):
    """Return a measurement, with or without what identifies it, and its results of both kinds."""
    folder = tmp_path_factory.mktemp(request.param)
    path = folder / "M001.rtdc"
    write_measurement(path, SPEC)
    with h5py.File(path, "r+") as h5:
        for key in IDENTIFYING:
            if request.param == "nameless" and key in h5.attrs:
                del h5.attrs[key]
    for strategy in ("tap", "drain"):
        process_measurement(Job(path, folder / f"{strategy}.rtdc", basin_strategy=strategy, num_workers=1))
    engine.close()
    return path


@pytest.fixture
def job(processed, tmp_path, request):
    """Return the job of a copy of the measurement whose result is in its place."""
    path, strategy = tmp_path / "M001.rtdc", getattr(request, "param", "tap")
    shutil.copyfile(processed, path)
    result = tmp_path / "M001_dcn.rtdc"
    shutil.copyfile(processed.with_name(f"{strategy}.rtdc"), result)
    with h5py.File(result, "r+") as h5:
        h5["events"].attrs[ORIGIN + "path"] = np.bytes_(os.fsencode(path))
    return Job(path, result, basin_strategy=strategy)


def be_silent(path):
    """Have a result say nothing of its origin, as those of earlier versions."""
    with h5py.File(path, "r+") as h5:
        for key in [key for key in h5["events"].attrs if key.startswith(ORIGIN)]:
            del h5["events"].attrs[key]


def settle(job):
    """Return the reason for which a job is skipped, or what it does to an existing file."""
    with open_plan(job) as plan:
        outcome = settle_existing(plan, Input(job).identify(plan))
    return outcome.reason if isinstance(outcome, JobResult) else outcome


def grow(h5):
    count = len(h5["events/image"]) + 5
    for dataset in h5["events"].values():
        last = dataset[-1]
        dataset.resize(count, axis=0)
        dataset[-5:] = last
    h5.attrs["experiment:event count"] = count


def change_frames(h5):
    h5["events/image"][...] = h5["events/image"][:][:, ::-1, ::-1]


def correct_sample(h5):
    h5.attrs["experiment:sample"] = "corrected"


def correct_flow_rate(h5):
    h5.attrs["setup:flow rate"] = 0.08


def change_one_pixel(h5):
    h5["events/image"][30, 20, 50] ^= 1


def change_time(h5):
    h5["events/time"][...] = h5["events/time"][:] + 1


CHANGES = (grow, change_frames, correct_sample, correct_flow_rate, change_one_pixel, change_time)


def change_input(job, change):
    with h5py.File(job.path_in, "r+") as h5:
        change(h5)


@pytest.mark.parametrize("job", ["tap", "drain"], indirect=True)
@pytest.mark.parametrize("silent", [False, True])
def test_result_of_the_same_content_counts(silent, job):
    """Also one that says nothing of its origin, and that of a file that was copied or got a new date."""
    if silent:
        be_silent(job.path_out)
    os.utime(job.path_in, (10**9, 10**9))
    assert settle(job) == "output_exists"


@pytest.mark.parametrize("change", CHANGES)
def test_result_of_another_content_does_not_count(change, job):
    """A longer recording, another one of the same name, one with corrected metadata: the result differs."""
    change_input(job, change)
    assert settle(job) == "output_differs"


@pytest.mark.parametrize("change", CHANGES)
def test_own_result_of_a_former_content_is_replaced_by_whoever_may(change, job):
    """The daemon replaces what it, or `dcnumd process`, made of the same path before; but nothing of another path."""
    change_input(job, change)
    job = dataclasses.replace(job, replace_former=True)
    assert settle(job) == "replace"
    moved = job.path_in.rename(job.path_in.with_name("N001.rtdc"))
    assert settle(dataclasses.replace(job, path_in=moved)) == "output_differs"


def test_former_result_is_known_by_any_path_of_its_measurement(job):
    """A folder that is watched by a symbolic link has the measurements that are processed by another path."""
    change_input(job, grow)
    link = job.path_in.parent / "link"
    link.symlink_to(job.path_in.parent)
    assert settle(dataclasses.replace(job, path_in=link / job.path_in.name, replace_former=True)) == "replace"


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_measurement_is_never_replaced(when, job):
    """Not even by whoever may replace results: one that has the name of another one's result stays as it is."""
    raw = job.path_in.read_bytes()
    job = dataclasses.replace(job, existing="replace", num_workers=1)
    if when == "before":
        job.path_out.write_bytes(raw)
    result = process_measurement(job, on_progress=lambda _progress: job.path_out.write_bytes(raw))
    assert (result.outcome, result.reason) == ("skipped", "output_differs")
    assert "is a measurement and no result" in result.error
    assert job.path_out.read_bytes() == raw
    engine.close()


def no_result(job):
    job.path_out.write_bytes(b"theirs")
    return job, "does not say of what it was made; move it away"


def another_ending(job):
    path = job.path_in.with_suffix(".RTDC")
    shutil.copyfile(job.path_in, path)
    with h5py.File(path, "r+") as h5:
        change_frames(h5)
    return dataclasses.replace(job, path_in=path), f"{job.path_in}; their names differ in the ending only"


def another_name(job):
    change_input(job, change_frames)
    return dataclasses.replace(
        job, path_in=job.path_in.rename(job.path_in.with_name("N001.rtdc"))
    ), f"{job.path_in}; if"


def other_settings(job):
    return dataclasses.replace(
        job, settings=PipelineSettings(segmenter_kwargs={"thresh": -9})
    ), "with other settings; set"


def former_content(job):
    change_input(job, change_frames)
    return job, "of a former content of this measurement; set"


def cut_short(job):
    with h5py.File(job.path_out, "r+") as h5:
        h5.attrs["pipeline:dcnum yield"] += 1
    return job, "is damaged, or was changed by another program; move it away"


@pytest.mark.parametrize("make", [no_result, another_ending, another_name, other_settings, former_content, cut_short])
def test_what_is_in_the_way_is_told_with_the_cure(make, job):
    """An operator reads what the file with the result's name is, and what to do about it."""
    job, words = make(job)
    with open_plan(job) as plan:
        outcome = settle_existing(plan, Input(job).identify(plan))
    assert outcome.reason == "output_differs"
    assert outcome.error.startswith(f"{job.path_out}: ")
    assert words in outcome.error


@pytest.mark.parametrize("job", ["drain"], indirect=True)
@pytest.mark.parametrize("change", [grow, change_frames, correct_sample, correct_flow_rate, change_time])
def test_silent_result_is_held_against_what_it_says(change, job):
    """Frames, numbers of frames in the logs, metadata and times show that it is of something else."""
    be_silent(job.path_out)
    change_input(job, change)
    assert settle(dataclasses.replace(job, replace_former=True)) == "output_differs"


@pytest.mark.parametrize("job", ["tap", "drain"], indirect=True)
def test_silent_result_may_have_the_identifier_that_dcnum_gives(job):
    """Of fixed-length strings dcnum takes Python's notation."""
    be_silent(job.path_out)
    texts = {"experiment:time": b"10:00:00", "experiment:date": b"2025-01-15", "setup:identifier": b"ZMD-1"}
    for path in (job.path_in, job.path_out):
        with h5py.File(path, "r+") as h5:
            h5.attrs.update({key: np.bytes_(text) for key, text in texts.items()})
            identifier = h5.attrs.pop("experiment:run identifier", "")
    run = identifier.rpartition("_")[2]
    named = hashlib.md5("_".join(map(str, texts.values())).encode(), usedforsecurity=False).hexdigest()
    with h5py.File(job.path_out, "r+") as h5:
        h5.attrs["experiment:run identifier"] = f"{uuid.UUID(named)}_{run}"
    assert settle(job) == "output_exists"


def test_known_digest_is_taken_only_under_its_stamp(job):
    """What the daemon knows of a file is not found out again, unless the file has changed."""
    known = KnownContent(Stamp.of(job.path_in.stat()), "0" * 32)
    with open_plan(job) as plan:
        trusting = Input(dataclasses.replace(job, known=known))
        assert trusting.identify(plan).digest == known.digest
    os.utime(job.path_in, (10**9, 10**9))
    assert settle(dataclasses.replace(job, known=known)) == "output_exists"


def test_result_says_of_what_it_is_made(job):
    """Path, size, number of frames and digest are attributes of the events."""
    with h5py.File(job.path_out) as h5, open_plan(job) as plan:
        origin = Origin.read(h5)
        expected = Input(job).identify(plan)
    assert origin == expected
    assert (origin.frames, origin.size) == (SPEC.frames, job.path_in.stat().st_size)


@pytest.mark.parametrize("change", CHANGES)
def test_change_of_content_is_noticed(change, job):
    """Whatever changes while a job runs; a new date alone does not."""
    source = Input(job)
    with open_plan(job) as plan:
        source.identify(plan)
    os.utime(job.path_in, (10**9, 10**9))
    source.check()
    change_input(job, change)
    with pytest.raises(MeasurementError) as caught:
        source.check()
    assert (caught.value.reason, caught.value.transient) == ("changed", True)


def test_result_that_somebody_else_made_meanwhile_is_looked_at(job):
    """Who comes second finds the whole result and has nothing more to do; another file there is left alone."""
    content = job.path_out.read_bytes()
    for made, reason in ((content, "output_exists"), (b"theirs", "output_differs")):
        job.path_out.unlink()

        def make(_progress, made=made):
            job.path_out.write_bytes(made)

        result = process_measurement(dataclasses.replace(job, num_workers=1), on_progress=make)
        assert (result.outcome, result.reason) == ("skipped", reason)
        assert job.path_out.read_bytes() == made
    engine.close()


@pytest.mark.parametrize("content", ["recording", "result"])
def test_former_result_is_not_replaced_when_it_is_another_file_by_now(content, job, processed):
    """What was put there while the job ran stays, whether the new result is computed or a copy of its input."""
    if content == "recording":
        change_input(job, grow)
    else:
        shutil.copyfile(processed.with_name("drain.rtdc"), job.path_in)
    job = dataclasses.replace(job, replace_former=True, num_workers=1)
    assert settle(job) == "replace"
    result = process_measurement(job, on_progress=lambda _progress: job.path_out.write_bytes(b"theirs"))
    assert (result.outcome, result.reason) == ("skipped", "output_differs")
    assert job.path_out.read_bytes() == b"theirs"
    engine.close()
