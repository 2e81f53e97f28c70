"""Results, reports and indexes are never taken for measurements, wherever they lie and whatever they are called."""

from __future__ import annotations

import os
import shutil

import pytest

from dcnumd.config.values import LogSettings, RetrySettings, Settings, WatchSettings
from dcnumd.daemon.ledger.records import State
from dcnumd.daemon.ledger.store import Ledger
from dcnumd.errors import MeasurementError, WorkerError
from dcnumd.logic.job import Job, PipelineSettings
from dcnumd.logic.process import engine, process_measurement
from tests.support.faults import JOB_SECONDS, published
from tests.support.works import with_works

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("output", ["acquisition", "."])
def test_results_may_go_to_where_measurements_come_from(start_daemon, watched_folder, output):
    """With an output folder that is watched, or holds the watched one, each measurement is processed once."""
    where = os.path.normpath(watched_folder.parent / output)
    options = ["--set", f"output.folder={where}", "--set", "watch.patterns=['*']", "--set", "report.enabled=true"]
    daemon = start_daemon(*options, "--set", "watch.rescan_seconds=0.2")
    path = published(watched_folder, "M1.rtdc")
    finished = daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    assert finished["output"] == f"{where}/M1_dcn.rtdc"
    daemon.wait_for("report.written", timeout=JOB_SECONDS)
    second = published(watched_folder, "M2.rtdc", seed=2)
    daemon.wait_for("job.finished", path=str(second), timeout=JOB_SECONDS)
    assert daemon.stop() == 0
    assert {event["path"] for event in daemon.matching("file.detected")} == {str(path), str(second)}


def test_measurement_that_is_called_like_a_result_is_one(start_daemon, write_config, watched_folder, state_folder):
    """Its name hides no measurement; our own results beside it are passed over without a word or a row."""
    config = write_config(rescan=0.2)
    path = published(watched_folder, "M001_dcn.rtdc")
    daemon = start_daemon(config=config)
    first = daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    assert first["output"] == str(watched_folder / "M001_dcn_dcn.rtdc")
    second = published(watched_folder, "M002.rtdc", seed=2)
    daemon.wait_for("job.finished", path=str(second), timeout=JOB_SECONDS)
    # by then, the results of the others were found by events and by scans
    third = published(watched_folder, "M003.rtdc", seed=3)
    daemon.wait_for("job.finished", path=str(third), timeout=JOB_SECONDS)
    assert daemon.stop() == 0
    again = start_daemon("--once", config=config, ready=False)
    assert again.wait(JOB_SECONDS) == 0
    heard = [*daemon.matching("file.detected"), *again.matching("file.detected")]
    assert {event["path"] for event in heard} == {str(path), str(second), str(third)}
    assert not daemon.matching("file.ignored") + again.matching("file.ignored")
    with Ledger.open_to_read(state_folder) as ledger:
        assert len(ledger.entries()) == 3


def test_measurement_that_has_the_name_of_another_ones_result_is_not_lost(start_daemon, watched_folder):
    """The other one is left out with a reason; both stay as they are."""
    other, path = published(watched_folder, "M001.rtdc"), published(watched_folder, "M001_dcn.rtdc", seed=2)
    daemon = start_daemon("--set", "watch.rescan_seconds=0.2")
    skipped = daemon.wait_for("job.skipped", reason="output_differs", timeout=JOB_SECONDS)
    assert skipped["path"] == str(other)
    finished = daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    assert finished["output"] == str(watched_folder / "M001_dcn_dcn.rtdc")


def test_measurement_in_the_place_of_a_recorded_result_is_processed(tmp_path, measurement):
    """A file that came there after the result is looked at, whatever the ledger says of its name."""
    settings = Settings(WatchSettings((tmp_path,), settle_seconds=0.05), log=LogSettings(level="error"))
    path, result = tmp_path / "M001.rtdc", tmp_path / "M001_dcn.rtdc"
    measurement(path)

    async def body(works):
        await works.offer(path)
        done = works.finish(await works.next_passed(), result)
        await works.offer(result)
        assert not works.tracker.candidates
        works.ledger.amend(done.id, finished_at="2020-01-01T00:00:00.000Z")
        measurement(result, seed=2)
        await works.offer(result)
        assert (await works.next_passed()).path == str(result)

    with_works(tmp_path, body, settings, with_jobs=False)


def test_result_that_was_not_recorded_is_awaited_until_its_measurement_has_ended(tmp_path, measurement):
    """Who made it was killed before it could say so: the result gets no row, neither now nor after a restart."""
    settings = Settings(WatchSettings((tmp_path,), settle_seconds=0.05), retry=RetrySettings(backoff_seconds=0.05))
    path, result = tmp_path / "M001.rtdc", tmp_path / "M001_dcn.rtdc"
    measurement(path)
    rows = []

    async def lost_pipeline(works):
        await works.offer(path)
        entry = await works.next_passed()
        rows.append(entry.id)
        works.ledger.move(entry.id, State.RUNNING)
        process_measurement(Job(path, result, PipelineSettings(), "drain", num_workers=1))
        works.lifecycle.fail(entry, WorkerError("killed", "worker_lost", transient=True))
        await works.offer(result)
        again = await works.next_passed()
        await works.offer(result)
        assert list(works.tracker.candidates) == []
        works.ledger.move(again.id, State.RUNNING)

    async def lost_daemon(works):
        await works.offer(result)
        await works.offer(path)
        assert (await works.next_passed()).id == rows[0]
        assert list(works.tracker.candidates) == []
        assert [entry.id for entry in works.ledger.entries()] == rows

    async def given_up(works):
        entry = works.ledger.get(rows[0])
        works.lifecycle.fail(works.ledger.move(entry.id, State.RUNNING), MeasurementError("damaged", "damaged"))
        await works.offer(result)
        await works.next_left()
        (row,) = works.ledger.entries(path=str(result))
        assert (row.state, row.reason) == (State.SKIPPED, "own_output")

    for body in (lost_pipeline, lost_daemon, given_up):
        with_works(tmp_path, body, settings, with_jobs=False)
    engine.close()


