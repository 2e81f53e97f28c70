"""The pictures of a report: cells with their contours, and the background."""

from __future__ import annotations

import dataclasses
import io
from typing import Protocol

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from PIL import Image
from skimage.measure import find_contours

from dcnumd.report.cloud import Cloud
from dcnumd.report.scatter import as_png

Frame = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

CANDIDATES = 20_000
"""Largest number of events from which cells are chosen."""
TAMENESS = 0.3
"""Preference for events in dense regions: 0 chooses the edge of the cloud, large values choose its middle."""
MARGIN = 6
"""Margin around the largest cell [px]."""
LARGEST_TILE = (160, 240)
"""Largest number of rows and columns of a tile; larger cells are cut [px]."""
SHEET_COLUMNS = 16
FRINGE = 1
"""Width of a copy of each tile's edge around it, which keeps neighbours from blending in when it is enlarged [px]."""
CLUMP = 2.2
"""Size above which a cell is cut, as a multiple of the median size."""
JPEG_QUALITY = 82
LEAST_CONTRAST = 16.0
SHORTEST_CONTOUR = 6
"""Smallest number of points of an outline that is drawn."""
BACKGROUNDS = 20
"""Largest number of events, evenly spread, whose backgrounds are averaged."""
LEAST_CHANGE = 10.0
"""Smallest change that is shown by the full colour [grey levels]."""


class Images(Protocol):
    """The pictures of a result. Each method returns None if there is no picture that can be read."""

    def image(self, index: int) -> Frame | None:
        """Return the frame of an event, of shape (y, x)."""

    def mask(self, index: int) -> Mask | None:
        """Return the mask of an event, of shape (y, x)."""

    def background(self, index: int) -> Frame | None:
        """Return the background of an event, of shape (y, x)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the gallery.

    Attributes
    ----------
    event
        Number of the event in the result.
    left, top
        Position of the cell's tile in the sheet [px].
    contour
        SVG path data in half pixels of the sheet; empty without a mask.
    """

    event: int
    left: int
    top: int
    contour: str


@dataclasses.dataclass(frozen=True, slots=True)
class Gallery:
    """Pictures of cells, on one sheet.

    Attributes
    ----------
    cells
        The cells in the requested order.
    sheet
        JPEG with the tiles of all cells.
    width, height
        Size of the sheet [px].
    tile
        Width and height of a tile [px].
    without_image
        Number of requested events whose image cannot be read.
    without_mask
        Number of cells without a contour.
    """

    cells: tuple[Cell, ...]
    sheet: bytes
    width: int
    height: int
    tile: tuple[int, int]
    without_image: int
    without_mask: int


@dataclasses.dataclass(frozen=True, slots=True)
class BackgroundPictures:
    """The background during a measurement.

    Attributes
    ----------
    mean
        PNG of the mean background.
    change
        PNG of the last background minus the first, from blue (darker) to red (brighter); empty if they are equal.
    width, height
        Size of both pictures [px].
    largest
        Largest absolute change of a pixel [grey levels].
    scale
        Change that is shown by the full colour [grey levels].
    """

    mean: bytes
    change: bytes
    width: int
    height: int
    largest: float
    scale: float


