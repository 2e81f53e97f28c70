"""The table of the command `history` on a terminal."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import rich.console
import rich.table
from rich.text import Text

from dcnumd.commands.rich_parts import count, name_of, name_width, outcome, warnings_of, words
from dcnumd.commands.shown import local_time, why_not
from dcnumd.daemon.ledger.records import Entry, State
from dcnumd.words import distinct_names, duration

WIDE = 110
"""Width of the terminal from which on the columns "frames" and "took" are shown [columns]."""


def show_table(entries: Sequence[Entry], *, more: bool) -> None:
    """Print the table, with a hint on how to see all measurements if there may be `more`."""
    console = rich.console.Console(highlight=False)
    now = dt.datetime.now(dt.UTC).astimezone()
    console.print(history_table(entries, now, console.width))
    hints = ["-n 0 shows all"] if more else []
    if any(entry.state is State.FAILED for entry in entries):
        hints.append("dcnumd why FILE tells the way of a measurement")
    if hints:
        console.print(Text("; ".join(hints), "dim"))


def history_table(entries: Sequence[Entry], now: dt.datetime, width: int) -> rich.table.Table:
    """Return the table of finished measurements for a terminal of `width` columns."""
    wide = width >= WIDE
    table = rich.table.Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim underline")
    table.add_column("ended", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    table.add_column("measurement", no_wrap=True, max_width=name_width(width))
    table.add_column("sample")
    table.add_column("events", no_wrap=True, justify="right")
    if wide:
        table.add_column("frames", no_wrap=True, justify="right")
        table.add_column("took", no_wrap=True, justify="right")
    table.add_column("remarks")
    names = distinct_names(entry.path for entry in entries)
    for entry in entries:
        took = "" if entry.seconds is None else duration(entry.seconds)
        done = entry.state is State.DONE
        table.add_row(
            local_time(entry.finished_at, now),
            outcome(entry),
            name_of(names, entry),
            words(entry.sample),
            count(entry.events if done else None),
            *((count(entry.frames), took if done else "") if wide else ()),
            words(warnings_of(entry)) if done else words(why_not(entry)),
        )
    return table
