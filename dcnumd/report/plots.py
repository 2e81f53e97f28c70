"""The plots of a report as SVG: their style, histograms, and quantities over time; see also `scatter`.

Plots take their colours from variables of the page's style sheet, so that they follow dark mode and print. Text in them
remains text. No text of a measurement is written into a plot.
"""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dcnumd.report.cloud import Floats, Limits, limits


class Palette(NamedTuple):
    """The colours of a plot: text, lines of axes and grid, data, lines over the data, and the background."""

    muted: str
    line: str
    accent: str
    fg: str
    card: str = "none"


ON_PAGE = Palette("#0a0b0d", "#0a0b0e", "#0a0b0f", "#0a0b0c")
"""Placeholders, which the variables of the style sheet replace; these have the names of the fields."""
ON_PAPER = Palette("#333333", "#cccccc", "#2456c7", "#000000", "#ffffff")
"""Colours of plots for documents."""
PAPER_DPI = 250
FONTS = '"DejaVu Sans", Verdana, sans-serif'
Draw = Callable[[Axes, Palette], None]
"""Draws into axes, in given colours."""

MOST_BINS, FEWEST_BINS = 48, 12
FEWEST_GREY_LEVELS = 8.0
"""Smallest extent of the brightness axis, so that noise does not look like a change [grey levels]."""


@dataclasses.dataclass(frozen=True, slots=True)
class Plot:
    """A plot for the page."""

    svg: str
    """The content of the ``<svg>`` element, as safe markup."""
    width: float
    height: float
    """Width and height of the view box."""
    points: Floats = dataclasses.field(default_factory=lambda: np.empty((0, 2)))
    """Positions of the marked points in the view box (x, y), of shape (point, 2)."""
    as_png: Callable[[], bytes] = bytes
    """Draws the plot on white, and returns it as the content of a PNG file."""

    def as_svg_file(self) -> bytes:
        """Return the plot on white as the content of an SVG file."""
        text = self.svg
        for name, colour in ON_PAPER._asdict().items():
            text = text.replace(f"var(--{name})", colour)
        size = f'width="{self.width:g}pt" height="{self.height:g}pt" viewBox="0 0 {self.width:g} {self.height:g}"'
        file = (
            '<?xml version="1.0" encoding="UTF-8"?>\n<svg xmlns="http://www.w3.org/2000/svg" '
            f'xmlns:xlink="http://www.w3.org/1999/xlink" {size}>'
            f"<style>text{{font-family:{FONTS}}}.modulus{{font-size:7px}}</style>"
            f'<rect width="100%" height="100%" fill="{ON_PAPER.card}"/>{text}</svg>\n'
        )
        return file.encode()


def histogram(values: Floats, label: str, median: float | None, key: str) -> Plot | None:
    """Draw the histogram of a feature, and return it; None if no value is finite.

    Parameters
    ----------
    values
        Values of the events.
    label
        Label of the value axis.
    median
        Value to mark by a line; None for no line.
    key
        Unique name of this plot on the page.
    """
    ends = limits(values)
    if ends is None:
        return None
    finite = values[np.isfinite(values)]
    quarter, three_quarters = np.percentile(finite, (25, 75))
    # The rule of Freedman and Diaconis, within the numbers of bins that are readable at this size.
    width = 2 * (three_quarters - quarter) * finite.size ** (-1 / 3)
    bins = int(np.clip((ends[1] - ends[0]) / width, FEWEST_BINS, MOST_BINS)) if width > 0 else FEWEST_BINS
    counts, edges = np.histogram(finite, bins, range=ends)
    return bars(counts, edges, median, (label, "events"), key)


def bars(
    counts: npt.NDArray[np.int64],
    edges: Floats,
    mark: float | None,
    labels: tuple[str, str],
    key: str,
    *,
    ticks: int = 4,
    width: int = 270,
    height: int = 185,
) -> Plot:
    """Draw a histogram that was counted.

    Parameters
    ----------
    counts, edges
        Number of values in each interval (int64 of shape (interval,)), and the ends of the intervals (float64 of shape
        (interval + 1,)).
    mark
        Value to mark by a line, unless it is beyond the ends; None for no line.
    labels
        Labels of the value axis and of the number axis.
    key
        Unique name of this plot on the page.
    ticks
        Largest number of intervals between ticks of the value axis.
    width, height
        Size of the plot's view box.
    """

    def draw(axes: Axes, colours: Palette) -> None:
        axes.stairs(counts, edges, fill=True, facecolor=colours.accent, alpha=0.75)
        if mark is not None and edges[0] <= mark <= edges[-1]:
            axes.axvline(mark, color=colours.fg, linewidth=1.4, dashes=(4, 2))
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(0, max(1.05 * counts.max(), 1))
        axes.xaxis.set_major_locator(MaxNLocator(ticks))
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.grid(visible=False, axis="x")
        name_axes(axes, *labels)

    return small_plot(draw, key, width=width, height=height)


