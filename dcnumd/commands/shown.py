"""How commands show entries of the ledger, as text for people and as JSON for programs."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import datetime as dt
import json
import pathlib
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click

from dcnumd.config.values import Settings
from dcnumd.daemon.ledger.records import OUTPUT_GONE, Entry, State
from dcnumd.daemon.ledger.store import Ledger, ledger_path
from dcnumd.errors import DcnumdError, printable
from dcnumd.words import duration

FORMULA = ("=", "+", "-", "@")
"""First characters of cells that spreadsheets would evaluate as a formula."""
COLOURS = {State.DONE: "green", State.FAILED: "red", State.RUNNING: "cyan", State.SKIPPED: "yellow"}


@contextlib.contextmanager
def reading(settings: Settings) -> Iterator[Ledger | None]:
    """Yield the ledger of these settings, opened read-only; None if there is none.

    Raises
    ------
    DcnumdError
        If the ledger cannot be read.
    """
    folder = settings.state_folder()
    try:
        ledger = Ledger.open_to_read(folder)
        with ledger or contextlib.nullcontext():
            yield ledger
    except sqlite3.Error as error:
        raise unreadable(folder, error) from error


def unreadable(folder: pathlib.Path, error: sqlite3.Error) -> DcnumdError:
    """Return the error for a ledger that SQLite cannot read."""
    return DcnumdError(f"{ledger_path(folder)}: the ledger cannot be read: {error}", "ledger")


def local_time(time: str | None, now: dt.datetime) -> str:
    """Return a time of the ledger as local time, at most 12 characters wide; the date is left out if it is today's."""
    if not time:
        return ""
    local = dt.datetime.fromisoformat(time).astimezone(now.tzinfo)
    if local.date() == now.date():
        return f"{local:%H:%M:%S}"
    return f"{local:%b %d %H:%M}" if local.year == now.year else f"{local:%Y-%m-%d}"


def moment(time: str) -> str:
    """Return a time of the ledger: local time on a terminal, elsewhere as it is, in UTC."""
    if not sys.stdout.isatty():
        return time
    return f"{dt.datetime.fromisoformat(time).astimezone():%Y-%m-%d %H:%M:%S}"


def why_not(entry: Entry) -> str:
    """Return the reason code and the error of a measurement, without its path."""
    error = printable(entry.error).removeprefix(f"{printable(entry.path)}: ")
    return ": ".join(text for text in (printable(entry.reason), error) if text)


def entry_line(entry: Entry, worker: str = "") -> str:
    """Return one line about a measurement, which a worker of a cluster may be processing."""
    result = entry.output or "replaced by the result of a later content"
    details = {
        State.DONE: f"{entry.frames} frames, {entry.events} events in {duration(entry.seconds or 0)} -> {result}",
        State.RUNNING: f"{entry.frames_done or 0} of {entry.frames} frames{f' on {worker}' if worker else ''}",
    }.get(entry.state, why_not(entry))
    if entry.state is State.DONE and entry.reason == OUTPUT_GONE:
        details += " (gone)"
    if entry.light:
        details += f", report {entry.light}{f' ({entry.warnings})' if entry.warnings else ''}"
    state = click.style(f"{entry.state:9}", fg=COLOURS.get(entry.state))
    return f"{moment(entry.changed_at)}  {state} {printable(f'{entry.path}  {details}')}".rstrip()


def as_dict(entry: Entry) -> dict[str, Any]:
    """Return all columns of a measurement's row in the ledger, for JSON."""
    return dataclasses.asdict(entry)


def print_csv(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a header line, and one record for each row."""
    writer = csv.writer(sys.stdout)
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in rows)


def _cell(value: object) -> object:
    """Return a value for CSV: text that spreadsheets would evaluate begins with an apostrophe, all can be printed."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def print_json(value: object) -> None:
    """Print a value as JSON."""
    click.echo(json.dumps(value, indent=2))
