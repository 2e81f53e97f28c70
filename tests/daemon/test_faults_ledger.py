"""A ledger or a log that is damaged or has no room: nothing is lost, and nothing is done twice."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import sqlite3
from collections.abc import Callable

import pytest

from tests.soak.results import Observer
from tests.support.daemon import Daemon
from tests.support.faults import JOB_SECONDS, published, result_of, wait_until
from tests.support.places import mounted, needs_mount

pytestmark = pytest.mark.timeout(300)


def garbage(ledger: pathlib.Path) -> None:
    size = ledger.stat().st_size
    with ledger.open("r+b") as file:
        file.seek(size // 4)
        file.write(os.urandom(size // 2))


def garbage_at_the_start(ledger: pathlib.Path) -> None:
    with ledger.open("r+b") as file:
        file.write(os.urandom(4096))


def half(ledger: pathlib.Path) -> None:
    os.truncate(ledger, ledger.stat().st_size // 2)


def nothing(ledger: pathlib.Path) -> None:
    os.truncate(ledger, 0)


def test_damaged_ledger_is_set_aside_and_rebuilt(start_daemon, watched_folder, state_folder):
    """What is on disk counts: whole results are done, and only what has none is processed."""
    daemon = start_daemon()
    done = [published(watched_folder, f"M{seed}.rtdc", seed=seed) for seed in range(2)]
    for path in done:
        daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    observer = Observer([watched_folder])
    observer.look("before")
    assert daemon.stop() == 0
    ledger = state_folder / "ledger.sqlite"
    for number, damage in enumerate((garbage, garbage_at_the_start, half, nothing), start=2):
        damage(ledger)
        new = published(watched_folder, f"M{number}.rtdc", seed=number)
        daemon = start_daemon()
        daemon.wait_for("job.finished", path=str(new), timeout=JOB_SECONDS)
        damaged = daemon.wait_for("ledger.damaged")
        assert pathlib.Path(damaged["set_aside"]).exists()
        for path in done:
            daemon.wait_for("job.skipped", path=str(path), reason="output_exists")
        assert daemon.stop() == 0
        observer.look(f"after {damage.__name__}")
        assert observer.faults == []
        assert not [event for event in daemon.matching("job.finished") if event["path"] != str(new)]
        assert_sound(ledger)
        done.append(new)
    assert_nothing_left_to_do(start_daemon)


def test_ledger_that_is_damaged_while_the_daemon_is_down_after_a_crash(start_daemon, watched_folder, state_folder):
    """With a journal beside it the ledger may be repaired or rebuilt; either way nothing is done twice."""
    daemon = start_daemon()
    done = published(watched_folder, "done.rtdc", seed=1)
    daemon.wait_for("job.finished", path=str(done), timeout=JOB_SECONDS)
    observer = Observer([watched_folder])
    observer.look("before")
    daemon.stop(signal.SIGKILL)
    garbage_at_the_start(state_folder / "ledger.sqlite")
    new = published(watched_folder, "new.rtdc", seed=2)
    daemon = start_daemon()
    daemon.wait_for("job.finished", path=str(new), timeout=JOB_SECONDS)
    assert daemon.stop() == 0
    observer.look("after")
    assert observer.faults == []
    assert_nothing_left_to_do(start_daemon)


def assert_nothing_left_to_do(start_daemon: Callable[..., Daemon]) -> None:
    """Have another daemon look at everything; it finds a sound ledger and nothing new."""
    again = start_daemon("--once", ready=False)
    assert again.wait() == 0
    assert not again.matching("job.started")
    assert not again.matching("ledger.damaged")


def assert_sound(path: pathlib.Path) -> None:
    """Make sure that SQLite finds nothing wrong with a ledger."""
    with contextlib.closing(sqlite3.connect(path)) as ledger:
        assert ledger.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def recorded(daemon: Daemon, path: pathlib.Path) -> bool:
    """Return whether a daemon has said that a measurement is done, which it does when that is in the ledger."""
    return bool(daemon.matching("job.finished", path=str(path)) or daemon.matching("job.skipped", path=str(path)))


def test_ledger_that_is_damaged_while_in_use(start_daemon, watched_folder, state_folder):
    """The daemon survives it, and processes what comes; nothing is done twice."""
    daemon = start_daemon()
    observer = Observer([watched_folder])
    first = published(watched_folder, "first.rtdc", seed=1)
    daemon.wait_for("job.finished", path=str(first), timeout=JOB_SECONDS)
    observer.look("before")
    garbage_at_the_start(state_folder / "ledger.sqlite")
    garbage(state_folder / "ledger.sqlite")
    second = published(watched_folder, "second.rtdc", seed=2)
    wait_until(lambda: result_of(second).exists(), JOB_SECONDS)
    third = published(watched_folder, "third.rtdc", seed=3)
    wait_until(lambda: recorded(daemon, third), JOB_SECONDS)
    daemon.stop()
    assert_nothing_left_to_do(start_daemon)
    observer.look("after")
    assert observer.faults == []
    assert observer.count == 3


@needs_mount
def test_full_disk_for_the_ledger(start_daemon, write_config, watched_folder, state_folder):
    """Without room for the ledger work stops, and goes on when there is some; nothing is done twice."""
    with mounted(state_folder, megabytes=4) as place:
        daemon = start_daemon()
        first = published(watched_folder, "first.rtdc", seed=1)
        daemon.wait_for("job.finished", path=str(first), timeout=JOB_SECONDS)
        ballast = place.fill()
        paths = [published(watched_folder, f"M{seed:02d}.rtdc", seed=seed) for seed in range(2, 12)]
        daemon.wait_for("ledger.unwritable", timeout=JOB_SECONDS)
        ballast.unlink()
        daemon.wait_for("ledger.recovered")
        observer = Observer([watched_folder])
        observer.look("when the ledger is back")
        for path in paths:
            wait_until(lambda path=path: recorded(daemon, path), JOB_SECONDS)
        assert daemon.stop() == 0
        observer.look("at the end")
        assert observer.faults == []
        assert not daemon.matching("job.failed")
        assert_nothing_left_to_do(start_daemon)


@needs_mount
def test_full_disk_for_the_log(start_daemon, watched_folder, tmp_path):
    """A log file that cannot be written stops nothing, and is written again when there is room."""
    with mounted(tmp_path / "logs", megabytes=1) as place:
        ballast = place.fill()
        log = place.folder / "dcnumd.log"
        daemon = start_daemon("--set", f"log.file={log}")
        first = published(watched_folder, "first.rtdc", seed=1)
        daemon.wait_for("job.finished", path=str(first), timeout=JOB_SECONDS)
        ballast.unlink()
        second = published(watched_folder, "second.rtdc", seed=2)
        daemon.wait_for("job.finished", path=str(second), timeout=JOB_SECONDS)
        assert daemon.stop() == 0
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
        assert [line for line in lines if line["event"] == "job.finished" and line["path"] == str(second)]


def test_ledger_is_sound_after_all_of_it(start_daemon, watched_folder, state_folder):
    """The ledger that a killed daemon leaves is whole."""
    daemon = start_daemon()
    path = published(watched_folder, "M001.rtdc")
    daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    daemon.stop(signal.SIGKILL)
    assert_sound(state_folder / "ledger.sqlite")