def choose(points: Cloud, count: int) -> npt.NDArray[np.int64]:
    """Choose events that are spread over a plot; the choice is reproducible.

    The first one is the event with the highest density. Each further one is the event with the largest distance from
    those chosen before, where distances in regions of low density are reduced.

    Parameters
    ----------
    points
        The data of the plot.
    count
        Number of events to choose.

    Returns
    -------
    events
        Numbers of the events in the result, sorted by their x values (int64 of shape (at most `count`,)).
    """
    count = min(count, points.index.size)
    if count <= 0:
        return np.empty(0, np.int64)
    candidates = np.unique(np.linspace(0, points.index.size - 1, max(CANDIDATES, count)).astype(np.int64))
    if points.index.size <= max(CANDIDATES, count):
        candidates = np.arange(points.index.size)
    x, y, density = points.x[candidates], points.y[candidates], points.density[candidates]
    x = (x - points.limits_x[0]) / (points.limits_x[1] - points.limits_x[0])
    y = (y - points.limits_y[0]) / (points.limits_y[1] - points.limits_y[0])
    weight = np.maximum(density, 1e-6) ** (2 * TAMENESS)
    distance = np.full(candidates.size, np.inf)
    chosen = [int(np.argmax(density))]
    while len(chosen) < count:
        last = chosen[-1]
        np.minimum(distance, (x - x[last]) ** 2 + (y - y[last]) ** 2, out=distance)
        # Why not its distance of 0: events with equal values have that, too, and the same event would be chosen again.
        distance[last] = -1.0
        chosen.append(int(np.argmax(distance * weight)))
    at = candidates[np.array(chosen)]
    events: npt.NDArray[np.int64] = points.index[at[np.lexsort((points.y[at], points.x[at]))]]
    return events


