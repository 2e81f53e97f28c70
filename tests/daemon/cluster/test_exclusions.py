"""Which workers get jobs after failures that may be theirs."""

from __future__ import annotations

import asyncio
import json
import pathlib

import pytest

from dcnumd.cli import main
from dcnumd.config.values import RetrySettings
from dcnumd.daemon.clock import now
from dcnumd.daemon.cluster.exclusions import MAX_SECONDS, Exclusions
from dcnumd.errors import MeasurementError, WorkerError
from dcnumd.logic.job import Job, PipelineSettings
from tests.support.faults import published
from tests.support.loop import in_loop

ALL = frozenset({"a", "b", "c"})
RETRY = RetrySettings(backoff_seconds=30.0)
MISSING = WorkerError("it is not there", "worker_path")


def job(number):
    return Job(pathlib.Path("in.rtdc"), pathlib.Path("out.rtdc"), PipelineSettings(), job_id=f"{number}")


@pytest.fixture
def changed():
    """Return an event that is set when a worker may get jobs again."""
    return asyncio.Event()


@pytest.fixture
def exclusions(changed):
    return Exclusions(changed.set)


async def pause(changed):
    """Wait until a worker gets jobs again; return how long that took [s]."""
    begin = now()
    changed.clear()
    await changed.wait()
    return now() - begin


@in_loop
async def test_a_worker_gets_no_jobs_for_a_time_that_grows(exclusions, changed):
    """Whoever hands out jobs is told when it is over; a job that it completes ends all of that."""
    assert exclusions.usable(ALL) == ALL
    pauses = []
    for number in range(8):
        assert exclusions.failed(job(number), "a", "A", MISSING, ALL, RETRY)
        assert exclusions.usable(ALL) == {"b", "c"}
        pauses.append(await pause(changed))
        assert exclusions.usable(ALL) == ALL
    assert 20 < pauses[0] < pauses[2] < pauses[4] < pauses[7] <= MAX_SECONDS + 1
    assert [(one.worker, one.reason) for one in exclusions.workers] == [("A", "worker_path")]
    exclusions.succeeded("a")
    assert exclusions.workers == ()
    assert exclusions.failed(job(9), "a", "A", MISSING, ALL, RETRY)
    assert await pause(changed) < 40


@in_loop
async def test_jobs_that_a_worker_was_given_before_lengthen_no_pause(exclusions, changed):
    """They fail in the same moment, and go to other workers as well."""
    for number in range(5):
        assert exclusions.failed(job(number), "a", "A", MISSING, ALL, RETRY)
    assert await pause(changed) < 40


@in_loop
async def test_a_job_that_nobody_can_do_is_to_blame(exclusions):
    """It fails on one worker after the other; then all of them get jobs again, but for those that others blame."""
    assert exclusions.failed(job(1), "c", "C", MISSING, ALL, RETRY)
    too_large = WorkerError("too large", "memory_limit")
    assert exclusions.failed(job(2), "a", "A", too_large, ALL, RETRY)
    assert exclusions.usable(ALL) == {"b"}
    assert not exclusions.failed(job(2), "b", "B", too_large, ALL, RETRY)
    assert exclusions.usable(ALL) == {"a", "b"}


@in_loop
async def test_the_only_worker_keeps_its_jobs(exclusions):
    """Also one that was set exclusions when there were others."""
    assert not exclusions.failed(job(1), "a", "A", MISSING, frozenset({"a"}), RETRY)
    assert exclusions.failed(job(1), "a", "A", MISSING, ALL, RETRY)
    assert exclusions.usable(frozenset({"a"})) == {"a"}
    exclusions.keep(frozenset({"b"}))
    assert exclusions.workers == ()


@in_loop
async def test_other_failures_say_nothing_about_a_worker(exclusions):
    """They are those of the measurement, or of a worker that is not known."""
    damaged = MeasurementError("damaged", "damaged")
    assert not exclusions.failed(job(1), "a", "A", damaged, ALL, RETRY)
    assert not exclusions.failed(job(1), "", "", MISSING, ALL, RETRY)
    assert exclusions.usable(ALL) == ALL


@pytest.mark.slow
def test_a_worker_with_too_little_memory_is_excluded(
    shared_cluster, pair, start_daemon, write_config, watched_folder, tmp_path, capsys
):
    """The others get its jobs, no attempt is lost, and whoever asks is told."""
    small = shared_cluster.start_worker("small", "resources.max_memory_mb=100")
    small.wait_for("worker.ready")
    daemon = start_daemon("--set", "retry.attempts=1", config=write_config(shared_cluster.config()))
    for path in [published(watched_folder, f"M{number}.rtdc", seed=number) for number in range(5)]:
        daemon.wait_for("job.finished", path=str(path))
    (excluded,) = daemon.matching("worker.excluded")
    assert (excluded["worker"], excluded["reason"]) == ("small", "memory_limit")
    assert {event["reason"] for event in daemon.matching("job.returned")} == {"worker_unfit"}
    assert not daemon.matching("job.failed")
    capsys.readouterr()
    assert main(["status", "--json", "-c", str(tmp_path / "config.toml")]) == 0
    (told,) = json.loads(capsys.readouterr().out)["conditions"]
    assert (told["name"], told["light"]) == ("worker.excluded", "yellow")
    assert "small could not do what other computers can" in told["text"]
    assert daemon.stop() == 0
    assert small.stop() == 0
