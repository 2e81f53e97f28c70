"""What the ledger can be asked."""

from __future__ import annotations

import dataclasses
import sqlite3
from typing import NamedTuple, TypeVar

from dcnumd.daemon.ledger.records import FINAL, SURROUNDINGS, Content, Entry, State, Transition

Record = TypeVar("Record", Entry, Transition)


class Made(NamedTuple):
    """The result of a measurement that is done."""

    id: int
    """Number of the row."""
    output: str
    reason: str


class LedgerQueries:
    """Reads the rows of a ledger, the daemon's own or another process's."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.row_factory = sqlite3.Row
        there = {row[1] for row in connection.execute("PRAGMA table_info(measurements)")}
        # A ledger that is only read may be of an earlier version, which has fewer columns.
        self._columns = ", ".join(
            name if name in there else f"{sql_default(name)} AS {name}" for name in columns_of(Entry)
        )
        # File names are bytes: what is not UTF-8 comes and goes as surrogates.
        connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")

    def data_version(self) -> int:
        """Return a number that changes when another process changed the ledger."""
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def get(self, entry_id: int) -> Entry:
        """Return one row; KeyError if it was forgotten meanwhile."""
        entry = self._one("id = ?", entry_id)
        if entry is None:
            raise KeyError(entry_id)
        return entry

    def latest(self, path: str) -> Entry | None:
        """Return the row of `path` that was changed last."""
        return self._one("path = CAST(? AS TEXT) ORDER BY revision DESC", text_of(path))

    def find(self, path: str, content: Content, pphash: str) -> Entry | None:
        """Return the row of a path with this content and pipeline; one of an earlier version knows no digest."""
        return self._one(
            "path = CAST(? AS TEXT) AND content_size = ? AND md5_5m = ? AND identifier = ? AND digest IN (?, '')"
            " AND pphash = ? ORDER BY digest DESC",
            text_of(path),
            *content,
            pphash,
        )

    def producer(self, output: str) -> Entry | None:
        """Return the row whose result lies at `output`."""
        return self._one("output = CAST(? AS TEXT) AND state = 'done'", text_of(output))

    def is_output(self, path: str) -> bool:
        """Return whether a result was put at `path`, even if that is to be made again."""
        return self._one("output = CAST(? AS TEXT)", text_of(path)) is not None

    def maker(self, path: str) -> Entry | None:
        """Return the row whose result was put at `path`, unless it found another file there."""
        return self._one("output = CAST(? AS TEXT) AND state <> 'skipped'", text_of(path))

    def has_ended(self, entry_id: int) -> bool:
        """Return whether a row has come to an end, or was forgotten."""
        try:
            return self.get(entry_id).state in FINAL
        except KeyError:
            return True

    def must_replace(self, entry: Entry, output: str) -> bool:
        """Return whether the file that lies where the result of a measurement goes is ours and outdated."""
        producer = self.producer(output)
        outdated = producer is not None and producer.path == entry.path and producer.content != entry.content
        # A content that was replaced before its turn leaves to its successor what it was to replace.
        return outdated or any(row.replace_output for row in self.entries(path=entry.path))

    def result_of(self, path: str) -> Made | None:
        """Return the result of a measurement whose row was changed last; None if it is not done."""
        query = "SELECT id, output, reason, state FROM measurements WHERE path = CAST(? AS TEXT)"
        row = self._connection.execute(f"{query} ORDER BY revision DESC LIMIT 1", (text_of(path),)).fetchone()
        if row is None or row["state"] != State.DONE or not row["output"]:
            return None
        return Made(row["id"], row["output"], row["reason"])

    def entries(self, *states: State, path: str | None = None, limit: int = -1) -> list[Entry]:
        """Return rows, those changed last first."""
        conditions, values = ["1"], list[object]()
        if states:
            conditions.append(f"state IN ({','.join('?' * len(states))})")
            values += states
        if path is not None:
            conditions.append("path = CAST(? AS TEXT)")
            values.append(text_of(path))
        query = f"{' AND '.join(conditions)} ORDER BY revision DESC LIMIT ?"
        return [_read(Entry, row) for row in self._rows(query, *values, limit)]

    def history(
        self,
        *states: State,
        since: str = "",
        until: str = "",
        sample: str = "",
        light: str = "",
        before: int | None = None,
        limit: int = -1,
    ) -> list[Entry]:
        """Return rows that came to an end, the latest end first.

        Parameters
        ----------
        states
            Only in these states; none given: in any that is an end.
        since, until
            Only those that ended from the one time on and before the other, UTC, ISO 8601.
        sample
            Only those whose sample contains this, in capitals or not.
        light
            Only those with this light.
        before
            Only those that ended before the row with this number: the next page.
        limit
            How many at most.
        """
        wanted = states or tuple(sorted(FINAL))
        conditions, values = [f"state IN ({','.join('?' * len(wanted))})"], list[object](wanted)
        self._connection.create_function("fold", 1, str.casefold, deterministic=True)
        tests = {
            "finished_at >= CAST(? AS TEXT)": since,
            "finished_at < CAST(? AS TEXT)": until,
            "instr(fold(sample), fold(CAST(? AS TEXT)))": sample,
            "light = CAST(? AS TEXT)": light,
        }
        conditions += [test for test, value in tests.items() if value]
        values += [text_of(value) for value in tests.values() if value]
        if before is not None:
            conditions.append("(finished_at, revision) < (SELECT finished_at, revision FROM measurements WHERE id = ?)")
            values.append(before)
        query = f"{' AND '.join(conditions)} ORDER BY finished_at DESC, revision DESC LIMIT ?"
        return [_read(Entry, row) for row in self._rows(query, *values, limit)]

    def present_failures(self) -> list[Entry]:
        """Return the failed measurements that nothing else came after under the same path, the last one first."""
        query = (
            "state = 'failed' AND NOT EXISTS (SELECT 1 FROM measurements AS later"
            " WHERE later.path = measurements.path AND later.revision > measurements.revision)"
            " ORDER BY finished_at DESC, revision DESC"
        )
        return [_read(Entry, row) for row in self._rows(query)]

    def wanting_reports(self) -> list[Entry]:
        """Return the results without the report that they shall have, the last one first."""
        return [_read(Entry, row) for row in self._rows("report_state = 'wanted' ORDER BY finished_at DESC")]

    def obstacles(self) -> list[tuple[int, str, str, str]]:
        """Return what waits for a folder that takes no results: row, path, reason and error, changed last first."""
        query = (
            "SELECT id, path, reason, error FROM measurements WHERE state = 'queued'"  # noqa: S608 -- own constants
            f" AND reason IN ({','.join('?' * len(SURROUNDINGS))}) ORDER BY revision DESC"
        )
        return [tuple(row) for row in self._connection.execute(query, sorted(SURROUNDINGS))]

    def changes(self) -> tuple[int, int]:
        """Return what is different as soon as anybody, this process or another one, has changed the ledger."""
        return self._connection.total_changes, self.data_version()

    def counts(self) -> dict[State, int]:
        """Return how many rows are in each state."""
        rows = self._connection.execute("SELECT state, count(*) FROM measurements GROUP BY state")
        found = {State(row[0]): int(row[1]) for row in rows}
        return {state: found.get(state, 0) for state in State}

    def last_success(self) -> str | None:
        """Return when the last result was finished."""
        row = self._connection.execute("SELECT max(finished_at) FROM measurements WHERE state = 'done'").fetchone()
        return row[0] if row else None

    def transitions(self, entry_id: int) -> list[Transition]:
        """Return the way of one row, oldest step first."""
        rows = self._connection.execute(
            f"SELECT {', '.join(columns_of(Transition))} FROM transitions WHERE measurement = ? ORDER BY id",  # noqa: S608 -- own constants
            (entry_id,),
        )
        return [_read(Transition, row) for row in rows]

    def place(self, folder: str) -> str | None:
        """Return where `folder` was mounted when it was last seen, as `remember_place` got it."""
        row = self._connection.execute("SELECT place FROM places WHERE path = CAST(? AS TEXT)", (text_of(folder),))
        found = row.fetchone()
        return str(found[0]) if found else None

    def untidy(self) -> list[str]:
        """Return the folders that `note_untidy` named and `note_tidy` did not."""
        return [str(row[0]) for row in self._connection.execute("SELECT folder FROM untidy")]

    def was_interrupted(self, entry_id: int) -> bool:
        """Return whether the previous run of a running row ended without a word about its result."""
        steps = self.transitions(entry_id)
        runs = [number for number, step in enumerate(steps) if step.state is State.RUNNING]
        if len(runs) < 2:
            return False
        after = steps[runs[-2] + 1]
        return after.state is State.QUEUED and after.reason == "interrupted"

    def _one(self, condition: str, *values: object) -> Entry | None:
        rows = self._rows(f"{condition} LIMIT 1", *values)
        return _read(Entry, rows[0]) if rows else None

    def _rows(self, condition: str, *values: object) -> list[sqlite3.Row]:
        query = f"SELECT {self._columns} FROM measurements WHERE {condition}"  # noqa: S608 -- own constants
        return self._connection.execute(query, values).fetchall()


def text_of(value: str) -> bytes:
    """Return a text as it is stored: names of files need not be UTF-8."""
    return value.encode("utf-8", "surrogateescape")


def columns_of(record: type[Entry | Transition]) -> tuple[str, ...]:
    """Return the columns of a record, in its order."""
    return tuple(field.name for field in dataclasses.fields(record))


def sql_default(column: str) -> str:
    """Return in SQL what a column of the measurements is in rows of a time before there was that column."""
    (default,) = (field.default for field in dataclasses.fields(Entry) if field.name == column)
    return "NULL" if default is None else f"'{default}'"


def _read(record: type[Record], row: sqlite3.Row) -> Record:
    return record(**{**dict(row), "state": State(row["state"])})
