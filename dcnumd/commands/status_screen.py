"""The screen of the command `status`, printed once or kept up to date."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import os
import signal
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Self

import rich.console
import rich.live
import rich.progress_bar
import rich.table
from rich.text import Text

from dcnumd.commands.rich_parts import count, name_of, name_width, outcome, warnings_of, words
from dcnumd.commands.shown import local_time, unreadable, why_not
from dcnumd.commands.status_values import IN_LEDGER, Pace, Status, live_in_words, present_state
from dcnumd.config.values import Settings
from dcnumd.daemon.ledger.records import SURROUNDINGS, Entry, State
from dcnumd.daemon.ledger.store import Ledger, ledger_path
from dcnumd.daemon.live.answers import Answer
from dcnumd.daemon.measurements.parking import BlockedFolders
from dcnumd.daemon.ownership import lock_owner
from dcnumd.errors import DcnumdError, printable
from dcnumd.logic.stamp import Stamp
from dcnumd.report.conditions import Condition
from dcnumd.report.wording import cause_of
from dcnumd.status import Live
from dcnumd.words import duration

REDRAW_SECONDS = 1.0
"""Seconds after which the screen is redrawn even if the ledger has not changed."""
POLL_SECONDS = 0.1
"""Seconds between two checks of whether the ledger has changed."""
WIDE = 100
"""Width of the terminal from which on numbers of events have their unit beside them [columns]."""
WAITING_WORDS = {State.SETTLING: ("not complete yet", "yellow"), State.QUEUED: ("ready", "cyan")}
"""Word and colour for each state of a waiting measurement."""
COLOURS = {"green": "cyan", "yellow": "yellow", "red": "bold red", "grey": "dim"}
"""Colour of a condition of the daemon, by its light."""
LINES_PER_JOB = 6
"""Number of lines of the terminal for each running measurement that is shown; it takes two of them."""
NO_PLACE = ("no place", "red")
"""Word and colour for a measurement that waits because its output folder takes no results."""


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """The values that one screen shows."""

    settings: Settings
    status: Status
    owner: int | None
    now: dt.datetime
    """Local time."""
    conditions: tuple[Condition, ...] = ()
    """What the daemon tells of itself, in addition to the ledger."""
    trouble: str = ""
    """Why the status may be outdated; empty if it is current."""
    workers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Name of the worker of the cluster that processes a measurement, by the path of the measurement."""
    live: Mapping[str, Live] = dataclasses.field(default_factory=dict)
    """What is known of recordings that are processed while they grow, by their paths."""


def show(settings: Settings, status: Status, owner: int | None) -> None:
    """Print the screen once."""
    console = rich.console.Console(highlight=False)
    told = of_daemon(settings, status, owner)
    view = View(settings, status, owner, _now(), told.conditions, "", told.workers, told.live)
    # One line is left for the prompt.
    console.print(screen(view, console.width, console.height - 1))


def of_daemon(settings: Settings, status: Status, owner: int | None) -> Answer:
    """Return what the daemon tells of itself, without the conditions that are in the ledger."""
    told = present_state(settings, status, owner)[0]
    return dataclasses.replace(told, conditions=tuple(one for one in told.conditions if one.name not in IN_LEDGER))


def watch(settings: Settings) -> None:
    """Show the screen and keep it up to date until Ctrl-C.

    Raises
    ------
    DcnumdError
        If the ledger cannot be read at the start.
    """
    console = rich.console.Console(highlight=False)
    with contextlib.closing(Watched(settings)) as watched, contextlib.suppress(KeyboardInterrupt), _Ending() as ending:
        watched.read()
        with rich.live.Live(console=console, screen=True, auto_refresh=False) as live:
            while not ending.asked:
                live.update(screen(watched.view(), console.width, console.height), refresh=True)
                deadline = time.monotonic() + REDRAW_SECONDS
                while time.monotonic() < deadline and not ending.asked and not watched.has_changed():
                    time.sleep(POLL_SECONDS)


