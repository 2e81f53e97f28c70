"""The plots of a report: SVG for the page, PNG for other places.

Plots on the page take their colours from variables of its style sheet, so that they follow dark mode and print, and
their text stays text. No text of a measurement goes into a plot.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from scipy import ndimage

Floats = npt.NDArray[np.float64]
Limits = tuple[float, float]

# What matplotlib is told to draw in, and the variable of the style sheet that takes its place.
MUTED, LINE, ACCENT, STRONG = "#0a0b0d", "#0a0b0e", "#0a0b0f", "#0a0b0c"
VARIABLES = {MUTED: "var(--muted)", LINE: "var(--line)", ACCENT: "var(--accent)", STRONG: "var(--fg)"}

GREY = "#7d858f"
"""Reads on white as on black: for pictures of which nobody knows where they are shown."""

DENSITY_COLOURS: ListedColormap | LinearSegmentedColormap = ListedColormap(
    mpl.colormaps["viridis"](np.linspace(0.22, 0.95, 64))
)
"""Few to many events; the darkest part is left out, it would vanish in dark mode."""

DENSITY_BINS = 128
DRAWN_CELLS = (480, 360)
"""Of the points that fall on the same one of so many cells across and up, one is drawn."""
SCATTER_SIZE, SCATTER_BOX = (420, 296), (0.14, 0.145, 0.84, 0.835)
"""View box of the plot, and the part of it between the axes: left, bottom, width, height."""
PICTURE_SIZE = (900, 634)
"""Pixels; of the same shape."""
PICTURE_DPI = 150
PALETTE = 160
THUMBNAIL_SIZE = (96, 64)
THUMBNAIL_COLOURS = 7
MOST_BINS, FEWEST_BINS = 48, 12
FEWEST_GREY_LEVELS = 8.0
"""Extent of the brightness axis at least, so that noise does not look like a change."""


@dataclasses.dataclass(frozen=True, slots=True)
class Plot:
    """A plot for the page."""

    svg: str
    """What goes inside the ``<svg>`` element; safe."""
    width: float
    height: float
    """Of the view box."""
    points: Floats = dataclasses.field(default_factory=lambda: np.empty((0, 2)))
    """Where the marked points are in the view box (x, y)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cloud:
    """The events of a scatter plot that lie between its limits.

    Attributes
    ----------
    index
        Number of each in the result, ascending.
    x, y
        Their values.
    density
        Events around each, relative to the densest place (0 to 1).
    limits_x, limits_y
        Ends of the axes.
    outside
        Events beyond the ends of an axis.
    """

    index: npt.NDArray[np.int64]
    x: Floats
    y: Floats
    density: Floats
    limits_x: Limits
    limits_y: Limits
    outside: int

    def has(self, event: int) -> bool:
        """Return whether the plot shows an event."""
        at = int(np.searchsorted(self.index, event))
        return at < self.index.size and int(self.index[at]) == event


