"""Results, reports and indexes are never taken for measurements, wherever they lie and whatever they are called."""

from __future__ import annotations

import dataclasses

import pytest
import structlog

from dcnumd.config.values import LogSettings, OutputSettings, RetrySettings, Settings, WatchSettings
from dcnumd.daemon.ledger.records import State
from dcnumd.daemon.ledger.store import Ledger
from dcnumd.errors import MeasurementError, WorkerError
from dcnumd.logic.job import Job, PipelineSettings
from dcnumd.logic.process import engine, process_measurement
from tests.support.faults import JOB_SECONDS, published, result_of
from tests.support.usual import table
from tests.support.works import in_works, with_works

pytestmark = pytest.mark.timeout(300)


SETTINGS = Settings(
    WatchSettings(settle_seconds=0.05), retry=RetrySettings(backoff_seconds=0.05), log=LogSettings(level="error")
)


@pytest.fixture(scope="module")
def process():
    """Return a function that makes the result of a measurement."""
    yield lambda path, result: process_measurement(Job(path, result, PipelineSettings(), "drain", num_workers=1))
    engine.close()


@pytest.fixture
def process_elsewhere(tmp_path_factory, measurement, process):
    """Return a function that makes a result, of a measurement that is on another computer."""

    def make(result):
        source = tmp_path_factory.mktemp("elsewhere") / "M.rtdc"
        measurement(source)
        process(source, result)
        source.unlink()

    return make


def test_results_may_go_to_where_measurements_come_from(usual, tmp_path):
    """With an output folder that is watched, or holds the watched one, each measurement is processed once."""
    into, around = tmp_path / "into", tmp_path / "around"
    places = {into: into, around / "acquisition": around}
    for folder in places:
        folder.mkdir(parents=True)
    tables = (
        table(folder, rescan=0.2, more=f"patterns = ['*']\noutput.folder = '{output}'\n")
        for folder, output in places.items()
    )
    daemon = usual.daemon
    with usual.changed("".join(tables), enabled=True):
        for folder, output in places.items():
            path = published(folder, "M1.rtdc")
            finished = daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
            assert finished["output"] == f"{output}/M1_dcn.rtdc"
            daemon.wait_for("report.written", path=str(path), timeout=JOB_SECONDS)
            second = published(folder, "M2.rtdc", seed=2)
            daemon.wait_for("job.finished", path=str(second), timeout=JOB_SECONDS)
    detected = [event["path"] for event in usual.about(tmp_path, "file.detected")]
    assert sorted(detected) == sorted(f"{folder}/M{number}.rtdc" for folder in places for number in (1, 2))


def test_measurement_that_is_called_like_a_result_is_one(usual):
    """Its name hides no measurement; our own results beside it are passed over without a word or a row."""
    folder, paths = usual.folder(), []

    def process(name, seed):
        paths.append(str(published(folder, name, seed=seed)))
        return usual.daemon.wait_for("job.finished", path=paths[-1], timeout=JOB_SECONDS)

    with usual.changed(rescan_seconds=0.2):
        assert process("M001_dcn.rtdc", 1)["output"] == str(folder / "M001_dcn_dcn.rtdc")
        process("M002.rtdc", 2)
        # by then, the results of the others were found by events and by scans
        process("M003.rtdc", 3)
    # and now by another session
    process("M004.rtdc", 4)
    assert sorted(event["path"] for event in usual.about(folder, "file.detected")) == sorted(paths)
    assert not usual.about(folder, "file.ignored")
    with Ledger.open_to_read(usual.config.with_name("state")) as ledger:
        assert len([entry for entry in ledger.entries() if entry.path.startswith(f"{folder}/")]) == 4


def test_measurement_that_has_the_name_of_another_ones_result_is_not_lost(usual, tmp_path):
    """The other one is left out with a reason; both stay as they are."""
    folder = usual.folder() / "both"
    for number, name in enumerate(("M001.rtdc", "M001_dcn.rtdc")):
        published(tmp_path, name, seed=number)
    with usual.changed(rescan_seconds=0.2):
        tmp_path.rename(folder)
        path = str(folder / "M001.rtdc")
        usual.daemon.wait_for("job.skipped", path=path, reason="output_differs", timeout=JOB_SECONDS)
        path = str(folder / "M001_dcn.rtdc")
        finished = usual.daemon.wait_for("job.finished", path=path, timeout=JOB_SECONDS)
        assert finished["output"] == str(folder / "M001_dcn_dcn.rtdc")