class _Ending:
    """Context manager that records Ctrl-C and SIGTERM, so that its block can end and restore the terminal.

    A handler that raises an exception would not do: Python ignores exceptions in destructors. The second signal
    raises `KeyboardInterrupt` nevertheless, in case something takes too long.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Self:
        self._earlier = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def _note(self, _number: int, _frame: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


class Watched:
    """Reads the ledger of a daemon that may start and stop meanwhile, and only if the ledger has changed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = settings.state_folder()
        self._ledger: Ledger | None = None
        self._mark: object = None
        self._status = Status.of(settings, None)
        self._trouble = ""

    def close(self) -> None:
        """Close the ledger."""
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None

    def read(self) -> None:
        """Reopen and read the ledger.

        Raises
        ------
        DcnumdError
            If the ledger cannot be read.
        """
        try:
            # Why not keep it open: the file may have been created, migrated or replaced since.
            self.close()
            self._ledger = Ledger.open_to_read(self._folder)
            self._mark = self._present_mark()
            self._status = Status.of(self._settings, self._ledger)
        except sqlite3.Error as error:
            raise unreadable(self._folder, error) from error

    def view(self) -> View:
        """Return what to show now; if the ledger cannot be read, the former status and the reason."""
        owner = None
        try:
            owner = lock_owner(self._folder)
            if self._trouble or self.has_changed():
                self.read()
            self._trouble = ""
        except DcnumdError as error:
            # The screen has one line for it, so the path is left out.
            self._trouble = error.message.removeprefix(printable(f"{ledger_path(self._folder)}: "))
        told = of_daemon(self._settings, self._status, owner)
        return View(
            self._settings, self._status, owner, _now(), told.conditions, self._trouble, told.workers, told.live
        )

    def has_changed(self) -> bool:
        """Return whether the ledger may have changed since it was read."""
        try:
            return not self._trouble and self._present_mark() != self._mark
        except sqlite3.Error:
            return True

    def _present_mark(self) -> object:
        version = None if self._ledger is None else self._ledger.data_version()
        return version, [_stamp(f"{ledger_path(self._folder)}{suffix}") for suffix in ("", "-wal")]


