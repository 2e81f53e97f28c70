"""Settling: what is remembered, what passes, and when it comes back to a file."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import os
import signal

import pytest
import structlog

from dcnumd.config.values import LogSettings, OutputSettings, RetrySettings, Settings, WatchSettings
from dcnumd.daemon.ledger.records import State
from dcnumd.daemon.ledger.store import Ledger
from dcnumd.daemon.measurements import inspector, settle
from dcnumd.errors import MeasurementError
from dcnumd.logic.stamp import Stamp
from tests.support.works import in_works, with_works

SETTINGS = Settings(
    watch=WatchSettings(settle_seconds=0.1, rescan_seconds=0.5),
    retry=RetrySettings(attempts=2, backoff_seconds=0.05),
    log=LogSettings(level="error"),
)


PATIENT = dataclasses.replace(SETTINGS, retry=RetrySettings(attempts=3, backoff_seconds=60.0))
with_settling = functools.partial(with_works, settings=SETTINGS, with_jobs=False)
settling = functools.partial(in_works, settings=SETTINGS, with_jobs=False)


@settling()
async def test_quiet_measurement_passes_once(works, path):
    """However often it is offered, a file passes once, with its content and pipeline."""
    begin = asyncio.get_running_loop().time()
    await works.offer(path)
    await works.offer(path, path)
    entry = await works.next_passed()
    assert asyncio.get_running_loop().time() - begin >= 0.1
    assert (entry.state, entry.path, entry.frames) == (State.QUEUED, str(path), 60)
    assert entry.content.size == path.stat().st_size
    assert entry.pphash
    await works.offer(path)
    assert not works.tracker.candidates
    assert not works.queue


def test_done_measurement_is_known_after_a_restart(tmp_path, path):
    """Neither an unchanged nor a touched file is repeated."""
    output = tmp_path / "M_dcn.rtdc"

    async def first(works):
        await works.offer(path)
        works.finish(await works.next_passed(), output)

    async def unchanged(works):
        await works.offer(path)
        assert not works.tracker.candidates

    async def touched(works):
        os.utime(path)
        await works.offer(path)
        await works.next_left()
        assert not works.queue
        assert [entry.state for entry in works.ledger.entries()] == [State.DONE]

    for body in (first, unchanged, touched, unchanged):
        with_settling(tmp_path, body)


def test_queued_measurement_goes_straight_to_the_queue_after_a_restart(tmp_path, path):
    """What was complete before the restart, and has not changed, need not settle again."""

    async def first(works):
        await works.offer(path)
        await works.next_passed()

    async def second(works):
        await works.offer(path)
        assert len(works.queue) == 1

    with_settling(tmp_path, first)
    with_settling(tmp_path, second)


def test_other_settings_make_another_job(tmp_path, path):
    """Under another pipeline a done measurement is new; back under the first one it is still done."""
    other = dataclasses.replace(SETTINGS, output=OutputSettings(folder=tmp_path / "other"))
    other = dataclasses.replace(
        other,
        pipeline=dataclasses.replace(
            other.pipeline, features=dataclasses.replace(other.pipeline.features, volume=False)
        ),
    )
    hashes = []

    def run(settings, output):
        async def body(works):
            await works.offer(path)
            entry = await works.next_passed()
            hashes.append(entry.pphash)
            works.finish(entry, output)

        with_settling(tmp_path, body, settings=settings)

    run(SETTINGS, tmp_path / "M_dcn.rtdc")
    run(other, tmp_path / "second_dcn.rtdc")
    assert len(set(hashes)) == 2

    async def back(works):
        await works.offer(path)
        await works.next_left()
        assert not works.queue

    with_settling(tmp_path, back)


@settling()
async def test_replaced_content_replaces_our_own_result_only(works, tmp_path, path, measurement):
    """A new measurement under an old name may replace the result that we made from the old one."""
    output = tmp_path / "M_dcn.rtdc"
    await works.offer(path)
    first = await works.next_passed()
    assert not first.replace_output
    works.finish(first, output)
    measurement(path, seed=2)
    await works.offer(path)
    second = await works.next_passed()
    assert second.id != first.id
    assert second.replace_output


@settling()
async def test_changed_while_queued_is_taken_back(works, path, measurement):
    """A queued file that changes settles again; the entry of its old content is closed."""
    await works.offer(path)
    first = await works.next_passed()
    measurement(path, seed=2)
    await works.offer(path)
    second = await works.next_passed()
    assert second.content != first.content
    old = works.ledger.get(first.id)
    assert (old.state, old.reason) == (State.SKIPPED, "replaced")


@settling()
async def test_vanished_file_ends_as_skipped(works, path, measurement):
    """A file that is gone before it has settled leaves a trace, but no failure."""
    await works.offer(path)
    path.unlink()
    await works.next_left()
    (entry,) = works.ledger.entries()
    assert (entry.state, entry.reason) == (State.SKIPPED, "vanished")
    assert works.lifecycle.failures == 0
    measurement(path)
    await works.offer(path)
    await works.next_passed()


@settling()
async def test_transient_fault_comes_back_permanent_one_does_not(works, path):
    """Faults that may pass are repeated with a pause, up to the limit; the others never."""
    await works.offer(path)
    entry = await works.next_passed()
    works.ledger.move(entry.id, State.RUNNING)
    works.lifecycle.fail(entry, MeasurementError("share gone", "unreachable", transient=True))
    again = await works.next_passed()
    assert (again.id, again.attempts, again.state) == (entry.id, 1, State.QUEUED)
    works.ledger.move(entry.id, State.RUNNING)
    works.lifecycle.fail(again, MeasurementError("share gone", "unreachable", transient=True))
    failed = works.ledger.get(entry.id)
    assert (failed.state, failed.reason, failed.attempts) == (State.FAILED, "unreachable", 2)
    assert not works.tracker.candidates
    assert works.lifecycle.failures == 1
    await works.offer(path)
    assert not works.tracker.candidates


@settling()
async def test_incomplete_copy_fails_after_deadline_and_passes_when_completed(
    works, tmp_path, measurement, monkeypatch
):
    """A copy that stands still is given up with a reason; when it goes on it is a new chance."""
    monkeypatch.setattr(settle, "PATIENCE", 3)
    whole, path = tmp_path / "whole.h5", tmp_path / "M.rtdc"
    measurement(whole)
    content = whole.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    await works.offer(path)
    await works.next_left()
    (entry,) = works.ledger.entries()
    assert (entry.state, entry.reason) == (State.FAILED, "truncated")
    path.write_bytes(content)
    await works.offer(path)
    await works.next_passed()


@settling(once=True)
async def test_once_does_not_wait_for_a_growing_file(works, path):
    """With ``once`` a file that changes while it is waited for is left for the next run."""
    await works.offer(path)
    os.utime(path)
    await works.next_left()
    assert not works.queue
    assert works.lifecycle.failures == 0


@settling()
async def test_writing_is_noticed(works, path):
    """While a watched file grows this is known, and when it rests again, too."""
    assert works.tracker.quiet.is_set()
    await works.offer(path)
    with path.open("ab") as file:
        file.write(b"more")
    await works.offer(path)
    assert not works.tracker.quiet.is_set()
    await asyncio.wait_for(works.tracker.quiet.wait(), 30)


@settling()
async def test_forgotten_measurement_is_new(works, tmp_path, path):
    """What another process removes from the ledger is found anew."""
    await works.offer(path)
    entry = works.finish(await works.next_passed(), tmp_path / "M_dcn.rtdc")
    with Ledger.open(tmp_path) as other:
        other.forget(entry.id)
    await works.offer(path)
    again = await works.next_passed()
    assert again.id != entry.id


def test_backlog_is_a_few_transactions(tmp_path):
    """Many files at once are written to disk together, in portions that keep nobody waiting."""
    statements = []

    async def body(works):
        works.ledger._connection.set_trace_callback(statements.append)
        works.settling.offer([(f"/in/{number}.rtdc", Stamp(number, 1, 2, 3)) for number in range(300)])
        await works.settling.all_admitted()
        works.ledger._connection.set_trace_callback(None)
        assert works.ledger.counts()[State.SETTLING] == 300

    patient = dataclasses.replace(SETTINGS, watch=WatchSettings(settle_seconds=100.0))
    with_settling(tmp_path, body, settings=patient)
    assert statements.count("COMMIT") <= 300 / settle.SLICE


@settling()
async def test_touched_while_running_stays_running(works, path):
    """The row that is being processed takes the new stamp, and is not queued a second time."""
    await works.offer(path)
    entry = await works.next_passed()
    works.ledger.move(entry.id, State.RUNNING)
    os.utime(path)
    await works.offer(path)
    await works.next_left()
    assert not works.queue
    (running,) = works.ledger.entries()
    assert (running.id, running.state, running.stamp) == (entry.id, State.RUNNING, Stamp.at(str(path)))
    await works.offer(path)
    assert not works.tracker.candidates


async def stop_probe_while_it_looks(works, path):
    """Freeze the probe, and return when it has been asked to look into `path`."""
    await works.probe.start()
    os.kill(works.probe.pid, signal.SIGSTOP)
    await works.offer(path)
    candidate = works.tracker.candidate(str(path))
    async with asyncio.timeout(30):
        while not (candidate.busy and works.session._inspector._busy.locked()):  # noqa: ASYNC110 -- there is no event for it
            await asyncio.sleep(0.01)


@pytest.mark.slow
@settling(processes=True)
async def test_probe_that_dies_or_hangs_is_replaced(works, tmp_path, path, measurement, monkeypatch):
    """A crash in the reader, or a look that does not end, costs an attempt at most; none if the file has changed."""
    changed, hangs = tmp_path / "changed.rtdc", tmp_path / "hangs.rtdc"
    for number, file in enumerate((changed, hangs), start=1):
        measurement(file, seed=number)
    await works.probe.start()
    works.probe.kill()
    await works.offer(path)
    assert (await works.next_passed()).attempts <= 1

    # a verdict about bytes that are gone is none about the file
    await stop_probe_while_it_looks(works, changed)
    measurement(changed, seed=3, frames=50)
    works.probe.kill()
    entry = await works.next_passed()
    assert (entry.frames, entry.attempts, works.lifecycle.failures) == (50, 0, 0)

    monkeypatch.setattr(inspector, "INSPECTION_SECONDS", 0.3)
    await stop_probe_while_it_looks(works, hangs)
    await works.until(lambda: works.ledger.latest(str(hangs)).attempts)
    entry = works.ledger.latest(str(hangs))
    assert (entry.reason, entry.attempts) == ("look_timeout", 1)
    monkeypatch.setattr(inspector, "INSPECTION_SECONDS", 60.0)
    assert (await works.next_passed()).attempts == 1


@settling()
async def test_successor_replaces_what_its_predecessor_was_to_replace(works, tmp_path, path, measurement):
    """An outdated result stays marked as such when the content changes before it was replaced."""
    await works.offer(path)
    first = await works.next_passed()
    works.ledger.amend(first.id, replace_output=1)
    measurement(path, seed=2)
    await works.offer(path)
    second = await works.next_passed()
    assert second.id != first.id
    assert second.replace_output
    works.finish(second, tmp_path / "M_dcn.rtdc")
    assert not [entry for entry in works.ledger.entries() if entry.replace_output]


@settling()
async def test_unreachable_result_counts_as_present(works, tmp_path, path):
    """Whoever cannot look whether a result is there neither ends nor repeats its measurement."""
    await works.offer(path)
    entry = await works.next_passed()
    works.ledger.move(entry.id, State.RUNNING)
    # A name that the system refuses to look up, as it refuses all names on a stale share.
    works.ledger.finish(entry.id, str(tmp_path / ("M" * 300)))
    works.lifecycle.leave_queue(entry.path)
    await works.offer(path)
    assert not works.tracker.candidates


@settling(settings=PATIENT)
async def test_measurement_that_is_done_is_waited_for_no_longer(works, tmp_path, path):
    """What waits for another attempt, and is done meanwhile by whatever means, may be deleted like any other."""
    await works.offer(path)
    entry = await works.next_passed()
    works.ledger.move(entry.id, State.RUNNING)
    works.lifecycle.fail(entry, MeasurementError("share gone", "unreachable", transient=True))
    assert [waiting.entry_id for waiting in works.tracker.candidates] == [entry.id]
    works.finish(entry, tmp_path / "M_dcn.rtdc")
    assert not works.tracker.candidates


@settling()
async def test_impossible_step_costs_its_file_and_nobody_else(works, tmp_path, measurement):
    """A row that came to its end behind its candidate is told of as our mistake; the others go on."""
    astray, after = tmp_path / "astray.rtdc", tmp_path / "after.rtdc"
    measurement(astray, seed=1)
    measurement(after, seed=2)
    await works.offer(astray)
    candidate = works.tracker.candidate(str(astray))
    works.ledger.move(candidate.entry_id, State.DONE)
    astray.unlink()
    with structlog.testing.capture_logs() as heard:
        await works.next_left()
    (failed,) = [event for event in heard if event["event"] == "job.failed"]
    assert (failed["reason"], failed["path"], failed["will_retry"]) == ("internal", str(astray), False)
    assert "cannot go from done to skipped" in failed["error"]
    assert works.states() == [State.DONE]
    await works.offer(after)
    assert (await works.next_passed()).path == str(after)


@settling()
async def test_mistake_in_a_step_that_can_fail_ends_the_row(works, path, monkeypatch):
    """Whatever is wrong with dcnumd itself while it decides about a file, the file has failed and is left alone."""
    monkeypatch.setattr(works.ledger, "identify", lambda *_, **__: 1 / 0)
    await works.offer(path)
    await works.next_left()
    (entry,) = works.ledger.entries()
    assert (entry.state, entry.reason, entry.error) == (State.FAILED, "internal", "division by zero")
    await works.offer(path)
    assert not works.tracker.candidates