@in_works(SETTINGS, with_jobs=False)
async def test_measurement_in_the_place_of_a_recorded_result_is_processed(works, path, measurement):
    """A file that came there after the result is looked at, whatever the ledger says of its name."""
    result = result_of(path)
    await works.offer(path)
    done = works.finish(await works.next_passed(), result)
    await works.offer(result)
    assert not works.tracker.candidates
    works.ledger.amend(done.id, finished_at="2020-01-01T00:00:00.000Z")
    measurement(result, seed=2)
    await works.offer(result)
    assert (await works.next_passed()).path == str(result)


def test_result_that_was_not_recorded_is_awaited_until_its_measurement_has_ended(tmp_path, path, process):
    """Who made it was killed before it could say so: the result gets no row, neither now nor after a restart."""
    result, rows = result_of(path), []

    async def lost_pipeline(works):
        await works.offer(path)
        entry = await works.next_passed()
        rows.append(entry.id)
        works.ledger.move(entry.id, State.RUNNING)
        process(path, result)
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
        with_works(tmp_path, body, SETTINGS, with_jobs=False)


def test_result_whose_measurement_is_gone_is_looked_at(tmp_path, measurement, process):
    """It is awaited no longer, whether its measurement went away during another attempt or while nobody watched."""
    gone = [tmp_path / f"M00{number}.rtdc" for number in range(2)]
    results = [result_of(path) for path in gone]
    for path in gone:
        measurement(path)

    async def body(works):
        await works.offer(*gone)
        for entry in [await works.next_passed() for _ in gone]:
            works.ledger.move(entry.id, State.RUNNING)
        for path, result in zip(gone, results, strict=True):
            process(path, result)
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

    for work in (body, later):
        with_works(tmp_path, work, SETTINGS, with_jobs=False)


@in_works(SETTINGS, with_jobs=False)
async def test_result_from_elsewhere_that_is_called_so_is_no_measurement(works, tmp_path, process_elsewhere):
    """What dcnum made on another computer and somebody copied here says that it is a result, and has its name."""
    path = tmp_path / "M_dcn.rtdc"
    process_elsewhere(path)
    await works.offer(path)
    await works.next_left()
    (entry,) = works.ledger.entries(path=str(path))
    assert (entry.state, entry.reason) == (State.SKIPPED, "own_output")


@pytest.mark.parametrize("with_ledger", [True, False])
def test_old_results_are_no_measurements_after_a_change_of_the_suffix(tmp_path, path, process, with_ledger):
    """Results with another name are known by what is in them, also without a ledger, and are looked at once."""
    results = [tmp_path / f"M{suffix}.rtdc" for suffix in ("_a", "_b")]
    for result in results:
        process(path, result)

    async def scan(works):
        await works.session.folders[0].scan()
        await works.settling.all_admitted()
        await works.until(lambda: works.settling.idle and works.jobs.idle)

    def scan_with(suffix):
        settings = dataclasses.replace(SETTINGS, output=OutputSettings(suffix=suffix))
        with structlog.testing.capture_logs() as heard:
            with_works(tmp_path, scan, settings, with_jobs=True)
        return heard

    if with_ledger:
        scan_with("_b")
    started = [event["path"] for event in scan_with("_c") if event["event"] == "job.started"]
    assert started == ([] if with_ledger else [str(path)])
    with Ledger.open_to_read(tmp_path) as ledger:
        for result in results:
            (row,) = ledger.entries(path=str(result))
            assert (row.state, row.reason) == (State.SKIPPED, "own_output")
    assert not [event for event in scan_with("_c") if event["event"] == "file.detected"]


@in_works(SETTINGS, with_jobs=False)
async def test_recorded_result_is_known_until_it_is_something_else(works, tmp_path, measurement, process_elsewhere):
    """What the ledger has as a result is passed over and left alone; a measurement in its place is a measurement."""
    path = tmp_path / "M_mine.rtdc"
    made = works.ledger.add(str(tmp_path / "M.rtdc"), None, "job")
    works.ledger.amend(made.id, output=str(path))
    process_elsewhere(path)
    await works.offer(path)
    await works.next_left()
    (entry,) = works.ledger.entries(path=str(path))
    assert (entry.state, entry.reason) == (State.SKIPPED, "own_output")
    await works.offer(path)
    assert not works.tracker.candidates
    measurement(path, seed=2)
    await works.offer(path)
    assert (await works.next_passed()).path == str(path)
