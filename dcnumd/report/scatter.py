"""The scatter plot, for the page, as a picture and as a thumbnail."""

from __future__ import annotations

import base64
import dataclasses
import functools
import io
import math
from typing import Any, NamedTuple, Self

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from dcnumd.report.cloud import Cloud, Limits, unit, visible_parts
from dcnumd.report.plots import ON_PAPER, Palette, Plot, as_svg, name_axes, style

Box = tuple[float, float, float, float]
"""Position and size of the axes in a drawing: left, top, width, height."""

GREY = "#7d858f"
"""Colour that is readable on white and on black, for pictures that may be shown on either."""

DENSITY_COLOURS: ListedColormap | LinearSegmentedColormap = ListedColormap(
    mpl.colormaps["viridis"](np.linspace(0.22, 0.95, 64))
)
"""Colours from low to high density. The darkest part of the colour map is left out: it would vanish in dark mode."""

DRAWN_CELLS = (480, 360)
"""Number of grid cells across and up; only one of the points in a grid cell is drawn."""
SCATTER_SIZE, SCATTER_BOX = (420, 296), (0.14, 0.145, 0.82, 0.83)
"""Size of the plot's view box, and the part of it within the axes, as shares: left, bottom, width, height."""
PICTURE_SIZE = (900, 634)
"""Width and height of the picture, with the proportions of `SCATTER_SIZE` [px]."""
PICTURE_DPI = 150
PALETTE = 160
FEWEST_TICKS, MOST_TICKS = 3, 8
"""Number of ticks of a logarithmic axis."""
PACKING = 4
"""Level of the compression of pictures; higher ones take up to ten times as long for a few percent."""
SOLID, DASHES = 0.5, (4.0, 2.5)
"""Share of the events whose contour is a solid line, and dashes of the others: their length, and that of the gaps
[line widths]."""
HALO = 2.6
"""Width of the bright or dark edge of a line, which sets it off from points of any colour [line widths]."""
ISOLINE_FONT = 8.0
"""Size of the labels of isoelasticity lines in the picture [pt]."""
LABEL_ROOM = (0.07, 0.04)
"""Width and height that the label of an isoelasticity line needs, relative to the axes."""
THUMBNAIL_SIZE = (96, 64)
THUMBNAIL_COLOURS = 7


class _Scales(NamedTuple):
    """The scales of both axes of a scatter plot."""

    x: Limits
    y: Limits
    logarithmic: bool
    """Whether the values on the y axis are logarithms."""

    @classmethod
    def of(cls, points: Cloud) -> Self:
        return cls(points.limits_x, points.limits_y, points.logarithmic)


def plot(points: Cloud, raster: Image.Image, labels: tuple[str, str], marked: npt.NDArray[np.int64], key: str) -> Plot:
    """Draw a scatter plot, coloured by density.

    Parameters
    ----------
    points
        The data of the plot.
    raster
        The drawing of the points by `dots`.
    labels
        Labels of the x and the y axis.
    marked
        Numbers of the events whose positions in the plot are returned; all must be in `points`.
    key
        Unique name of this plot on the page.
    """
    with mpl.rc_context(style(11.0)):
        figure = Figure(figsize=(SCATTER_SIZE[0] / 72, SCATTER_SIZE[1] / 72))
        _prepare(figure.add_axes(SCATTER_BOX), _Scales.of(points), labels)
        axes = as_svg(figure, key)
    left, top, width, height = box_in(axes.width, axes.height)
    at = np.searchsorted(points.index, marked)
    across, up = unit(points.x[at], points.limits_x), unit(points.y[at], points.limits_y)
    data = base64.b64encode(_few_colours(raster)).decode()
    # Why the points are an image: thousands of shapes would be many times larger, and slow in every browser.
    inside = f'<image x="{left}" y="{top}" width="{width}" height="{height}" href="data:image/png;base64,{data}"/>'
    lines = _isolines_as_svg(points, (left, top, width, height)) + _contours_as_svg(points, (left, top, width, height))
    return dataclasses.replace(
        axes,
        svg=axes.svg + inside + lines,
        points=np.column_stack([left + across * width, top + (1 - up) * height]),
        as_png=functools.partial(picture, points, raster, labels, paper=True),
    )


def box_in(width: float, height: float) -> Box:
    """Return the part of a drawing within its axes: left, top, width, height, in the unit of the arguments."""
    left, bottom, across, up = SCATTER_BOX
    return left * width, (1 - bottom - up) * height, across * width, up * height