def make_gallery(images: Images, events: npt.NDArray[np.int64]) -> Gallery | None:
    """Cut cells out of their frames, and return them; None if no image can be read.

    Parameters
    ----------
    images
        The source of the images.
    events
        Numbers of the events to show.
    """
    found: dict[int, tuple[Frame, Mask | None]] = {}
    # Images are read in the order of the file, so that a chunk with several of them is unpacked once.
    for event in sorted(int(event) for event in events):
        frame = images.image(event)
        if frame is not None and frame.size:
            mask = images.mask(event)
            # A mask of another size cannot belong to this frame.
            found[event] = (frame, mask if mask is not None and mask.shape == frame.shape else None)
    shown = [int(event) for event in events if int(event) in found]
    if not shown:
        return None
    boxes = {event: _box(mask, frame.shape) for event, (frame, mask) in found.items()}
    height, width = _tile_size([boxes[event] for event in shown], [found[event][0].shape for event in shown])
    columns = min(SHEET_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    step_y, step_x = height + 2 * FRINGE, width + 2 * FRINGE
    sheet = np.zeros((rows * step_y, columns * step_x), np.float32)
    cells = []
    for place, event in enumerate(shown):
        frame, mask = found[event]
        window = _window(boxes[event], frame.shape, (height, width))
        top, left = place // columns * step_y, place % columns * step_x
        crop = frame[window]
        padding = [(FRINGE, step - FRINGE - size) for step, size in zip((step_y, step_x), crop.shape, strict=True)]
        sheet[top : top + step_y, left : left + step_x] = np.pad(crop, padding, mode="edge")
        top, left = top + FRINGE, left + FRINGE
        cells.append(Cell(event, left, top, "" if mask is None else contour_path(mask[window], left, top)))
    return Gallery(
        cells=tuple(cells),
        sheet=as_jpeg(grey_picture(sheet, grey_range(sheet))),
        width=sheet.shape[1],
        height=sheet.shape[0],
        tile=(width, height),
        without_image=len(events) - len(shown),
        without_mask=sum(not cell.contour for cell in cells),
    )


def contour_path(mask: Mask, left: int, top: int) -> str:
    """Return the outline of a mask as SVG path data, in half pixels.

    Parameters
    ----------
    mask
        Of shape (y, x).
    left, top
        Position of the mask's corner in the sheet [px].
    """
    parts = []
    outlines = find_contours(np.pad(mask, 1).astype(np.float32), 0.5)  # type: ignore[no-untyped-call]
    for outline in outlines:
        if len(outline) < SHORTEST_CONTOUR:
            continue
        # All points lie between two pixels, so they are whole numbers of half pixels; the first pixel's centre is 0.5.
        points = np.rint(2 * (outline[:, ::-1] + (left - 0.5, top - 0.5))).astype(np.int64)
        steps = np.diff(points, axis=0)
        # Only the points where the direction changes are kept.
        corners = points[1:][np.any(steps != np.roll(steps, -1, axis=0), axis=1)]
        moves = " ".join(map(str, np.diff(corners, axis=0).ravel().tolist()))
        parts.append(f"M{corners[0, 0]} {corners[0, 1]}l{moves}z".replace(" -", "-"))
    return "".join(parts)


def background_pictures(images: Images, events: int) -> BackgroundPictures | None:
    """Return pictures of the background and of its change; None if no background can be read.

    Parameters
    ----------
    images
        The source of the backgrounds.
    events
        Number of events.
    """
    if events <= 0:
        return None
    wanted = np.unique(np.linspace(0, events - 1, min(events, BACKGROUNDS)).astype(np.int64))
    frames = [frame for event in wanted if (frame := images.background(int(event))) is not None and frame.size]
    return pictures_of_backgrounds([frame.astype(np.float32) for frame in frames if frame.shape == frames[0].shape])


def pictures_of_backgrounds(frames: list[npt.NDArray[np.float32]]) -> BackgroundPictures | None:
    """Return pictures of the mean of backgrounds, and of the change from the first to the last; None without any.

    Parameters
    ----------
    frames
        Backgrounds in the order of time, all of shape (y, x) [grey levels].
    """
    if not frames:
        return None
    change = frames[-1] - frames[0]
    largest = float(np.abs(change).max())
    scale = max(largest, LEAST_CHANGE)
    height, width = change.shape
    picture = b""
    if largest > 0:
        colours = mpl.colormaps["RdBu_r"](0.5 + change / (2 * scale), bytes=True)
        picture = as_png(Image.fromarray(colours[..., :3]))
    mean = np.mean(frames, axis=0)
    return BackgroundPictures(as_png(grey_picture(mean, grey_range(mean))), picture, width, height, largest, scale)


def _box(mask: Mask | None, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return first and end row, first and end column of a cell (ends exclusive); without a mask, of the frame."""
    if mask is not None and mask.any():
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    return 0, shape[0], 0, shape[1]


def _tile_size(boxes: list[tuple[int, int, int, int]], shapes: list[tuple[int, ...]]) -> tuple[int, int]:
    """Return the number of rows and columns of a tile: those of the largest cell with a margin, within limits."""
    sizes = np.array([(bottom - top, right - left) for top, bottom, left, right in boxes])
    # Without this limit, one clump of cells would make all others tiny.
    height, width = (int(size) + 2 * MARGIN for size in np.minimum(sizes.max(axis=0), CLUMP * np.median(sizes, axis=0)))
    # Tiles are shown side by side, and look best if they are not much wider than high.
    width, height = max(width, height), max(height, round(0.7 * width))
    rows, columns = (max(shape[axis] for shape in shapes) for axis in (0, 1))
    return min(height, rows, LARGEST_TILE[0]), min(width, columns, LARGEST_TILE[1])


def _window(box: tuple[int, int, int, int], shape: tuple[int, ...], tile: tuple[int, int]) -> tuple[slice, slice]:
    """Return the part of a frame that a tile shows: centred on the cell, but shifted to lie within the frame."""
    slices = []
    for first, last, length, size in zip(box[::2], box[1::2], shape, tile, strict=True):
        start = int(np.clip((first + last - size) // 2, 0, max(length - size, 0)))
        slices.append(slice(start, min(start + size, length)))
    return slices[0], slices[1]


def grey_range(image: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Return the grey levels to show as black and white; at least `LEAST_CONTRAST` apart, so that noise stays grey."""
    low, high = (float(end) for end in np.percentile(image, (0.1, 99.9)))
    if high - low < LEAST_CONTRAST:
        middle = (low + high) / 2
        low, high = middle - LEAST_CONTRAST / 2, middle + LEAST_CONTRAST / 2
    return low, high


def grey_picture(image: npt.NDArray[np.float32], ends: tuple[float, float]) -> Image.Image:
    """Return grey values as an image, stretched from the range `ends` to that from black to white."""
    low, high = ends
    stretched = np.clip((image - low) * (255 / (high - low)), 0, 255)
    return Image.fromarray(stretched.astype(np.uint8))


def as_jpeg(image: Image.Image) -> bytes:
    """Return an image as the content of a JPEG file. Why not a PNG: noise makes it five times as large."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