def course(time: Sequence[float], values: Sequence[float | None], label: str, key: str, *, rate: bool) -> Plot | None:
    """Draw a quantity over time, and return the plot; None if fewer than two points are known.

    Parameters
    ----------
    time
        Middle of each interval [s].
    values
        Value of each interval; None and NaN leave a gap.
    label
        Label of the value axis.
    key
        Unique name of this plot on the page.
    rate
        Whether the value axis begins at zero and the area below the line is filled.
    """
    x = np.array(time, np.float64)
    y = np.array([np.nan if value is None else value for value in values], np.float64)
    finite = y[np.isfinite(x) & np.isfinite(y)]
    if finite.size < 2:
        return None

    def draw(axes: Axes, colours: Palette) -> None:
        axes.plot(x, y, color=colours.accent, linewidth=1.6)
        if rate:
            axes.fill_between(x, y, color=colours.accent, alpha=0.2, linewidth=0)
            axes.set_ylim(0, max(1.1 * finite.max(), 1e-9))
        else:
            middle = (finite.min() + finite.max()) / 2
            half = max(0.6 * (finite.max() - finite.min()), FEWEST_GREY_LEVELS / 2)
            axes.set_ylim(middle - half, middle + half)
        axes.set_xlim(*_ends(x))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(3))
        name_axes(axes, "time [s]", label)

    return small_plot(draw, key, width=440, height=190)


def style(font_size: float, colours: Palette = ON_PAGE) -> Any:
    """Return the settings of matplotlib for one plot.

    Why not a precise return type: only newer versions of matplotlib have one for the keys.
    """
    muted, line = colours.muted, colours.line
    return {
        "axes.axisbelow": True,
        "axes.edgecolor": line,
        "axes.facecolor": "none",
        "axes.formatter.limits": (-4, 6),
        "axes.formatter.useoffset": False,
        "axes.grid": True,
        "axes.labelcolor": muted,
        "axes.labelsize": font_size,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "figure.facecolor": colours.card,
        "font.family": ["DejaVu Sans"],
        "font.size": font_size,
        "grid.color": line,
        "grid.linewidth": 0.6,
        "svg.fonttype": "none",
        "svg.hashsalt": "",
        "xtick.color": line,
        "xtick.labelcolor": muted,
        "xtick.labelsize": font_size - 1,
        "ytick.color": line,
        "ytick.labelcolor": muted,
        "ytick.labelsize": font_size - 1,
    }


def name_axes(axes: Axes, x: str, y: str) -> None:
    """Set the labels of both axes."""
    # A "$" in a label does not begin a formula.
    axes.set_xlabel(x, parse_math=False)
    axes.set_ylabel(y, parse_math=False)
    # Why fixed positions: to place labels beside the ticks, matplotlib must measure these, which takes as long as
    # drawing them.
    box = axes.get_position()
    figure = axes.figure
    axes.xaxis.set_label_coords((box.x0 + box.x1) / 2, 0.02, transform=figure.transFigure)
    axes.xaxis.label.set_verticalalignment("bottom")
    axes.yaxis.label.set_verticalalignment("top")
    axes.yaxis.set_label_coords(0.015, (box.y0 + box.y1) / 2, transform=figure.transFigure)


def as_svg(figure: Figure, key: str) -> Plot:
    """Return a figure as the content of an ``<svg>`` element, for a page that has several of them.

    The settings of `style` must be in force.
    """
    buffer = io.StringIO()
    # IDs in the drawing are hashes of this salt and their content: reproducible, and different in each plot.
    mpl.rcParams["svg.hashsalt"] = key
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    FigureCanvasSVG(figure).print_svg(buffer, metadata=nothing)  # type: ignore[no-untyped-call]
    text = buffer.getvalue()
    text = text[text.index(">", text.index("<svg")) + 1 : text.rindex("</svg>")]
    # The style sheet would apply to the whole page, and the IDs of the groups are the same in each plot.
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r"<!--.*?-->|\n\s*", "", text, flags=re.DOTALL)
    for name, colour in ON_PAGE._asdict().items():
        if colour != "none":
            text = text.replace(colour, f"var(--{name})")
    width, height = figure.get_size_inches() * 72
    return Plot(text, float(width), float(height))


def _ends(x: Floats) -> Limits:
    low, high = float(np.nanmin(x)), float(np.nanmax(x))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def small_plot(draw: Draw, key: str, *, width: int = 270, height: int = 185) -> Plot:
    """Draw one of the small plots.

    Parameters
    ----------
    draw
        Draws into the axes.
    key
        Unique name of this plot on the page.
    width, height
        Size of the plot's view box.
    """

    def figure_in(colours: Palette) -> Figure:
        figure = Figure(figsize=(width / 72, height / 72))
        left, bottom = 58 / width, 39 / height
        draw(figure.add_axes((left, bottom, 1 - left - 8 / width, 1 - bottom - 8 / height)), colours)
        return figure

    def as_png() -> bytes:
        buffer = io.BytesIO()
        with mpl.rc_context(style(11.0, ON_PAPER)):
            figure_in(ON_PAPER).savefig(buffer, format="png", dpi=PAPER_DPI)
        return buffer.getvalue()

    with mpl.rc_context(style(11.0)):
        return dataclasses.replace(as_svg(figure_in(ON_PAGE), key), as_png=as_png)