def _contours_as_svg(points: Cloud, box: Box) -> str:
    """Return the contour lines within the axes at `box`, as markup."""
    lines = []
    for contour in points.contours:
        path = "".join(_path(part, box) for part in contour.parts)
        dashes = "" if contour.share == SOLID else f";stroke-dasharray:{DASHES[0]:g} {DASHES[1]:g}"
        for colour, look in (("card", f";stroke-width:{HALO:g};stroke-opacity:0.7"), ("fg", dashes)):
            lines.append(f'<path d="{path}" style="fill:none;stroke:var(--{colour}){look}"/>')
    return "".join(lines)


def _isolines_as_svg(points: Cloud, box: Box) -> str:
    """Return the isoelasticity lines with their labels within the axes at `box`, as markup."""
    left, top, width, height = box
    path = "".join(_path(part, box) for line in points.isolines for part in visible_parts(points, line))
    # Each label has an edge of the colour of the background, so that it can be read on a line or on points.
    look = "fill:var(--muted);text-anchor:end;stroke:var(--card);stroke-width:2;paint-order:stroke"
    labels = "".join(
        f'<text class="modulus" x="{left + x * width - 2:.1f}" y="{top + (1 - y) * height - 2:.1f}" '
        f'style="{look}">{text}</text>'
        for text, x, y in _isoline_labels(points)
    )
    return f'<path d="{path}" style="fill:none;stroke:var(--muted);stroke-width:0.8"/>{labels}' if path else ""


def _isoline_labels(points: Cloud) -> list[tuple[str, float, float]]:
    """Return text and place, relative to the axes, of the labels of isoelasticity lines that have enough room."""
    labels: list[tuple[str, float, float]] = []
    for line in points.isolines:
        for part in visible_parts(points, line)[-1:]:
            x, y = part[np.argmax(part[:, 0])].tolist()
            if all(
                abs(x - other_x) > LABEL_ROOM[0] or abs(y - other_y) > LABEL_ROOM[1] for _, other_x, other_y in labels
            ):
                labels.append((f"{line.modulus_kpa:.2f}", max(x, LABEL_ROOM[0]), min(y, 1 - LABEL_ROOM[1])))
    return labels


def _path(part: npt.NDArray[np.float64], box: Box) -> str:
    """Return the data of a path through points whose positions are relative to the axes at `box`."""
    left, top, width, height = box
    return "M" + " ".join(f"{left + x * width:.1f} {top + (1 - y) * height:.1f}" for x, y in part.tolist())


def dots(points: Cloud) -> Image.Image:
    """Draw the points of a scatter plot without axes, the densest on top; of points in one grid cell, only one."""
    order = np.argsort(-points.density, kind="stable")
    columns, rows = DRAWN_CELLS
    cell = (unit(points.x, points.limits_x) * columns).astype(np.int64) * (rows + 1)
    cell += (unit(points.y, points.limits_y) * rows).astype(np.int64)
    # The first point of each grid cell is the densest.
    kept = order[np.unique(cell[order], return_index=True)[1]]
    kept = kept[np.argsort(points.density[kept], kind="stable")]
    size = np.interp(math.log10(len(points.x)), [0, 2, 4, 5], [30, 20, 7, 3])
    figure = _bare_figure()
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(*points.limits_x)
    axes.set_ylim(*points.limits_y)
    axes.scatter(points.x[kept], points.y[kept], s=size, c=DENSITY_COLOURS(points.density[kept]), linewidths=0)
    return _drawn(figure)


def _lines_as_image(points: Cloud) -> Image.Image:
    """Draw all lines without axes. Contours are dark with a bright edge, which is readable on any background."""
    figure = _bare_figure()
    # Why not on axes: making them takes longer than drawing the lines. The figure has the extent of the axes.
    within = figure.transFigure
    isolines = [part for line in points.isolines for part in visible_parts(points, line)]
    figure.add_artist(LineCollection(isolines, colors=GREY, linewidths=0.8, transform=within))
    look = {"color": GREY, "horizontalalignment": "right", "fontsize": ISOLINE_FONT, "fontfamily": "DejaVu Sans"}
    for text, x, y in _isoline_labels(points):
        figure.text(x - 0.006, y + 0.008, text, look)
    for contour in points.contours:
        dashes = "solid" if contour.share == SOLID else [(0, DASHES)]
        edge = LineCollection(contour.parts, colors="white", alpha=0.7, linewidths=HALO, transform=within)
        line = LineCollection(contour.parts, colors="#171b21", linewidths=1, linestyles=dashes, transform=within)
        figure.add_artist(edge)
        figure.add_artist(line)
    return _drawn(figure)


def _bare_figure() -> Figure:
    """Return an empty, transparent figure of the size of the axes in the picture."""
    left, top, right, bottom = _box_in_picture()
    figure = Figure(figsize=((right - left) / PICTURE_DPI, (bottom - top) / PICTURE_DPI), dpi=PICTURE_DPI)
    figure.set_facecolor("none")
    return figure