def limits(values: Floats) -> Limits | None:
    """Return the ends of an axis that shows nearly all values, None if none is finite.

    Far outliers do not squeeze the rest; values that cannot be negative get an axis from zero, if that is near.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        return None
    low, high = (float(end) for end in np.percentile(finite, (0.5, 99.5)))
    margin = 0.15 * (high - low)
    if not math.isfinite(margin):
        return None
    # Equal values still need an axis; next to a large value a tiny margin would be lost.
    margin = max(margin, (1e-3 if high > low else 0.2) * max(abs(low), abs(high)), 1e-9)
    bottom, top = low - margin, high + margin
    if finite.min() >= 0 and bottom < 0.35 * top:
        bottom = 0.0
    return bottom, top


def cloud(x: Floats, y: Floats) -> Cloud | None:
    """Return what a scatter plot shows of two features; None if no event has both.

    Parameters
    ----------
    x, y
        Values of all events (float64 of shape (event,)); those that are not finite are passed over.
    """
    valid = np.isfinite(x) & np.isfinite(y)
    limits_x, limits_y = limits(x[valid]), limits(y[valid])
    if limits_x is None or limits_y is None:
        return None
    inside = valid & (x >= limits_x[0]) & (x <= limits_x[1]) & (y >= limits_y[0]) & (y <= limits_y[1])
    index = np.flatnonzero(inside)
    if not index.size:
        return None
    outside = int(np.count_nonzero(valid)) - index.size
    x, y = x[index], y[index]
    return Cloud(index, x, y, _density(x, y, limits_x, limits_y), limits_x, limits_y, outside)


def _unit(values: Floats, ends: Limits) -> Floats:
    """Return where values lie between the ends of an axis, 0 to 1."""
    return (values - ends[0]) / (ends[1] - ends[0])


def _density(x: Floats, y: Floats, limits_x: Limits, limits_y: Limits) -> Floats:
    """Return how dense the events lie around each: a histogram, smoothed, and read at the events."""
    place = np.stack([_unit(x, limits_x), _unit(y, limits_y)]) * DENSITY_BINS
    bins = np.minimum(place.astype(np.int64), DENSITY_BINS - 1)
    counts = np.bincount(bins[0] * DENSITY_BINS + bins[1], minlength=DENSITY_BINS**2)
    grid = counts.reshape(DENSITY_BINS, DENSITY_BINS).astype(np.float64)
    # Scott's rule, within what looks like a cloud
    widths = np.clip(place.std(axis=1) * x.size ** (-1 / 6), 1.2, 6.0)
    smooth = ndimage.gaussian_filter(grid, widths, mode="constant")
    density: Floats = ndimage.map_coordinates(smooth, place - 0.5, order=1, mode="nearest")
    return density / density.max() if density.max() > 0 else np.ones_like(density)


def scatter(
    points: Cloud, raster: Image.Image, labels: tuple[str, str], marked: npt.NDArray[np.int64], key: str
) -> Plot:
    """Draw a scatter plot, coloured by density.

    Parameters
    ----------
    points
        The events.
    raster
        They drawn, see `dots`.
    labels
        Of the axes.
    marked
        Events (numbers in the result) whose places in the plot are wanted.
    key
        Tells this plot from the others of the page.
    """
    left, bottom, width, height = SCATTER_BOX
    with mpl.rc_context(_style(11.0)):
        figure = Figure(figsize=(SCATTER_SIZE[0] / 72, SCATTER_SIZE[1] / 72))
        _prepare(figure.add_axes(SCATTER_BOX), points, labels)
        plot = _as_svg(figure, key)
    x0, y0 = left * plot.width, (1 - bottom - height) * plot.height
    x1, y1 = width * plot.width, height * plot.height
    at = np.searchsorted(points.index, marked)
    across, up = _unit(points.x[at], points.limits_x), _unit(points.y[at], points.limits_y)
    data = base64.b64encode(_few_colours(raster)).decode()
    # Thousands of points are a picture: as shapes they would be many times larger, and slow in every browser.
    inside = f'<image x="{x0}" y="{y0}" width="{x1}" height="{y1}" href="data:image/png;base64,{data}"/>'
    return dataclasses.replace(
        plot, svg=plot.svg + inside, points=np.column_stack([x0 + across * x1, y0 + (1 - up) * y1])
    )


def dots(points: Cloud) -> Image.Image:
    """Draw the points of a scatter plot, without axes: the densest on top, of those that hide each other only one."""
    order = np.argsort(-points.density, kind="stable")
    columns, rows = DRAWN_CELLS
    cell = (_unit(points.x, points.limits_x) * columns).astype(np.int64) * (rows + 1)
    cell += (_unit(points.y, points.limits_y) * rows).astype(np.int64)
    # The first of each cell is the densest.
    kept = order[np.unique(cell[order], return_index=True)[1]]
    kept = kept[np.argsort(points.density[kept], kind="stable")]
    size = np.interp(math.log10(len(points.x)), [0, 2, 4, 5], [30, 20, 7, 3])
    left, top, right, bottom = _box_in_picture()
    figure = Figure(figsize=((right - left) / PICTURE_DPI, (bottom - top) / PICTURE_DPI), dpi=PICTURE_DPI)
    figure.set_facecolor("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(*points.limits_x)
    axes.set_ylim(*points.limits_y)
    axes.scatter(points.x[kept], points.y[kept], s=size, c=DENSITY_COLOURS(points.density[kept]), linewidths=0)
    return _drawn(figure)


def picture(points: Cloud, raster: Image.Image, labels: tuple[str, str], *, paper: bool = False) -> bytes:
    """Draw the scatter plot as a PNG of 900 x 634 pixels.

    Parameters
    ----------
    points
        The events.
    raster
        They drawn, see `dots`.
    labels
        Of the axes.
    paper
        Black on white; else grey on a transparent ground, which suits any page.
    """
    colours = {MUTED: "#333333", LINE: "#cccccc"} if paper else {MUTED: GREY, LINE: f"{GREY}55"}
    with mpl.rc_context(_style(11.0, colours)):
        width, height = PICTURE_SIZE
        figure = Figure(figsize=(width / PICTURE_DPI, height / PICTURE_DPI), dpi=PICTURE_DPI)
        figure.set_facecolor("white" if paper else "none")
        _prepare(figure.add_axes(SCATTER_BOX), points, labels)
        image = _drawn(figure)
    image.alpha_composite(raster, _box_in_picture()[:2])
    return _few_colours(image.convert("RGB") if paper else image)


def thumbnail(points: Cloud) -> bytes:
    """Return the scatter plot as a tiny PNG: 96 x 64 pixels in a few colours on a transparent ground."""
    width, height = THUMBNAIL_SIZE
    across = np.minimum((_unit(points.x, points.limits_x) * width).astype(np.int64), width - 1)
    down = height - 1 - np.minimum((_unit(points.y, points.limits_y) * height).astype(np.int64), height - 1)
    pixels = np.zeros((height, width), np.uint8)
    level = 1 + np.minimum((points.density * THUMBNAIL_COLOURS).astype(np.uint8), THUMBNAIL_COLOURS - 1)
    # Single pixels would vanish, so every event takes two by two; the densest come last.
    for row, column in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        np.maximum.at(pixels, (np.maximum(down + row, 0), np.maximum(across + column, 0)), level)
    image = Image.fromarray(pixels, "P")
    colours = np.round(DENSITY_COLOURS(np.linspace(0, 1, THUMBNAIL_COLOURS))[:, :3] * 255).astype(np.uint8)
    image.putpalette(b"\0\0\0" + colours.tobytes())
    return as_png(image, transparency=0, bits=3)


def histogram(values: Floats, label: str, median: float | None, key: str) -> Plot | None:
    """Draw how often which values occur; None if none is finite.

    Parameters
    ----------
    values
        One for each event.
    label
        Of the value axis.
    median
        Marked by a line, if there is one.
    key
        Tells this plot from the others of the page.
    """
    ends = limits(values)
    if ends is None:
        return None
    finite = values[np.isfinite(values)]
    quarter, three_quarters = np.percentile(finite, (25, 75))
    # Freedman and Diaconis' rule, within what can be read at this size
    width = 2 * (three_quarters - quarter) * finite.size ** (-1 / 3)
    bins = int(np.clip((ends[1] - ends[0]) / width, FEWEST_BINS, MOST_BINS)) if width > 0 else FEWEST_BINS
    counts, edges = np.histogram(finite, bins, range=ends)

    def draw(axes: Axes) -> None:
        axes.stairs(counts, edges, fill=True, facecolor=ACCENT, alpha=0.75)
        if median is not None and ends[0] <= median <= ends[1]:
            axes.axvline(median, color=STRONG, linewidth=1.4, dashes=(4, 2))
        axes.set_xlim(*ends)
        axes.set_ylim(0, max(1.05 * counts.max(), 1))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.grid(visible=False, axis="x")
        _name_axes(axes, label, "events")

    return _small(draw, key)


def course(time: Sequence[float], values: Sequence[float | None], label: str, key: str, *, rate: bool) -> Plot | None:
    """Draw how something changes over time; None if there are no two points to join.

    Parameters
    ----------
    time
        Middle of each interval [s].
    values
        One for each interval; None and NaN leave a gap.
    label
        Of the value axis.
    key
        Tells this plot from the others of the page.
    rate
        The axis begins at zero, and the space below the line is filled.
    """
    x = np.array(time, np.float64)
    y = np.array([np.nan if value is None else value for value in values], np.float64)
    finite = y[np.isfinite(x) & np.isfinite(y)]
    if finite.size < 2:
        return None

    def draw(axes: Axes) -> None:
        axes.plot(x, y, color=ACCENT, linewidth=1.6)
        if rate:
            axes.fill_between(x, y, color=ACCENT, alpha=0.2, linewidth=0)
            axes.set_ylim(0, max(1.1 * finite.max(), 1e-9))
        else:
            middle = (finite.min() + finite.max()) / 2
            half = max(0.6 * (finite.max() - finite.min()), FEWEST_GREY_LEVELS / 2)
            axes.set_ylim(middle - half, middle + half)
        axes.set_xlim(*_ends(x))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(3))
        _name_axes(axes, "time [s]", label)

    return _small(draw, key, width=440, height=190)


def as_png(image: Image.Image, **options: Any) -> bytes:
    """Return an image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def _ends(x: Floats) -> Limits:
    low, high = float(np.nanmin(x)), float(np.nanmax(x))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _prepare(axes: Axes, points: Cloud, labels: tuple[str, str]) -> None:
    """Give axes the limits, ticks and names of a scatter plot."""
    axes.set_xlim(*points.limits_x)
    axes.set_ylim(*points.limits_y)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    _name_axes(axes, *labels)


