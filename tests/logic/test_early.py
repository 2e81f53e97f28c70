"""Results that are prepared, and published or discarded later."""

from __future__ import annotations

import dataclasses
import os

import pytest

from dcnumd.errors import JobCancelledError, MeasurementError, ResultError
from dcnumd.logic.calls import discard_job, prepare_job, run_job
from dcnumd.logic.early import prepare_measurement, publish_prepared
from dcnumd.logic.job import Job, KnownContent, PipelineSettings
from dcnumd.logic.origin import Input
from dcnumd.logic.plan import open_plan
from dcnumd.logic.process import engine
from dcnumd.logic.stamp import Stamp
from dcnumd.write.result import remove_leftovers
from tests.support.daemon import draw_measurement
from tests.support.same import differences

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _pipeline():
    yield
    engine.close()


@pytest.fixture
def job(tmp_path):
    """Return the job of a small measurement with known content."""
    path = tmp_path / "M001.rtdc"
    draw_measurement(path)
    return known(Job(path, tmp_path / "M001_dcn.rtdc", num_workers=1, job_id="a1"))


def known(job):
    """Return the job with the content that its input has now."""
    with open_plan(job) as plan:
        digest = Input(job).identify(plan).digest
    return dataclasses.replace(job, known=KnownContent(Stamp.at(job.path_in), digest))


def names(job):
    return sorted(path.name for path in job.path_in.parent.iterdir())


@pytest.mark.parametrize("strategy", ["tap", "drain"])
def test_prepared_result_is_published_as_it_would_have_been_made(job, strategy):
    """Until then it has a temporary name, which the clean-up of leftovers respects; there is no scratch file."""
    job = dataclasses.replace(job, basin_strategy=strategy)
    prepared = prepare_job(job)
    assert (prepared.outcome, prepared.early, prepared.frames, prepared.events) == ("done", True, 60, 30)
    assert len(names(job)) == 2
    assert remove_leftovers(job.path_in.parent) == []
    published = run_job(job)
    assert published.early
    assert (published.events, published.bytes_written) == (30, job.path_out.stat().st_size)
    assert published.seconds >= prepared.seconds
    assert names(job) == ["M001.rtdc", "M001_dcn.rtdc"]
    kept = job.path_out.rename(job.path_in.with_name("early.rtdc"))
    assert not run_job(job).early
    assert differences(kept, job.path_out) == []


def test_prepared_result_is_discarded(job):
    prepare_job(job)
    assert discard_job(job.job_id)
    assert not discard_job(job.job_id)
    assert names(job) == ["M001.rtdc"]
    assert publish_prepared(job) is None


def append(job):
    draw_measurement(job.path_in, frames=70, seed=1)
    return known(job)


def replace(job):
    draw_measurement(job.path_in.with_name("new"), seed=1)
    job.path_in.with_name("new").rename(job.path_in)
    return known(job)


def touch(job):
    os.utime(job.path_in, ns=(1, 1))
    return known(job)


def change_behind_the_back(job):
    draw_measurement(job.path_in, seed=1)
    return job


@pytest.mark.parametrize("change", [append, replace, touch, change_behind_the_back])
def test_change_of_the_measurement_discards_the_result(job, change, tmp_path):
    """Nothing of the former content is seen; the usual job makes the result of the present one."""
    prepare_job(job)
    job = change(job)
    assert publish_prepared(job) is None
    assert names(job) == ["M001.rtdc"]
    result = run_job(job)
    assert not result.early
    expected = dataclasses.replace(job, path_out=tmp_path / "expected.rtdc", known=None)
    run_job(expected)
    assert [found for found in differences(job.path_out, expected.path_out) if "dcnumd-job" not in found] == []


def test_other_job_does_not_take_the_result(job):
    """It may have other settings, such as those of a changed config."""
    prepare_job(job)
    other = dataclasses.replace(job, settings=PipelineSettings(segmenter_kwargs={"thresh": -8}))
    assert publish_prepared(other) is None
    assert names(job) == ["M001.rtdc"]


@pytest.mark.parametrize("existing", ["skip", "fail", "replace"])
def test_file_that_appears_in_the_place_of_the_result_is_left_to_the_usual_job(job, existing):
    job = dataclasses.replace(job, existing=existing)
    prepare_job(job)
    job.path_out.write_bytes(b"of somebody else")
    assert publish_prepared(job) is None
    assert job.path_out.read_bytes() == b"of somebody else"
    assert names(job) == ["M001.rtdc", "M001_dcn.rtdc"]


def test_nothing_is_prepared_in_the_place_of_a_file(job):
    """Whether a former result is replaced is decided when the measurement has settled."""
    job.path_out.write_bytes(b"of somebody else")
    result = prepare_job(job)
    assert (result.outcome, result.reason) == ("skipped", "output_exists")
    assert not discard_job(job.job_id)


def test_copy_of_a_result_is_not_prepared(job):
    run_job(job)
    copied = known(dataclasses.replace(job, path_in=job.path_out, path_out=job.path_out.with_name("copy.rtdc")))
    assert prepare_job(copied).reason == "already_processed"
    assert run_job(copied).reason == "already_processed"


def test_removed_temporary_file_is_made_again(job):
    """Somebody may remove what he takes for a leftover."""
    prepare_job(job)
    for path in job.path_in.parent.glob(".*"):
        path.unlink()
    result = run_job(job)
    assert (result.outcome, result.early) == ("done", False)


def test_errors_leave_nothing(job):
    """Neither does a job that is stopped, nor one whose measurement is gone, nor a folder that cannot be written."""
    with pytest.raises(JobCancelledError):
        prepare_measurement(job, cancel=lambda: True)
    assert names(job) == ["M001.rtdc"]
    with pytest.raises(ResultError):
        prepare_job(dataclasses.replace(job, path_out=job.path_in / "no folder" / "result.rtdc"))
    job.path_in.unlink()
    with pytest.raises(MeasurementError):
        prepare_job(job)
    assert names(job) == []
