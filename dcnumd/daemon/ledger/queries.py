"""Queries of the ledger."""

from __future__ import annotations

import dataclasses
import sqlite3
from typing import NamedTuple, TypeVar

from dcnumd.daemon.ledger.records import FINAL, SURROUNDINGS, Content, Entry, State, Transition

Record = TypeVar("Record", Entry, Transition)

_IS_LATEST = """NOT EXISTS (SELECT 1 FROM measurements AS later
    WHERE later.path = measurements.path AND later.revision > measurements.revision)"""
"""Condition for the most recent row of a path."""


class Made(NamedTuple):
    """Result of a measurement that is done."""

    id: int
    """Number of the row."""
    output: str
    """Path of the result."""
    reason: str
    """Reason of the row, such as `OUTPUT_GONE`."""


class LedgerQueries:
    """Read access to a ledger, which this process or another one writes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.row_factory = sqlite3.Row
        there = {row[1] for row in connection.execute("PRAGMA table_info(measurements)")}
        # A ledger opened only for reading is not migrated, so one of an earlier version lacks some columns.
        self._columns = ", ".join(
            name if name in there else f"{sql_default(name)} AS {name}" for name in columns_of(Entry)
        )
        # File names are bytes: those that are not valid UTF-8 are represented with surrogates.
        connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")

    def data_version(self) -> int:
        """Return a number that changes when another process changed the ledger."""
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def get(self, entry_id: int) -> Entry:
        """Return one row; raise KeyError if it does not exist, for example because it was forgotten."""
        entry = self._one("id = ?", entry_id)
        if entry is None:
            raise KeyError(entry_id)
        return entry

    def latest(self, path: str) -> Entry | None:
        """Return the row of `path` that was changed most recently; None if there is none."""
        return self._one("path = CAST(? AS TEXT) ORDER BY revision DESC", text_of(path))

    def find(self, path: str, content: Content, pphash: str) -> Entry | None:
        """Return the row with this path, content and pipeline; rows of an earlier version match without a digest."""
        return self._one(
            "path = CAST(? AS TEXT) AND content_size = ? AND md5_5m = ? AND identifier = ? AND digest IN (?, '')"
            " AND pphash = ? ORDER BY digest DESC",
            text_of(path),
            *content,
            pphash,
        )

    def producer(self, output: str) -> Entry | None:
        """Return the row that is done and whose result is at `output`; None if there is none."""
        return self._one("output = CAST(? AS TEXT) AND state = 'done'", text_of(output))

    def named(self, name: str) -> list[Entry]:
        """Return rows whose file or result has this name, in any folder; the most recently changed first."""
        ending = text_of(f"/{name}")
        conditions = [f"substr({column}, -length(CAST(? AS TEXT))) = CAST(? AS TEXT)" for column in ("path", "output")]
        query = f"{' OR '.join(conditions)} ORDER BY revision DESC"
        return [_read(Entry, row) for row in self._rows(query, *[ending] * 4)]

    def is_output(self, path: str) -> bool:
        """Return whether `path` is the output of any row, even of one that is being processed again."""
        return self._one("output = CAST(? AS TEXT)", text_of(path)) is not None

    def maker(self, path: str) -> Entry | None:
        """Return the row whose output is `path`, except for rows that were skipped because of a file there."""
        return self._one("output = CAST(? AS TEXT) AND state <> 'skipped'", text_of(path))

    def has_ended(self, entry_id: int) -> bool:
        """Return whether a row is in a final state, or was forgotten."""
        try:
            return self.get(entry_id).state in FINAL
        except KeyError:
            return True

    def must_replace(self, entry: Entry, output: str) -> bool:
        """Return whether the file at `output` is an outdated result of dcnumd that the new result must replace."""
        producer = self.producer(output)
        outdated = producer is not None and producer.path == entry.path and producer.content != entry.content
        # If the file changed before it was processed, the row of its new content takes over the replacement.
        return outdated or any(row.replace_output for row in self.entries(path=entry.path))

    def result_of(self, path: str) -> Made | None:
        """Return the result recorded in the most recent row of `path`; None if that row is not done."""
        query = "SELECT id, output, reason, state FROM measurements WHERE path = CAST(? AS TEXT)"
        row = self._connection.execute(f"{query} ORDER BY revision DESC LIMIT 1", (text_of(path),)).fetchone()
        if row is None or row["state"] != State.DONE or not row["output"]:
            return None
        return Made(row["id"], row["output"], row["reason"])

    def entries(self, *states: State, path: str | None = None, limit: int = -1) -> list[Entry]:
        """Return rows, the most recently changed first; a negative `limit` means all."""
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
        """Return rows in a final state, the most recently finished first.

        Parameters
        ----------
        states
            Return only rows in these states; by default, in any final state.
        since, until
            Return only rows that finished at or after `since` and before `until` (UTC, ISO 8601).
        sample
            Return only rows whose sample contains this text; the comparison ignores case.
        light
            Return only rows with this traffic light.
        before
            Return only rows that finished before the row with this number; used for paging.
        limit
            Maximum number of rows; negative means all.
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
        """Return the failed rows that are the most recent of their path, the most recently finished first."""
        query = f"state = 'failed' AND {_IS_LATEST} ORDER BY finished_at DESC, revision DESC"
        return [_read(Entry, row) for row in self._rows(query)]

    def unacknowledged(self) -> tuple[int, int, Entry | None]:
        """Return what failed or got a red light since the last call of `acknowledge`.

        Only the most recent row of each path counts. A ledger of an earlier version, opened for reading, has none.

        Returns
        -------
        failed, red, latest
            Number of failures, number of red lights, and the latest failure or else the latest red light.
        """
        if self._connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'acknowledged'").fetchone() is None:
            return 0, 0, None
        numbers, latest = [], None
        for condition in ("state = 'failed'", "state = 'done' AND light = 'red'"):
            news = f"{condition} AND finished_at >= (SELECT time FROM acknowledged) AND {_IS_LATEST}"  # noqa: S608 -- own constants
            numbers += self._connection.execute(f"SELECT count(*) FROM measurements WHERE {news}").fetchone()  # noqa: S608 -- likewise
            latest = latest or self._one(f"{news} ORDER BY finished_at DESC")
        return numbers[0], numbers[1], latest

    def wanting_reports(self) -> list[Entry]:
        """Return the rows whose report is still to be made, the most recently finished first."""
        return [_read(Entry, row) for row in self._rows("report_state = 'wanted' ORDER BY finished_at DESC")]

    def obstacles(self) -> list[tuple[int, str, str, str]]:
        """Return number, path, reason and error of the rows that wait for a folder that accepts no results.

        The most recently changed row comes first.
        """
        query = (
            "SELECT id, path, reason, error FROM measurements WHERE state = 'queued'"  # noqa: S608 -- own constants
            f" AND reason IN ({','.join('?' * len(SURROUNDINGS))}) ORDER BY revision DESC"
        )
        return [tuple(row) for row in self._connection.execute(query, sorted(SURROUNDINGS))]

    def changes(self) -> tuple[int, int]:
        """Return values that change whenever this process or another one changes the ledger."""
        return self._connection.total_changes, self.data_version()

    def counts(self) -> dict[State, int]:
        """Return the number of rows in each state."""
        rows = self._connection.execute("SELECT state, count(*) FROM measurements GROUP BY state")
        found = {State(row[0]): int(row[1]) for row in rows}
        return {state: found.get(state, 0) for state in State}

    def last_success(self) -> str | None:
        """Return the time at which the last result was finished; None if there is no result."""
        row = self._connection.execute("SELECT max(finished_at) FROM measurements WHERE state = 'done'").fetchone()
        return row[0] if row else None

    def transitions(self, entry_id: int) -> list[Transition]:
        """Return the transitions of one row, the oldest first."""
        rows = self._connection.execute(
            f"SELECT {', '.join(columns_of(Transition))} FROM transitions WHERE measurement = ? ORDER BY id",  # noqa: S608 -- own constants
            (entry_id,),
        )
        return [_read(Transition, row) for row in rows]

    def location(self, folder: str) -> str | None:
        """Return the location of `folder` that was last passed to `remember_location`; None if there is none."""
        row = self._connection.execute("SELECT place FROM places WHERE path = CAST(? AS TEXT)", (text_of(folder),))
        found = row.fetchone()
        return str(found[0]) if found else None

    def untidy(self) -> list[str]:
        """Return the folders that were passed to `note_untidy` and not to `note_tidy` since."""
        return [str(row[0]) for row in self._connection.execute("SELECT folder FROM untidy")]

    def was_interrupted(self, entry_id: int) -> bool:
        """Return whether the previous run of a running row was interrupted before its result was recorded."""
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
    """Return a text as it is stored: as bytes, since file names need not be valid UTF-8."""
    return value.encode("utf-8", "surrogateescape")


def columns_of(record: type[Entry | Transition]) -> tuple[str, ...]:
    """Return the names of the columns of a record, in the order of its fields."""
    return tuple(field.name for field in dataclasses.fields(record))


def sql_default(column: str) -> str:
    """Return, as SQL, the value that a column of the measurements has in rows older than the column."""
    (default,) = (field.default for field in dataclasses.fields(Entry) if field.name == column)
    if isinstance(default, int):
        return str(default)
    return "NULL" if default is None else f"'{default}'"


def _read(record: type[Record], row: sqlite3.Row) -> Record:
    # In order, since a row finds a column by its name only by comparing the names of all.
    values = dict(zip(row.keys(), row, strict=True))
    return record(**{**values, "state": State(values["state"])})