def picture(points: Cloud, raster: Image.Image, labels: tuple[str, str], *, paper: bool = False) -> bytes:
    """Return the scatter plot as a PNG of 900 x 634 pixels.

    Parameters
    ----------
    points
        The data of the plot.
    raster
        The drawing of the points by `dots`.
    labels
        Labels of the x and the y axis.
    paper
        Whether axes are black on white, instead of grey on a transparent background, which suits any page.
    """
    image = _axes_as_image(_Scales.of(points), labels, paper=paper).copy()
    image.alpha_composite(raster, _box_in_picture()[:2])
    if points.contours or points.isolines:
        image.alpha_composite(_lines_as_image(points), _box_in_picture()[:2])
    return _few_colours(image.convert("RGB") if paper else image)


@functools.lru_cache(maxsize=4)
def _axes_as_image(scales: _Scales, labels: tuple[str, str], *, paper: bool) -> Image.Image:
    """Draw the axes of the picture. Most results have the same axes, and drawing them takes longer than the points."""
    colours = ON_PAPER if paper else Palette(GREY, f"{GREY}55", GREY, GREY)
    with mpl.rc_context(style(11.0, colours)):
        width, height = PICTURE_SIZE
        figure = Figure(figsize=(width / PICTURE_DPI, height / PICTURE_DPI), dpi=PICTURE_DPI)
        _prepare(figure.add_axes(SCATTER_BOX), scales, labels)
        return _drawn(figure)


def thumbnail(points: Cloud) -> bytes:
    """Return the scatter plot as a PNG of 96 x 64 pixels, in a few colours on a transparent background."""
    width, height = THUMBNAIL_SIZE
    across = np.minimum((unit(points.x, points.limits_x) * width).astype(np.int64), width - 1)
    down = height - 1 - np.minimum((unit(points.y, points.limits_y) * height).astype(np.int64), height - 1)
    pixels = np.zeros((height, width), np.uint8)
    level = 1 + np.minimum((points.density * THUMBNAIL_COLOURS).astype(np.uint8), THUMBNAIL_COLOURS - 1)
    # Each event is drawn as two by two pixels, since single ones would be hard to see; the highest density wins.
    for row, column in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        np.maximum.at(pixels, (np.maximum(down + row, 0), np.maximum(across + column, 0)), level)
    image = Image.fromarray(pixels, "P")
    colours = np.round(DENSITY_COLOURS(np.linspace(0, 1, THUMBNAIL_COLOURS))[:, :3] * 255).astype(np.uint8)
    image.putpalette(b"\0\0\0" + colours.tobytes())
    return as_png(image, transparency=0, bits=3)


def as_png(image: Image.Image, **options: Any) -> bytes:
    """Return an image as the content of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def _prepare(axes: Axes, scales: _Scales, labels: tuple[str, str]) -> None:
    """Set limits, ticks and labels of the axes of a scatter plot."""
    axes.set_xlim(*scales.x)
    axes.set_ylim(*scales.y)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    if scales.logarithmic:
        ticks = _decimal_ticks(scales.y)
        axes.set_yticks(ticks, [f"{10**tick:,.6g}" for tick in ticks])
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))
    name_axes(axes, *labels)


def _decimal_ticks(ends: Limits) -> list[float]:
    """Return the ticks of an axis of decimal logarithms: of round numbers, and not too many."""
    decades = range(math.floor(ends[0]), math.ceil(ends[1]) + 1)
    ticks: list[float] = []
    for digits in ((1,), (1, 3), (1, 2, 5), range(1, 10)):
        ticks = [decade + math.log10(digit) for decade in decades for digit in digits]
        ticks = [tick for tick in ticks if ends[0] <= tick <= ends[1]]
        if len(ticks) >= FEWEST_TICKS:
            break
    return ticks[:: 1 + len(ticks) // MOST_TICKS]


def _box_in_picture() -> tuple[int, int, int, int]:
    """Return the part of the picture within its axes [px]: left, top, right, bottom."""
    left, top, width, height = box_in(*PICTURE_SIZE)
    return round(left), round(top), round(left + width), round(top + height)


def _drawn(figure: Figure) -> Image.Image:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return Image.fromarray(np.array(canvas.buffer_rgba()))  # type: ignore[no-untyped-call]


def _few_colours(image: Image.Image) -> bytes:
    """Return an image as a PNG with a palette, which has a quarter of the size of one without."""
    reduced = image.quantize(PALETTE, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    return as_png(reduced, compress_level=PACKING)
