"""A ledger or a log that is damaged or has no room: nothing is lost, and nothing is done twice."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import sqlite3

import pytest

from tests.soak.results import Observer
from tests.support.daemon import Daemon
from tests.support.faults import JOB_SECONDS, published, result_of, wait_until
from tests.support.once import assert_nothing_left_to_do, run_once
from tests.support.places import mounted, needs_mount

pytestmark = pytest.mark.timeout(300)

SKIPPED = ("job.skipped", "output_exists")


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


def test_damaged_ledger_costs_no_result(start_daemon, write_config, watched_folder, state_folder):
    """Damaged after a crash, in use or at rest: the daemon goes on, whole results are done, and nothing is twice."""
    ledger, config, observer = state_folder / "ledger.sqlite", write_config(), Observer([watched_folder])
    daemon = start_daemon(config=config)
    done = [processed(daemon, watched_folder, 0)]
    observer.look("before")
    daemon.stop(signal.SIGKILL)
    assert_sound(ledger)

    # with a journal beside it, it may be repaired or rebuilt
    garbage_at_the_start(ledger)
    daemon = start_daemon(config=config)
    done.append(processed(daemon, watched_folder, 1))
    observer.look("after damage to what a crash left")
    garbage_at_the_start(ledger)
    garbage(ledger)
    done.append(published(watched_folder, "M2.rtdc", seed=2))
    wait_until(lambda: result_of(done[2]).exists(), JOB_SECONDS)
    done.append(published(watched_folder, "M3.rtdc", seed=3))
    wait_until(lambda: recorded(daemon, done[3]), JOB_SECONDS)
    daemon.stop()
    assert_nothing_left_to_do(config)
    observer.look("after damage in use")

    garbage(ledger)
    daemon = start_daemon(config=config)
    done.append(processed(daemon, watched_folder, 4))
    assert pathlib.Path(daemon.wait_for("ledger.damaged")["set_aside"]).exists()
    for path in done[:-1]:
        daemon.wait_for("job.skipped", path=str(path), reason="output_exists")
    assert daemon.stop() == 0
    assert [event["path"] for event in daemon.matching("job.finished")] == [str(done[-1])]
    assert_sound(ledger)
    assert_nothing_left_to_do(config)
    observer.look("after damage at rest")

    for damage in (garbage_at_the_start, half, nothing):
        damage(ledger)
        heard = run_once(config)
        assert "ledger.damaged" in {event["event"] for event in heard}
        skipped = [event["path"] for event in heard if (event["event"], event.get("reason")) == SKIPPED]
        assert sorted(skipped) == sorted(map(str, done))
        assert_sound(ledger)
        assert_nothing_left_to_do(config)
        observer.look(f"after {damage.__name__}")
    assert (observer.faults, observer.count) == ([], 5)


def processed(daemon: Daemon, folder: pathlib.Path, number: int) -> pathlib.Path:
    """Have a daemon process a new measurement; return its path."""
    path = published(folder, f"M{number}.rtdc", seed=number)
    daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    return path


def assert_sound(path: pathlib.Path) -> None:
    """Make sure that SQLite finds nothing wrong with a ledger."""
    with contextlib.closing(sqlite3.connect(path)) as ledger:
        assert ledger.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def recorded(daemon: Daemon, path: pathlib.Path) -> bool:
    """Return whether a daemon has said that a measurement is done, which it does when that is in the ledger."""
    return bool(daemon.matching("job.finished", path=str(path)) or daemon.matching("job.skipped", path=str(path)))


@needs_mount
def test_full_disks_for_the_ledger_and_the_log(start_daemon, write_config, watched_folder, state_folder, tmp_path):
    """Without room for the log the work goes on, for the ledger it stops until there is some; nothing is twice."""
    with mounted(state_folder, megabytes=4) as ledger, mounted(tmp_path / "logs", megabytes=1) as logs:
        ballast = logs.fill()
        log = logs.folder / "dcnumd.log"
        config = write_config(f"[log]\nfile = {json.dumps(str(log))}\n")
        daemon = start_daemon(config=config)
        processed(daemon, watched_folder, 1)
        ballast.unlink()

        ballast = ledger.fill()
        paths = [published(watched_folder, f"M{seed}.rtdc", seed=seed) for seed in range(2, 12)]
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

        lines = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
        written = {line["path"] for line in lines if line["event"] in {"job.finished", "job.skipped"}}
        assert written >= set(map(str, paths))
        assert_nothing_left_to_do(config)