def test_result_whose_measurement_is_gone_is_looked_at(tmp_path, measurement):
    """It is awaited no longer, whether its measurement went away during another attempt or while nobody watched."""
    settings = Settings(WatchSettings((tmp_path,), settle_seconds=0.05), retry=RetrySettings(backoff_seconds=0.05))
    gone = [tmp_path / f"M00{number}.rtdc" for number in range(2)]
    results = [path.with_name(f"{path.stem}_dcn.rtdc") for path in gone]
    for path in gone:
        measurement(path)

    async def body(works):
        await works.offer(*gone)
        for entry in [await works.next_passed() for _ in gone]:
            works.ledger.move(entry.id, State.RUNNING)
        for path, result in zip(gone, results, strict=True):
            process_measurement(Job(path, result, PipelineSettings(), "drain", num_workers=1))
            path.unlink()
        works.lifecycle.fail(
            works.ledger.entries(path=str(gone[0]))[0], WorkerError("killed", "worker_lost", transient=True)
        )
        await works.next_left()
        await works.offer(results[0])
        assert [candidate.path for candidate in works.tracker.candidates] == [str(results[0])]

    async def later(works):
        await works.settling.close_vanished(frozenset({str(tmp_path)}))
        await works.offer(results[1])
        assert [candidate.path for candidate in works.tracker.candidates] == [str(results[1])]

    with_works(tmp_path, body, settings, with_jobs=False)
    with_works(tmp_path, later, settings, with_jobs=False)
    engine.close()


def test_result_from_elsewhere_that_is_called_so_is_no_measurement(tmp_path, measurement):
    """What dcnum made on another computer and somebody copied here says that it is a result, and has its name."""
    source, path = tmp_path / "elsewhere" / "M.rtdc", tmp_path / "acquisition" / "M_dcn.rtdc"
    for file in (source, path):
        file.parent.mkdir()
    measurement(source)
    settings = Settings(WatchSettings((path.parent,), settle_seconds=0.05), log=LogSettings(level="error"))
    process_measurement(Job(source, source.with_name("M_dcn.rtdc"), PipelineSettings(), "drain", num_workers=1))
    engine.close()
    shutil.copyfile(source.with_name("M_dcn.rtdc"), path)
    shutil.rmtree(source.parent)

    async def body(works):
        await works.offer(path)
        await works.next_left()
        (entry,) = works.ledger.entries(path=str(path))
        assert (entry.state, entry.reason) == (State.SKIPPED, "own_output")

    with_works(path.parent, body, settings, with_jobs=False)


@pytest.mark.parametrize("with_ledger", [True, False])
def test_old_results_are_no_measurements_after_a_change_of_the_suffix(
    start_daemon, watched_folder, state_folder, with_ledger
):
    """Results with another name are known by what is in them, also without a ledger, and are looked at once."""
    path = published(watched_folder, "M.rtdc")
    for suffix in ("_a", "_b"):
        assert start_daemon("--once", "--set", f"output.suffix={suffix}", ready=False).wait(JOB_SECONDS) == 0
        shutil.rmtree(state_folder)
    if with_ledger:
        assert start_daemon("--once", "--set", "output.suffix=_b", ready=False).wait(JOB_SECONDS) == 0
    results = [watched_folder / f"M{suffix}.rtdc" for suffix in ("_a", "_b")]
    daemon = start_daemon("--once", "--set", "output.suffix=_c", ready=False)
    assert daemon.wait(JOB_SECONDS) == 0
    ignored = {event["path"] for event in daemon.matching("file.ignored", reason="own_output")}
    assert ignored == set(map(str, results))
    assert {event["path"] for event in daemon.matching("job.started")} <= {str(path)}
    with Ledger.open_to_read(state_folder) as ledger:
        for result in results:
            (row,) = ledger.entries(path=str(result))
            assert (row.state, row.reason) == (State.SKIPPED, "own_output")
    again = start_daemon("--once", "--set", "output.suffix=_c", ready=False)
    assert again.wait(JOB_SECONDS) == 0
    assert not again.matching("file.detected")


def test_recorded_result_is_known_until_it_is_something_else(tmp_path, measurement):
    """What the ledger has as a result is passed over and left alone; a measurement in its place is a measurement."""
    source, path = tmp_path / "elsewhere" / "M.rtdc", tmp_path / "acquisition" / "M_mine.rtdc"
    for file in (source, path):
        file.parent.mkdir()
    measurement(source)
    settings = Settings(WatchSettings((path.parent,), settle_seconds=0.05), log=LogSettings(level="error"))

    async def body(works):
        await works.offer(path)
        await works.next_left()
        (entry,) = works.ledger.entries(path=str(path))
        assert (entry.state, entry.reason) == (State.SKIPPED, "own_output")
        await works.offer(path)
        assert not works.tracker.candidates
        measurement(path, seed=2)
        await works.offer(path)
        assert (await works.next_passed()).path == str(path)

    with Ledger.open(path.parent) as ledger:
        made = ledger.add(str(path.with_name("M.rtdc")), None, "job")
        ledger.amend(made.id, output=str(path))
    process_measurement(Job(source, path, PipelineSettings(), "drain", num_workers=1))
    engine.close()
    with_works(path.parent, body, settings, with_jobs=False)