def _box_in_picture() -> tuple[int, int, int, int]:
    """Return the part of the picture between the axes [px]: left, top, right, bottom."""
    (width, height), (left, bottom, across, up) = PICTURE_SIZE, SCATTER_BOX
    return (
        round(left * width),
        round((1 - bottom - up) * height),
        round((left + across) * width),
        round((1 - bottom) * height),
    )


def _drawn(figure: Figure) -> Image.Image:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return Image.fromarray(np.array(canvas.buffer_rgba()))  # type: ignore[no-untyped-call]


def _few_colours(image: Image.Image) -> bytes:
    """Return a PNG with a palette, a quarter of the size of one without."""
    return as_png(image.quantize(PALETTE, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE))


def _small(draw: Callable[[Axes], None], key: str, *, width: int = 270, height: int = 185) -> Plot:
    """Draw one of the small plots."""
    with mpl.rc_context(_style(11.0)):
        figure = Figure(figsize=(width / 72, height / 72))
        left, bottom = 58 / width, 39 / height
        draw(figure.add_axes((left, bottom, 1 - left - 8 / width, 1 - bottom - 8 / height)))
        return _as_svg(figure, key)


def _name_axes(axes: Axes, x: str, y: str) -> None:
    # A "$" in a name is no formula.
    axes.set_xlabel(x, parse_math=False)
    axes.set_ylabel(y, parse_math=False)
    # Beside the ticks they would have to be measured first, which takes as long as drawing them.
    box = axes.get_position()
    figure = axes.figure
    axes.xaxis.set_label_coords((box.x0 + box.x1) / 2, 0.02, transform=figure.transFigure)
    axes.xaxis.label.set_verticalalignment("bottom")
    axes.yaxis.label.set_verticalalignment("top")
    axes.yaxis.set_label_coords(0.015, (box.y0 + box.y1) / 2, transform=figure.transFigure)


def _style(font_size: float, colours: Mapping[str, str] | None = None) -> Any:
    """Return matplotlib's settings for one plot; a dictionary whose keys only newer versions have types for."""
    muted, line = ((colours or {}).get(colour, colour) for colour in (MUTED, LINE))
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
        "figure.facecolor": "none",
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


def _as_svg(figure: Figure, key: str) -> Plot:
    """Return what matplotlib draws as the inside of an ``<svg>`` element for a page that has several of them.

    To be called with the settings of `_style`.
    """
    buffer = io.StringIO()
    # Names in the drawing are hashes of this and their content: the same each time, and unlike those of other plots.
    mpl.rcParams["svg.hashsalt"] = key
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    FigureCanvasSVG(figure).print_svg(buffer, metadata=nothing)  # type: ignore[no-untyped-call]
    text = buffer.getvalue()
    text = text[text.index(">", text.index("<svg")) + 1 : text.rindex("</svg>")]
    # Its style sheet would hold for the whole page, and what it calls its groups is the same in each plot.
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r"<!--.*?-->|\n\s*", "", text, flags=re.DOTALL)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    width, height = figure.get_size_inches() * 72
    return Plot(text, float(width), float(height))
