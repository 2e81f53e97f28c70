"""The ledger, read back with bare sqlite3 where that is possible."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import os
import pathlib
import sqlite3
import subprocess
import sys

import pytest

from dcnumd.daemon.ledger.queries import columns_of, sql_default
from dcnumd.daemon.ledger.records import Content, Entry, State, Transition
from dcnumd.daemon.ledger.schema import MIGRATIONS
from dcnumd.daemon.ledger.store import Ledger, ledger_path
from dcnumd.daemon.ownership import lock_owner, owner_lock
from dcnumd.errors import DcnumdError
from dcnumd.logic.stamp import Stamp

STAMP = Stamp(100, 1, 2, 3)
CONTENT = Content(100, "0" * 32, "id")


@pytest.fixture
def ledger(tmp_path):
    with Ledger.open(tmp_path) as opened:
        yield opened


def queued(ledger, path="/in/a.rtdc", content=CONTENT, pphash="hash"):
    entry = ledger.add(path, STAMP, "job")
    ledger.move(entry.id, State.SETTLING)
    entry = ledger.identify(ledger.get(entry.id), content, "ppid", pphash)
    return ledger.move(entry.id, State.QUEUED)


def test_ledger_is_durable(ledger, tmp_path):
    """Write-ahead log with full synchronisation, and a version for migrations."""
    raw = sqlite3.connect(ledger_path(tmp_path))
    assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert raw.execute("PRAGMA user_version").fetchone()[0] >= 1
    raw.close()
    assert ledger._connection.execute("PRAGMA synchronous").fetchone()[0] == 2


def test_failures_and_red_lights_are_news_until_they_are_acknowledged(ledger, tmp_path):
    """A failure that was repeated with success is none, and nothing is before the ledger was made."""

    def ended(path, state, finished_at="2026-11-21T10:00:00.000Z", **fields):
        entry = queued(ledger, path, CONTENT._replace(identifier=f"{path} {finished_at}"))
        ledger.move(entry.id, State.RUNNING)
        ledger.move(entry.id, state)
        ledger.amend(entry.id, finished_at=finished_at, **fields)

    raw = sqlite3.connect(ledger_path(tmp_path))
    (made,) = raw.execute("SELECT time FROM acknowledged").fetchone()
    assert abs(dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(made)) < dt.timedelta(minutes=5)
    with raw:
        raw.execute("UPDATE acknowledged SET time = '2026-11-21T09:00:00.000Z'")
    raw.close()
    ended("/in/before.rtdc", State.FAILED, "2026-11-21T08:00:00.000Z")
    ended("/in/good.rtdc", State.DONE, light="yellow")
    assert ledger.unacknowledged() == (0, 0, None)
    ended("/in/red.rtdc", State.DONE, "2026-11-21T11:00:00.000Z", light="red")
    assert ledger.unacknowledged()[2].path == "/in/red.rtdc"
    ended("/in/first.rtdc", State.FAILED)
    ended("/in/second.rtdc", State.FAILED, "2026-11-21T10:30:00.000Z")
    failed, red, latest = ledger.unacknowledged()
    assert (failed, red, latest.path) == (2, 1, "/in/second.rtdc")
    ended("/in/second.rtdc", State.DONE, "2026-11-21T12:00:00.000Z")
    failed, red, latest = ledger.unacknowledged()
    assert (failed, red, latest.path) == (1, 1, "/in/first.rtdc")
    assert ledger.acknowledge() == 2
    assert ledger.unacknowledged() == (0, 0, None)


@pytest.mark.parametrize(
    ("table", "record", "besides"),
    [("measurements", Entry, set()), ("transitions", Transition, {"id", "measurement"})],
)
def test_tables_have_the_columns_of_the_records(ledger, tmp_path, table, record, besides):
    """A field is added to the record and by a step of the migration; its default is the same in both."""
    raw = sqlite3.connect(ledger_path(tmp_path))
    columns = {row[1]: row[4] for row in raw.execute(f"PRAGMA table_info({table})")}
    raw.close()
    assert set(columns) == {*columns_of(record), *besides}
    later = [field.name for field in dataclasses.fields(record) if field.default is not dataclasses.MISSING]
    assert {name: columns[name] or "NULL" for name in later} == {name: sql_default(name) for name in later}


def test_whole_way_is_recorded(ledger, tmp_path):
    """Each state a measurement was in is kept with its time and reason."""
    entry = queued(ledger)
    ledger.move(entry.id, State.RUNNING)
    done = ledger.finish(entry.id, "/in/a_dcn.rtdc", frames=10, events=4, seconds=0.5)
    assert (done.state, done.output, done.events) == (State.DONE, "/in/a_dcn.rtdc", 4)
    assert done.started_at
    assert done.finished_at.endswith("Z")
    raw = sqlite3.connect(ledger_path(tmp_path))
    steps = [row[0] for row in raw.execute("SELECT state FROM transitions ORDER BY id")]
    raw.close()
    assert steps == ["seen", "settling", "queued", "running", "done"]
    assert [step.state for step in ledger.transitions(entry.id)] == steps
    assert ledger.counts()[State.DONE] == 1


def test_impossible_step_is_refused(ledger):
    """A measurement cannot be done before it ran."""
    entry = ledger.add("/in/a.rtdc", STAMP, "job")
    with pytest.raises(ValueError, match="cannot go from seen to done"):
        ledger.move(entry.id, State.DONE)
    assert ledger.get(entry.id).state is State.SEEN


def test_running_entries_are_put_back_at_the_start(ledger):
    """What a killed daemon left running is queued again, with that reason."""
    entry = queued(ledger)
    ledger.move(entry.id, State.RUNNING)
    assert [recovered.id for recovered in ledger.recover()] == [entry.id]
    assert (ledger.get(entry.id).state, ledger.get(entry.id).reason) == (State.QUEUED, "interrupted")


def test_same_content_and_pipeline_share_one_entry(ledger):
    """A file that is found again joins its entry, with the history of both."""
    first = queued(ledger)
    ledger.move(first.id, State.RUNNING)
    ledger.finish(first.id, "/in/a_dcn.rtdc")
    again = ledger.add("/in/a.rtdc", Stamp(100, 9, 9, 9), "other")
    assert again.id != first.id
    joined = ledger.identify(again, CONTENT, "ppid", "hash")
    assert (joined.id, joined.state, joined.stamp) == (first.id, State.DONE, Stamp(100, 9, 9, 9))
    with pytest.raises(KeyError):
        ledger.get(again.id)


@pytest.mark.parametrize(
    ("path", "content", "pphash"),
    [
        ("/in/b.rtdc", CONTENT, "hash"),
        ("/in/a.rtdc", CONTENT._replace(md5_5m="1" * 32), "hash"),
        ("/in/a.rtdc", CONTENT._replace(size=101), "hash"),
        ("/in/a.rtdc", CONTENT._replace(identifier="other"), "hash"),
        ("/in/a.rtdc", CONTENT, "other"),
    ],
)
def test_other_path_content_or_pipeline_is_another_entry(ledger, path, content, pphash):
    """A measurement is a path and a content, under one pipeline."""
    first = queued(ledger)
    second = queued(ledger, path, content, pphash)
    assert first.id != second.id
    assert ledger.get(first.id).pphash == "hash"


def test_newer_result_under_the_same_name_supersedes(ledger):
    """Only the entry whose result lies at a path counts as its producer."""
    first = queued(ledger)
    ledger.move(first.id, State.RUNNING)
    ledger.finish(first.id, "/in/a_dcn.rtdc")
    second = queued(ledger, content=CONTENT._replace(md5_5m="1" * 32))
    ledger.move(second.id, State.RUNNING)
    ledger.finish(second.id, "/in/a_dcn.rtdc")
    assert ledger.producer("/in/a_dcn.rtdc").id == second.id
    assert ledger.get(first.id).output is None


def test_latest_entry_does_not_depend_on_the_clock(ledger, monkeypatch):
    """The order of changes counts, also when the clock was set back."""
    first = queued(ledger)
    monkeypatch.setattr("dcnumd.daemon.ledger.store.utc_now", lambda: "2001-01-01T00:00:00.000Z")
    second = queued(ledger, content=CONTENT._replace(md5_5m="1" * 32))
    assert ledger.latest("/in/a.rtdc").id == second.id
    ledger.amend(first.id, frames=3)
    assert ledger.latest("/in/a.rtdc").id == first.id


def test_failed_transaction_changes_nothing(ledger):
    """All of a transaction or none of it; one inside another belongs to the outer one."""
    entry = ledger.add("/in/a.rtdc", STAMP, "job")
    with contextlib.suppress(ZeroDivisionError), ledger.transaction():
        ledger.move(entry.id, State.SETTLING)
        ledger.move(entry.id, State.QUEUED, frames=1 // 0)
    assert ledger.get(entry.id).state is State.SEEN
    assert len(ledger.transitions(entry.id)) == 1


def test_strange_names_survive(ledger):
    """Paths are bytes: not all of them are UTF-8."""
    for name in (b"caf\xe9", "Größe".encode(), b"a\nb;'\"", b"x" * 250):
        path = os.fsdecode(b"/in/" + name + b".rtdc")
        entry = ledger.add(path, STAMP, "job")
        assert ledger.get(entry.id).path == path
        assert ledger.latest(path).id == entry.id


def test_reading_does_not_disturb(ledger, tmp_path):
    """A reader sees what was committed, while the daemon has the ledger open and after it has closed it."""
    entry = queued(ledger)
    with Ledger.open_to_read(tmp_path) as reader:
        assert reader.get(entry.id).state is State.QUEUED
        with pytest.raises(sqlite3.OperationalError):
            reader.move(entry.id, State.RUNNING)
    ledger.close()
    tmp_path.chmod(0o500)
    try:
        with Ledger.open_to_read(tmp_path) as reader:
            assert reader.get(entry.id).state is State.QUEUED
    finally:
        tmp_path.chmod(0o700)
    assert Ledger.open_to_read(tmp_path / "nowhere") is None


@pytest.mark.parametrize("opened", [Ledger.open, Ledger.open_to_read])
def test_what_is_no_ledger_is_not_kept_open(tmp_path, opened):
    """Who looks again and again, such as `status --watch`, does not run out of open files."""
    path = ledger_path(tmp_path)
    path.write_bytes(b"no ledger " * 1000)
    with pytest.raises((sqlite3.DatabaseError, DcnumdError), match="not a database"):
        opened(tmp_path)
    descriptors = pathlib.Path("/proc/self/fd").iterdir()
    assert path not in {pathlib.Path(os.path.realpath(descriptor)) for descriptor in descriptors}


def test_change_by_another_process_is_noticed(ledger, tmp_path):
    """The data version moves when somebody else writes, not when we do."""
    version = ledger.data_version()
    entry = queued(ledger)
    assert ledger.data_version() == version
    with Ledger.open(tmp_path) as other:
        other.forget(entry.id)
    assert ledger.data_version() != version


def test_ledger_of_a_newer_version_is_refused(tmp_path):
    """An old program does not touch what it does not understand."""
    Ledger.open(tmp_path).close()
    raw = sqlite3.connect(ledger_path(tmp_path))
    raw.execute("PRAGMA user_version = 99")
    raw.close()
    with pytest.raises(DcnumdError, match="version 99, this dcnumd knows up to"):
        Ledger.open(tmp_path)


def test_lock_has_one_owner_who_can_be_named(tmp_path):
    """While a process holds the lock, others are told its process id; when it dies the lock is free."""
    script = (
        "import sys, pathlib\n"
        "from dcnumd.daemon.ownership import owner_lock\n"
        "with owner_lock(pathlib.Path(sys.argv[1])):\n"
        "    print('locked', flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    assert lock_owner(tmp_path) is None
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "locked\n"
        assert lock_owner(tmp_path) == holder.pid
        with (
            pytest.raises(DcnumdError, match=f"in use by another dcnumd \\(process {holder.pid}\\)"),
            owner_lock(tmp_path),
        ):
            pass
        holder.kill()
    assert lock_owner(tmp_path) is None
    with owner_lock(tmp_path):
        pass


def test_state_folder_that_cannot_be_made_is_explained(tmp_path):
    """An impossible state folder is one line, not a traceback."""
    (tmp_path / "file").touch()
    with (
        pytest.raises(DcnumdError, match="the folder cannot be used"),
        owner_lock(pathlib.Path(tmp_path / "file" / "x")),
    ):
        pass


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda content: content[: len(content) // 3],
        lambda _: b"not a ledger " * 1000,
        lambda content: content[:4096] + os.urandom(8192) + content[12288:],
    ],
    ids=["empty", "truncated", "foreign", "garbage in the middle"],
)
def test_damaged_ledger_is_set_aside(tmp_path, damage):
    """A damaged ledger is noticed when it is opened, kept under another name, and replaced by a new one."""
    with Ledger.open(tmp_path) as ledger:
        for number in range(200):
            ledger.add(f"/in/M{number}.rtdc", STAMP, f"{number}")
    path = ledger_path(tmp_path)
    broken = damage(path.read_bytes())
    path.write_bytes(broken)
    with pytest.raises(DcnumdError, match="the ledger is damaged") as caught:
        Ledger.open(tmp_path)
    assert caught.value.reason == "ledger_damaged"
    ledger, aside = Ledger.repaired(tmp_path)
    with ledger:
        assert ledger.rebuilt
        assert ledger.entries() == []
    assert aside.parent == tmp_path
    assert aside.read_bytes() == broken
    with Ledger.open(tmp_path) as ledger:
        assert not ledger.rebuilt


def test_ledger_of_the_first_version_is_brought_up_to_date(tmp_path):
    """What an earlier dcnumd wrote stays, and the tables that came since are there."""
    with contextlib.closing(sqlite3.connect(ledger_path(tmp_path))) as connection:
        connection.executescript(f"BEGIN; {MIGRATIONS[0]} PRAGMA user_version = 1; COMMIT;")
        connection.execute(
            "INSERT INTO measurements (path, state, job_id, seen_at, changed_at)"
            " VALUES ('/in/M.rtdc', 'seen', 'j', '', '')"
        )
        connection.commit()
    with Ledger.open(tmp_path) as ledger:
        assert [entry.path for entry in ledger.entries()] == ["/in/M.rtdc"]
        ledger.remember_location("/in", "there")
        assert (ledger.location("/in"), ledger.location("/elsewhere")) == ("there", None)


def test_untidy_folders_are_remembered_until_they_are_tidy(tmp_path):
    """A folder in which something may be left over is known after a crash, once."""
    with Ledger.open(tmp_path) as ledger:
        ledger.note_untidy("/out")
        ledger.note_untidy("/out")
        ledger.note_untidy("/caf\udce9")
    with Ledger.open(tmp_path) as ledger:
        assert sorted(ledger.untidy()) == ["/caf\udce9", "/out"]
        ledger.note_tidy("/out")
        assert ledger.untidy() == ["/caf\udce9"]
