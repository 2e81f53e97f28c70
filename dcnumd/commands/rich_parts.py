"""Parts of terminal output that several commands share."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping

import rich.console
import rich.measure
from rich.cells import cell_len
from rich.style import Style
from rich.text import Text

from dcnumd.daemon.ledger.records import OUTPUT_GONE, Entry, State
from dcnumd.errors import printable

LIGHTS = {
    "green": Text("● green", "green"),
    "yellow": Text("▲ yellow", "yellow"),
    "red": Text("■ red", "bold red"),
    "grey": Text("○ grey", "dim"),
}
"""Text for each traffic light; symbol and word tell it without colours, too."""

STATES = {
    State.DONE: Text("✓ done", "green"),
    State.FAILED: Text("✗ failed", "bold red"),
    State.SKIPPED: Text("· skipped", "dim"),
}


class LeftCut:
    """Text that is cut at its beginning if it does not fit, for paths, whose end matters most.

    Parameters
    ----------
    text
        One line.
    style
        Style of the text.
    """

    def __init__(self, text: str, style: Style) -> None:
        self._text = text
        self._style = style

    def __rich_measure__(
        self, _console: rich.console.Console, options: rich.console.ConsoleOptions
    ) -> rich.measure.Measurement:
        width = cell_len(self._text)
        return rich.measure.Measurement(min(width, 8), width).clamp(max_width=options.max_width)

    def __rich_console__(
        self, _console: rich.console.Console, options: rich.console.ConsoleOptions
    ) -> rich.console.RenderResult:
        text = self._text
        if cell_len(text) > options.max_width:
            while text and cell_len(text) >= options.max_width:
                text = text[1:]
            text = f"…{text}"
        yield Text(text, self._style, no_wrap=True, overflow="crop")


def name_width(width: int) -> int:
    """Return the largest width of the name of a measurement on a terminal of `width` columns."""
    return round(0.3 * width)


def name_of(names: Mapping[str, str], entry: Entry) -> LeftCut:
    """Return the name of a measurement, as a link to its report on terminals that support links.

    Parameters
    ----------
    names
        The names of all measurements that are shown, by path; see `distinct_names`.
    entry
        The measurement.
    """
    link = f"file://{urllib.parse.quote(entry.report.encode('utf-8', 'surrogateescape'))}" if entry.report else None
    return LeftCut(printable(names[entry.path]), Style(bold=True, link=link))


def outcome(entry: Entry) -> Text:
    """Return the traffic light of a measurement, or its state if there is none."""
    return (LIGHTS.get(entry.light) or STATES[State.DONE]) if entry.state is State.DONE else STATES[entry.state]


def words(text: str, style: str = "") -> Text:
    """Return text that is cut at its end if it does not fit."""
    return Text(printable(text), style, no_wrap=True, overflow="ellipsis")


def warnings_of(entry: Entry) -> str:
    """Return the names of the checks that warn, as words, after "result gone" if the result is gone."""
    gone = ["result gone"] if entry.reason == OUTPUT_GONE else []
    return ", ".join(gone + entry.warnings.split()).replace("_", " ")


def count(number: int | None) -> str:
    """Return a number with thousands separators; an empty string for None."""
    return "" if number is None else f"{number:,}"
