"""Results that are taken away: they stay done, or are made again, and are never mistaken for gone."""

from __future__ import annotations

import dataclasses
import os
import pathlib

import pytest
import structlog

from dcnumd.commands.shown import entry_line
from dcnumd.config.values import LogSettings, ModelSettings, OutputSettings, ResourceSettings, Settings, WatchSettings
from dcnumd.daemon.folders.availability import Availability
from dcnumd.daemon.ledger.records import OUTPUT_GONE, State, settings_key
from dcnumd.daemon.ledger.store import Ledger
from dcnumd.daemon.measurements.lifecycle import begin_anew
from tests.support.faults import JOB_SECONDS, published, result_of
from tests.support.places import mounted, needs_mount
from tests.support.works import with_works

pytestmark = pytest.mark.timeout(300)

LEAVE = Settings(WatchSettings(settle_seconds=0.05, rescan_seconds=0.5), log=LogSettings(level="error"))
REMAKE = dataclasses.replace(LEAVE, output=OutputSettings(deleted="remake"))


def with_done(folder, measurement, body, settings=LEAVE, output=None):
    """Run `body` with a measurement that is done."""
    path, output = folder / "M.rtdc", output or folder / "M_dcn.rtdc"
    measurement(path)

    async def process_first(works):
        await works.offer(path)
        works.finish(await works.next_passed(), output)
        with structlog.testing.capture_logs() as heard:
            await body(works, path, output, heard)

    with_works(folder, process_first, settings, with_jobs=False)


async def scan(works, path):
    """Do what a scan does that finds nothing new."""
    await works.offer(path)
    await works.next_left()


def test_result_that_is_taken_away_is_left_so(tmp_path, measurement):
    """It stays done, which is told once; when it comes back, that is told as well."""

    async def body(works, path, output, heard):
        output.rename(tmp_path / "archive")
        for _ in range(2):
            await scan(works, path)
        (entry,) = works.ledger.entries()
        assert (entry.state, entry.reason, entry.output) == (State.DONE, OUTPUT_GONE, str(output))
        (tmp_path / "archive").rename(output)
        for _ in range(2):
            await scan(works, path)
        (entry,) = works.ledger.entries()
        assert (entry.state, entry.reason) == (State.DONE, "")
        assert [event["event"] for event in heard] == ["output.gone", "output.returned"]
        assert not works.queue
        assert [step.reason for step in works.ledger.transitions(entry.id)][-2:] == [OUTPUT_GONE, "output_returned"]

    with_done(tmp_path, measurement, body)


def test_result_that_is_taken_away_stays_done_after_a_touch_and_a_restart(tmp_path, measurement):
    """Whatever makes the daemon look at the measurement again, it is the same content, and that is done."""

    async def touched(works, path, output, _):
        output.unlink()
        await scan(works, path)
        os.utime(path)
        await scan(works, path)
        assert not works.queue

    async def restarted(works):
        await scan(works, tmp_path / "M.rtdc")
        assert not works.queue
        (entry,) = works.ledger.entries()
        assert (entry.state, entry.reason) == (State.DONE, OUTPUT_GONE)

    async def begun_anew(works):
        begin_anew(works.ledger, works.ledger.entries()[0])
        works.tracker.doubt()
        await works.offer(tmp_path / "M.rtdc")
        await works.next_passed()

    with_done(tmp_path, measurement, touched)
    for body in (restarted, begun_anew):
        with_works(tmp_path, body, LEAVE, with_jobs=False)


def test_result_that_went_while_nobody_looked_is_noticed_at_the_start(tmp_path, measurement):
    """The first scan tells of it, also with ``once``."""

    async def nothing(*_):
        return

    async def restarted(works):
        await scan(works, tmp_path / "M.rtdc")
        assert [entry.reason for entry in works.ledger.entries()] == [OUTPUT_GONE]

    with_done(tmp_path, measurement, nothing)
    (tmp_path / "M_dcn.rtdc").unlink()
    with_works(tmp_path, restarted, LEAVE, with_jobs=False, once=True)


def test_result_that_is_taken_away_is_made_again_at_the_next_scan(tmp_path, measurement):
    """With "remake" nobody has to restart anything, and the other setting before makes no difference."""

    async def running(works, path, output, heard):
        output.unlink()
        await works.offer(path)
        again = await works.next_passed()
        assert (again.state, again.replace_output) == (State.QUEUED, 0)
        assert [event["deleted"] for event in heard if event["event"] == "output.gone"] == ["remake"]
        works.finish(again, output)
        await scan(works, path)
        assert not works.queue
        output.unlink()

    async def left(works):
        await scan(works, tmp_path / "M.rtdc")
        assert not works.queue

    async def restarted(works):
        await works.offer(tmp_path / "M.rtdc")
        await works.next_passed()

    with_done(tmp_path, measurement, running, REMAKE)
    with_works(tmp_path, left, LEAVE, with_jobs=False)
    with_works(tmp_path, restarted, REMAKE, with_jobs=False)


