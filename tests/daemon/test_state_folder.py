"""A daemon whose own files are taken away ends and says so; it does not write for ever what nobody can read."""

from __future__ import annotations

import asyncio
import os
import shutil

import pytest

from dcnumd.config.values import LogSettings, Settings, WatchSettings
from dcnumd.daemon import state_folder
from dcnumd.daemon.ledger.records import State
from dcnumd.daemon.state_folder import StateFolder
from tests.support.faults import JOB_SECONDS, published, result_of
from tests.support.works import with_works

pytestmark = pytest.mark.timeout(300)


def replace(folder):
    (folder / "new").write_bytes(b"another")
    (folder / "new").rename(folder / "ledger.sqlite")


DEPARTURES = {
    "deleted": shutil.rmtree,
    "moved": lambda folder: folder.rename(folder.with_name("moved")),
    "ledger deleted": lambda folder: (folder / "ledger.sqlite").unlink(),
    "lock deleted": lambda folder: (folder / "ledger.lock").unlink(),
    "ledger replaced": replace,
}


@pytest.fixture
def state(tmp_path):
    """Return a folder with a lock and a ledger, and what watches it."""
    folder = tmp_path / "above" / "state"
    folder.mkdir(parents=True)
    made = StateFolder(folder)
    for name in ("ledger.lock", "ledger.sqlite"):
        (folder / name).touch()
        made.remember(folder / name)
    return folder, made


@pytest.mark.parametrize("depart", DEPARTURES.values(), ids=DEPARTURES)
def test_files_that_go_are_noticed_soon(state, depart, monkeypatch):
    """However they go; what else happens in the folder does not matter."""
    monkeypatch.setattr(state_folder, "CHECK_SECONDS", 0.05)
    folder, watched = state

    async def run():
        waiting = asyncio.create_task(watched.wait_until_gone())
        (folder / "ledger.sqlite-wal").touch()
        (folder / "ledger.sqlite-wal").unlink()
        await asyncio.sleep(0)
        assert watched.gone() is None
        depart(folder)
        return await asyncio.wait_for(waiting, 30)

    assert asyncio.run(run()).parent == folder


def test_folder_that_went_with_the_one_above_is_noticed(state, monkeypatch):
    """The names of the files count, not their folder."""
    folder, watched = state
    monkeypatch.setattr(state_folder, "CHECK_SECONDS", 0.05)

    async def run():
        waiting = asyncio.create_task(watched.wait_until_gone())
        await asyncio.sleep(0)
        folder.parent.rename(folder.parent.with_name("renamed"))
        return await asyncio.wait_for(waiting, 30)

    assert asyncio.run(run()) == folder / "ledger.lock"


def test_disk_that_does_not_answer_keeps_its_files(state):
    """A ledger that was set aside and begun anew is remembered; what cannot be looked up is not gone."""
    folder, watched = state
    replace(folder)
    watched.remember(folder / "ledger.sqlite")
    assert watched.gone() is None
    other = StateFolder(folder)
    other.remember(folder)
    other._files[folder / ("x" * 300)] = (1, 1)
    assert other.gone() is None


def test_daemon_ends_when_its_state_folder_is_deleted(start_daemon, watched_folder, state_folder):
    """It says why and ends with 1; who begins anew finds by the result that all is done."""
    daemon = start_daemon()
    path = published(watched_folder, "M.rtdc")
    daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    shutil.rmtree(state_folder)
    assert daemon.wait(JOB_SECONDS) == 1
    stopped = daemon.wait_for("daemon.stopped", level="critical")
    assert "was deleted, moved or replaced while dcnumd was running" in stopped["error"]
    assert stopped["error"].startswith(os.fspath(state_folder))
    assert not state_folder.exists()
    made = result_of(path).stat().st_mtime_ns

    async def begin_anew(works):
        await works.offer(path)
        await works.until(lambda: works.states() == [State.DONE] and works.jobs.idle)

    settings = Settings(WatchSettings(settle_seconds=0.1), log=LogSettings(level="error"))
    with_works(watched_folder, begin_anew, settings, with_jobs=True)
    assert result_of(path).stat().st_mtime_ns == made
