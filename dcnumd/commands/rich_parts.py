"""What the screens of several commands are made of."""

from __future__ import annotations

import urllib.parse

import rich.console
import rich.measure
from rich.cells import cell_len
from rich.style import Style
from rich.text import Text

from dcnumd.commands.shown import short_path
from dcnumd.config.values import Settings
from dcnumd.daemon.ledger.records import OUTPUT_GONE, Entry, State
from dcnumd.errors import printable

LIGHTS = {
    "green": Text("● green", "green"),
    "yellow": Text("▲ yellow", "yellow"),
    "red": Text("■ red", "bold red"),
    "grey": Text("○ grey", "dim"),
}
"""A report's traffic light: a sign and a word beside the colour."""

STATES = {
    State.DONE: Text("✓ done", "green"),
    State.FAILED: Text("✗ failed", "bold red"),
    State.SKIPPED: Text("· skipped", "dim"),
}


class LeftCut:
    """Text whose end says most, such as a path: where it does not fit, its beginning is left out.

    Parameters
    ----------
    text
        One line.
    style
        How it looks.
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
    """Return how many columns of a screen of this width the name of a measurement gets at most."""
    return round(0.3 * width)


def name_of(settings: Settings, entry: Entry) -> LeftCut:
    """Return the name of a measurement, which leads to its report where the terminal can do so."""
    link = f"file://{urllib.parse.quote(entry.report.encode('utf-8', 'surrogateescape'))}" if entry.report else None
    return LeftCut(short_path(settings, entry.path), Style(bold=True, link=link))


def outcome(entry: Entry) -> Text:
    """Return what became of a measurement: its traffic light, or else its state."""
    return (LIGHTS.get(entry.light) or STATES[State.DONE]) if entry.state is State.DONE else STATES[entry.state]


def words(text: str, style: str = "") -> Text:
    """Return text that is cut at its end where it does not fit."""
    return Text(printable(text), style, no_wrap=True, overflow="ellipsis")


def warnings_of(entry: Entry) -> str:
    """Return the names of the checks that warn, for reading; and that the result is gone, if it is."""
    gone = ["result gone"] if entry.reason == OUTPUT_GONE else []
    return ", ".join(gone + entry.warnings.split()).replace("_", " ")


def count(number: int | None) -> str:
    """Return a number with its thousands apart; nothing where there is none."""
    return "" if number is None else f"{number:,}"
