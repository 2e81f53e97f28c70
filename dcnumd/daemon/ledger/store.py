"""The ledger: an SQLite file that records the state of every measurement and survives crashes.

One daemon writes it. Commands may read it at any time; `retry` and `forget` change single rows.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import pathlib
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

from dcnumd.daemon.ledger.queries import LedgerQueries, text_of
from dcnumd.daemon.ledger.records import FINAL, TRANSITIONS, Content, Entry, State, utc_now
from dcnumd.daemon.ledger.schema import migrate
from dcnumd.errors import DcnumdError
from dcnumd.logic.stamp import Stamp

LEDGER_NAME = "ledger.sqlite"


def _damaged(path: pathlib.Path, what: str) -> DcnumdError:
    cure = "the daemon sets it aside when it starts, and learns from the results what is done"
    return DcnumdError(f"{path}: the ledger is damaged: {what}; {cure}", "ledger_damaged")


def is_damage(error: BaseException) -> bool:
    """Return whether an error means that the file is damaged, unlike a full disk or a locked file."""
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(
        error, sqlite3.OperationalError | sqlite3.IntegrityError | sqlite3.ProgrammingError
    )


def ledger_path(folder: pathlib.Path) -> pathlib.Path:
    """Return the path of the ledger in a state folder."""
    return folder / LEDGER_NAME


def _set_aside(path: pathlib.Path) -> pathlib.Path:
    """Rename a damaged ledger with all its parts, and return its new path."""
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S")
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    try:
        for suffix in ("-wal", "-shm", ""):
            part = path.with_name(path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
    except OSError as error:
        raise DcnumdError(f"{path}: the damaged ledger cannot be set aside: {error.strerror}", "ledger") from error
    return aside


class Ledger(LedgerQueries):
    """Read and write access to the rows.

    Every change is on disk when the method, or the outermost `transaction`, returns.
    """

    def __init__(self, connection: sqlite3.Connection, *, rebuilt: bool = False) -> None:
        super().__init__(connection)
        self._depth = 0
        self.rebuilt = rebuilt
        """Whether this ledger replaces a damaged one: then only existing results tell which measurements are done."""

    @classmethod
    def open(cls, folder: pathlib.Path) -> Ledger:
        """Open the ledger in `folder` for reading and writing; create or migrate it if necessary.

        Raises
        ------
        DcnumdError
            If the ledger cannot be opened, or was written by a newer dcnumd. The reason is ``ledger_damaged`` if the
            file is damaged; see `repaired`.
        """
        path = ledger_path(folder)
        connection: sqlite3.Connection | None = None
        try:
            if path.exists() and not path.stat().st_size:
                # SQLite would treat an empty file as a new database, and all records would be lost silently.
                raise _damaged(path, "it is empty")
            connection = sqlite3.connect(path, isolation_level=None, timeout=10)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            if (found := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise _damaged(path, found)
            migrate(connection, path)
        except BaseException as error:
            if connection is not None:
                connection.close()
            if is_damage(error):
                raise _damaged(path, str(error)) from error
            if isinstance(error, sqlite3.Error | OSError):
                raise DcnumdError(f"{path}: the ledger cannot be opened: {error}", "ledger") from error
            raise
        return cls(connection)

    @classmethod
    def repaired(cls, folder: pathlib.Path) -> tuple[Ledger, pathlib.Path]:
        """Rename a damaged ledger and create a new one; return the new ledger and the path of the old one.

        Only the daemon that owns the ledger may call this.
        """
        aside = _set_aside(ledger_path(folder))
        ledger = cls.open(folder)
        ledger.rebuilt = True
        return ledger, aside

    @classmethod
    def open_to_read(cls, folder: pathlib.Path) -> Ledger | None:
        """Open the ledger in `folder` for reading; return None if there is no ledger."""
        path = ledger_path(folder)
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise DcnumdError(f"{path}: the ledger cannot be read: {error.strerror}", "ledger") from error
        # Without a running daemon, and without permission to create the index of the WAL, only "immutable" works.
        for mode in ("mode=ro", "mode=ro&immutable=1"):
            connection = sqlite3.connect(f"{path.as_uri()}?{mode}", uri=True, isolation_level=None, timeout=10)
            try:
                connection.execute("SELECT count(*) FROM measurements")
                return cls(connection)
            except sqlite3.Error as error:
                connection.close()
                if not isinstance(error, sqlite3.OperationalError):
                    raise
                failure = error
        raise DcnumdError(f"{path}: the ledger cannot be read: {failure}", "ledger")

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit all changes of the block together, or none; a nested transaction joins the outer one."""
        if self._depth == 0:
            self._connection.execute("BEGIN IMMEDIATE")
        self._depth += 1
        try:
            yield
            if self._depth == 1:
                self._connection.execute("COMMIT")
        except BaseException:
            # SQLite may have rolled back by itself; an error of ROLLBACK must not hide the original one.
            if self._depth == 1 and self._connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
            raise
        finally:
            self._depth -= 1

    def add(self, path: str, stamp: Stamp | None, job_id: str) -> Entry:
        """Return the row of a file whose content is not known yet; add it if there is none."""
        known = self._one("path = CAST(? AS TEXT) AND md5_5m IS NULL", text_of(path))
        with self.transaction():
            now = utc_now()
            if known is None:
                cursor = self._connection.execute(
                    "INSERT INTO measurements (path, state, job_id, seen_at, changed_at)"
                    " VALUES (CAST(? AS TEXT), 'seen', ?, ?, ?)",
                    (text_of(path), job_id, now, now),
                )
                entry_id = int(cursor.lastrowid or 0)
                self._record(entry_id, State.SEEN, "", "")
            else:
                entry_id = known.id
            self._update(entry_id, **_stamp_columns(stamp))
        return self.get(entry_id)

    def move(self, entry_id: int, state: State, reason: str = "", error: str = "", **changes: Any) -> Entry:
        """Change the state of a row and other columns with it, record the transition, and return the row.

        Raises
        ------
        ValueError
            If `TRANSITIONS` does not allow the change of state.
        KeyError
            If the row was forgotten meanwhile.
        """
        with self.transaction():
            entry = self.get(entry_id)
            if state is not entry.state:
                if state not in TRANSITIONS[entry.state]:
                    raise ValueError(f"a measurement cannot go from {entry.state} to {state} ({entry.path})")
                self._record(entry_id, state, reason, error)
            times: dict[str, Any] = {"changed_at": utc_now()}
            if state is State.RUNNING:
                times["started_at"] = times["changed_at"]
            if state in FINAL:
                times["finished_at"] = times["changed_at"]
            self._update(entry_id, state=state, reason=reason, error=error, **times, **changes)
            return self.get(entry_id)

    def amend(self, entry_id: int, *, stamp: Stamp | None = None, **changes: Any) -> None:
        """Change columns of a row without changing its state."""
        with self.transaction():
            self._update(entry_id, **changes, **(_stamp_columns(stamp) if stamp else {}))

    def identify(self, entry: Entry, content: Content, ppid: str, pphash: str, **changes: Any) -> Entry:
        """Record the content and the pipeline of the file of `entry`.

        Returns
        -------
        Entry
            The row of this content and pipeline: `entry`, or an older or a new row of the same path.
        """
        with self.transaction():
            known = self.find(entry.path, content, pphash)
            if known is None and entry.content is not None:
                known = self.add(entry.path, entry.stamp, entry.job_id)
            elif known is not None and known.id != entry.id and entry.content is None:
                self._connection.execute(
                    "UPDATE transitions SET measurement = ? WHERE measurement = ?", (known.id, entry.id)
                )
                self.forget(entry.id)
            target = known or entry
            self._update(
                target.id,
                content_size=content.size,
                md5_5m=content.md5_5m,
                identifier=content.identifier,
                digest=content.digest,
                ppid=ppid,
                pphash=pphash,
                changed_at=utc_now(),
                **_stamp_columns(entry.stamp),
                **changes,
            )
            return self.get(target.id)

    def finish(self, entry_id: int, output: str, **changes: Any) -> Entry:
        """Move a row to done; rows whose result was at `output` before lose it, since it has been replaced.

        What the row says of the report of a former result is removed.
        """
        with self.transaction():
            self._connection.execute(
                "UPDATE measurements SET output = NULL WHERE output = CAST(? AS TEXT) AND id != ?",
                (text_of(output), entry_id),
            )
            # The outdated result of this path has been replaced, so no other content of it has to do so.
            self._connection.execute(
                "UPDATE measurements SET replace_output = 0 WHERE replace_output"
                " AND path = (SELECT path FROM measurements WHERE id = ?)",
                (entry_id,),
            )
            report: dict[str, Any] = {"light": "", "warnings": "", "report": None}
            return self.move(entry_id, State.DONE, output=output, replace_output=0, **report, **changes)

    def note_presence(self, entry_id: int, *, is_there: bool) -> None:
        """Record that the result of a row was removed or has returned; the row stays done."""
        with self.transaction():
            self._record(entry_id, State.DONE, "output_returned" if is_there else "output_gone", "")
            self._update(entry_id, reason="" if is_there else "output_gone", changed_at=utc_now())

    def remember_location(self, folder: str, place: str) -> None:
        """Record where `folder` is mounted."""
        if self.location(folder) != place:
            with self.transaction():
                self._connection.execute(
                    "INSERT OR REPLACE INTO places (path, place) VALUES (CAST(? AS TEXT), CAST(? AS TEXT))",
                    (text_of(folder), text_of(place)),
                )

    def acknowledge(self) -> int:
        """Record that somebody has seen what failed or got a red light until now; return the number of measurements."""
        with self.transaction():
            failed, red, _ = self.unacknowledged()
            self._connection.execute("UPDATE acknowledged SET time = ?", (utc_now(),))
        return failed + red

    def note_untidy(self, folder: str) -> None:
        """Record that a folder may contain temporary files if the daemon is killed from now on."""
        with self.transaction():
            self._connection.execute(
                "INSERT OR IGNORE INTO untidy (folder) VALUES (CAST(? AS TEXT))", (text_of(folder),)
            )

    def note_tidy(self, folder: str) -> None:
        """Record that a folder contains no leftover temporary files."""
        with self.transaction():
            self._connection.execute("DELETE FROM untidy WHERE folder = CAST(? AS TEXT)", (text_of(folder),))

    def touch(self) -> None:
        """Write to the ledger, to check that it is writable."""
        with self.transaction():
            self._connection.execute("INSERT OR REPLACE INTO places (path, place) VALUES ('', ?)", (utc_now(),))

    def close_others(self, entry: Entry) -> None:
        """Skip the other unfinished rows of the same path, since a path has only one content at a time."""
        for other in self.entries(State.SEEN, State.SETTLING, State.QUEUED, path=entry.path):
            if other.id != entry.id:
                self.move(other.id, State.SKIPPED, "replaced")

    def note_obstacles(self, found: Iterable[tuple[int, str, str]]) -> None:
        """Record in one transaction what keeps queued measurements waiting.

        Parameters
        ----------
        found
            Number of the row, reason and error; the reason is empty for a measurement that no longer waits. Rows that
            are not queued any more are left unchanged.
        """
        rows = [(text_of(reason), text_of(error), entry_id) for entry_id, reason, error in found]
        changes = "reason = CAST(? AS TEXT), error = CAST(? AS TEXT)"
        query = f"UPDATE measurements SET {changes} WHERE id = ? AND state = 'queued'"  # noqa: S608 -- own constants
        with self.transaction():
            self._connection.executemany(query, rows)

    def recover(self) -> list[Entry]:
        """Queue the measurements that the previous run left running, and return them.

        Call this once, before the first scan.
        """
        with self.transaction():
            # The folders of results are checked again in this run.
            self.note_obstacles((entry_id, "", "") for entry_id, *_ in self.obstacles())
            left = self.entries(State.RUNNING)
            return [self.move(entry.id, State.QUEUED, "interrupted") for entry in left]

    def forget(self, entry_id: int) -> None:
        """Delete a row."""
        with self.transaction():
            self._connection.execute("DELETE FROM measurements WHERE id = ?", (entry_id,))

    def _record(self, entry_id: int, state: State, reason: str, error: str) -> None:
        query = "INSERT INTO transitions (measurement, time, state, reason, error) VALUES (?, ?, ?, ?, ?)"
        self._connection.execute(query, (entry_id, utc_now(), state, reason, error))

    def _update(self, entry_id: int, **changes: Any) -> None:
        columns = ", ".join(
            f"{name} = CAST(? AS TEXT)" if isinstance(value, str) else f"{name} = ?" for name, value in changes.items()
        )
        values = [text_of(value) if isinstance(value, str) else value for value in changes.values()]
        query = (
            f"UPDATE measurements SET {columns}, "  # noqa: S608 -- names come from this module
            "revision = (SELECT max(revision) + 1 FROM measurements) WHERE id = ?"
        )
        self._connection.execute(query, (*values, entry_id))


def _stamp_columns(stamp: Stamp | None) -> dict[str, int | None]:
    return stamp._asdict() if stamp else dict.fromkeys(Stamp._fields)