def screen(view: View, width: int, height: int) -> rich.console.Group:
    """Return the screen, with as many measurements as fit into `width` columns and `height` lines."""
    status = view.status
    sections = [("Waiting", status.waiting), ("Done", status.done), ("Failed", status.failed)]
    totals = {
        "Waiting": status.counts[State.SETTLING] + status.counts[State.QUEUED],
        "Done": status.counts[State.DONE],
        "Failed": status.counts[State.FAILED],
    }
    parts = [*_head(view), *_running(view, max(height // LINES_PER_JOB, 1))]
    taken = sum(1 for _ in parts) + sum(2 for _, entries in sections if entries)
    lengths = shares(height - taken, [len(entries) for _, entries in sections])
    tables = {"Waiting": _waiting, "Done": _done, "Failed": _failed}
    for (title, entries), length in zip(sections, lengths, strict=True):
        if entries:
            rest = f", the last {length}" if length < totals[title] else ""
            events = ", with the number of events" if title == "Done" and width < WIDE else ""
            parts += [
                Text(),
                _title(title, f"{totals[title]:,}{rest}{events}"),
                tables[title](view, entries[:length], width),
            ]
    return rich.console.Group(*parts)


def shares(lines: int, wanted: Sequence[int]) -> list[int]:
    """Divide lines among lists: each non-empty list gets one, and the rest is shared out evenly.

    Parameters
    ----------
    lines
        Number of lines to divide.
    wanted
        Length of each list.

    Returns
    -------
    shares
        Number of lines of each list, at most its length.
    """
    given = [min(number, 1) for number in wanted]
    for _ in range(max(wanted, default=0)):
        for index, number in enumerate(wanted):
            if sum(given) < lines and given[index] < number:
                given[index] += 1
    return given


def _head(view: View) -> list[rich.console.RenderableType]:
    """Return the lines at the top: the daemon's state, the numbers of measurements, and problems."""
    daemon = Text.assemble(("dcnumd ", "bold"))
    if view.owner is None:
        daemon.append("■ not running", "bold yellow")
    else:
        daemon.append("● running", "bold green")
        daemon.append(f"  process {view.owner}", "dim")
    line = rich.table.Table.grid(expand=True)
    line.add_column(no_wrap=True)
    line.add_column(justify="right", no_wrap=True)
    line.add_row(daemon, Text(f"{view.now:%Y-%m-%d %H:%M:%S}", "dim"))
    status = view.status
    if not status.has_ledger:
        place = printable(os.fspath(view.settings.state_folder()))
        numbers = words(f"no daemon has run with this config yet; there is no ledger in {place}", "dim")
    else:
        told = ", ".join(f"{number:,} {state}" for state, number in status.counts.items() if number)
        numbers = words(told or "nothing was found yet", "dim")
    trouble = [words(view.trouble, "bold red")] if view.trouble else []
    news = [words(f"{status.news}; dcnumd acknowledge, once somebody has seen them", "yellow")] if status.news else []
    present = [words(one.text, COLOURS[one.light]) for one in view.conditions]
    live = [
        words(f"recording {os.path.basename(path)}: {live_in_words(one)}", "yellow" if one.checks else "cyan")  # noqa: PTH119 -- no need to parse it
        for path, one in view.live.items()
    ]
    return [line, numbers, *trouble, *present, *live, *news, *_blocked(status.blocked)]


def _blocked(folders: BlockedFolders) -> Iterator[rich.console.RenderableType]:
    """Yield cause and cure for the first two folders that take no results, and the number of the others."""
    for one in folders[:2]:
        cause = cause_of(one.reason)
        yield words(f"■ {cause.what}, {count(one.waiting)} waiting: {one.folder}", "bold red")
        yield words(f"  {cause.cure}", "red")
    if len(folders) > 2:
        yield words(f"■ {len(folders) - 2} more folders take no results", "bold red")


def _running(view: View, most: int) -> list[rich.console.RenderableType]:
    """Return lines with the name and the progress of the first running measurements, `most` at the most."""
    running = view.status.running
    rest = f"{len(running):,}, the first {most}" if len(running) > most else ""
    parts: list[rich.console.RenderableType] = [Text(), _title("Processing", rest)] if running else []
    for entry in running[:most]:
        name = rich.table.Table.grid(padding=(0, 2, 0, 0))
        for _ in range(3):
            name.add_column()
        worker = view.workers.get(entry.path, "")
        name.add_row(name_of(view.status.names, entry), words(entry.sample), words(worker and f"on {worker}", "dim"))
        parts += [name, _progress(view, entry)]
    return parts


def _progress(view: View, entry: Entry) -> rich.console.RenderableType:
    if view.owner is None:
        return words("interrupted; it goes on when the daemon starts", "yellow")
    pace = Pace.of(entry, view.status.taken)
    left = pace.seconds_left(view.now)
    line = rich.table.Table.grid(padding=(0, 2, 0, 0), expand=True)
    line.add_column(ratio=1)
    for _ in range(3 if left is not None else 1):
        line.add_column(no_wrap=True, justify="right")
    bar = rich.progress_bar.ProgressBar(total=1.0, completed=pace.share, complete_style="cyan")
    if left is None or pace.frames_per_second is None:
        begin = dt.datetime.fromisoformat(entry.started_at) if entry.started_at else view.now
        since = max((view.now - begin).total_seconds(), 0.0)
        line.add_row(bar, f"{count(entry.frames)} frames, begun {duration(round(since))} ago")
    else:
        done = f"{count(entry.frames_done)} of {count(entry.frames)} frames"
        line.add_row(
            bar, f"{pace.share:.0%} {done}", f"{pace.frames_per_second:,.0f}/s", f"{duration(round(left))} left"
        )
    return line


def _waiting(view: View, entries: Sequence[Entry], width: int) -> rich.table.Table:
    table = _list()
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, max_width=name_width(width))
    table.add_column()
    for entry in entries:
        state = words(*(NO_PLACE if entry.reason in SURROUNDINGS else WAITING_WORDS[entry.state]))
        table.add_row(
            local_time(entry.seen_at, view.now), state, name_of(view.status.names, entry), words(why_not(entry), "dim")
        )
    return table


def _done(view: View, entries: Sequence[Entry], width: int) -> rich.table.Table:
    table = _list()
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, max_width=name_width(width))
    table.add_column(no_wrap=True, justify="right")
    table.add_column()
    table.add_column()
    for entry in entries:
        table.add_row(
            local_time(entry.finished_at, view.now),
            outcome(entry),
            name_of(view.status.names, entry),
            f"{count(entry.events)} events" if width >= WIDE else count(entry.events),
            words(entry.sample),
            words(warnings_of(entry), "yellow"),
        )
    return table


def _failed(view: View, entries: Sequence[Entry], width: int) -> rich.table.Table:
    table = _list()
    table.add_column(no_wrap=True, max_width=name_width(width))
    table.add_column()
    for entry in entries:
        table.add_row(
            local_time(entry.finished_at, view.now), name_of(view.status.names, entry), words(why_not(entry), "red")
        )
    return table


def _list() -> rich.table.Table:
    """Return an empty table whose first column is for times."""
    table = rich.table.Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="dim")
    return table


def _title(title: str, remark: str = "") -> Text:
    return Text.assemble((title, "bold underline"), *([(f"  {remark}", "dim")] if remark else []), no_wrap=True)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC).astimezone()


def _stamp(path: str) -> Stamp | None:
    """Return the stamp of a file, which changes when it is written or replaced; None if the file cannot be examined."""
    try:
        return Stamp.at(path)
    except OSError:
        return None