@pytest.mark.parametrize("deleted", ["leave", "remake"])
def test_folder_that_is_away_takes_no_result_with_it(tmp_path, measurement, deleted):
    """While the folder of results is not there, nothing is known of them; nor is what was noted before forgotten."""
    folder = tmp_path / "results"
    folder.mkdir()
    settings = dataclasses.replace(LEAVE, output=OutputSettings(folder=folder, deleted=deleted))

    async def body(works, path, output, heard):
        folder.rename(tmp_path / "unmounted")
        await scan(works, path)
        (entry,) = works.ledger.entries()
        assert (entry.state, entry.reason, heard) == (State.DONE, "", [])
        assert not works.queue
        if deleted == "leave":
            (tmp_path / "unmounted").rename(folder)
            output.unlink()
            await scan(works, path)
            folder.rename(tmp_path / "unmounted")
            await scan(works, path)
            assert [entry.reason for entry in works.ledger.entries()] == [OUTPUT_GONE]

    with_done(tmp_path, measurement, body, settings, folder / "M_dcn.rtdc")


@needs_mount
@pytest.mark.parametrize("deleted", ["leave", "remake"])
def test_file_system_inside_of_the_folder_takes_no_result_with_it(tmp_path, measurement, deleted):
    """A share mounted below the folder of results is remembered across restarts, and only what is on it is unknown."""
    folder, path = tmp_path / "results", tmp_path / "M.rtdc"
    output = folder / "share" / "deep" / "M_dcn.rtdc"
    output.parent.parent.mkdir(parents=True)
    room = ResourceSettings(min_free_gb=0.001)
    settings = dataclasses.replace(LEAVE, output=OutputSettings(folder=folder, deleted=deleted), resources=room)

    async def mounted_first(works, path, output, heard):
        await scan(works, path)
        assert heard == []

    async def restarted(works):
        with structlog.testing.capture_logs() as heard:
            await works.offer(path)
            await scan(works, path)
            (entry,) = works.ledger.entries()
            assert (entry.state, entry.reason) == (State.DONE, "")
            assert not [event for event in heard if event["event"] == "output.gone"]
            places = Availability(settings, works.ledger)
            assert (await places.obstacle(folder, output, 0)).reason == "output_not_mounted"
            assert await places.obstacle(folder, folder / "M_dcn.rtdc", 0) is None
            assert places.root_of(folder, output) == folder / "share"
            share.mount()
            assert await places.obstacle(folder, output, 0) is None
            output.unlink()
            await scan(works, path)
        assert [event["deleted"] for event in heard if event["event"] == "output.gone"] == [deleted]

    with mounted(folder / "share") as share:
        output.parent.mkdir()
        with_done(tmp_path, measurement, mounted_first, settings, output)
        share.unmount()
        with_works(tmp_path, restarted, settings, with_jobs=False)


def test_policy_is_no_reason_to_look_into_files_again():
    """What becomes of results that are gone says nothing about a measurement."""
    assert settings_key(LEAVE) == settings_key(REMAKE)


def test_folders_of_models_are_a_reason_to_look_into_files_again():
    """A model that could not be found may be found now, and another one may be made for a measurement."""
    changed = dataclasses.replace(LEAVE, models=ModelSettings((pathlib.Path("/srv/models"),)))
    assert settings_key(changed) != settings_key(LEAVE)


def test_archived_results_are_told_by_the_commands(usual):
    """A real daemon leaves what was moved to an archive, and ``history`` says so; with "remake" it makes it again."""
    path = published(usual.folder(), "M.rtdc")
    with usual.changed(rescan_seconds=0.3):
        usual.daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
        result_of(path).unlink()
        usual.daemon.wait_for("output.gone", path=str(path), deleted="leave", timeout=JOB_SECONDS)
    with Ledger.open_to_read(usual.config.with_name("state")) as ledger:
        assert entry_line(ledger.latest(str(path))).endswith(f"{result_of(path)} (gone)")
    with usual.changed('[output]\ndeleted = "remake"\n'):
        usual.daemon.wait_for("job.finished", path=str(path), count=2, timeout=JOB_SECONDS)
    assert result_of(path).exists()
