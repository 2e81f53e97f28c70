"""Pictures of text characters for a terminal."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import rich.text

CONTOUR_COLOUR = (64, 255, 128)
FRAME_ROWS = 40

BRAILLE_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
"""The bit of each dot in a Braille character, (row, column)."""

BRAILLE_BASE = 0x2800


def frame_picture(image: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_], *, columns: int) -> rich.text.Text:
    """Draw the region around an event with half blocks, with its contour in colour.

    Parameters
    ----------
    image
        One frame, uint8 (y, x).
    mask
        The event's mask, bool (y, x).
    columns
        Width of the picture in characters; a character is one pixel wide and two pixels high.
    """
    rows_in_mask, columns_in_mask = np.nonzero(mask)
    top = _window_start(rows_in_mask, FRAME_ROWS, image.shape[0])
    left = _window_start(columns_in_mask, columns, image.shape[1])
    window = np.s_[top : top + FRAME_ROWS, left : left + columns]
    inner = mask.copy()
    inner[1:] &= mask[:-1]
    inner[:-1] &= mask[1:]
    inner[:, 1:] &= mask[:, :-1]
    inner[:, :-1] &= mask[:, 1:]
    colours = np.repeat(image[window][..., np.newaxis], 3, axis=2)
    colours[(mask & ~inner)[window]] = CONTOUR_COLOUR
    picture = rich.text.Text()
    for upper, lower in zip(colours[0:-1:2], colours[1::2], strict=True):
        for above, below in zip(upper, lower, strict=True):
            picture.append("▀", style=f"rgb({_rgb(above)}) on rgb({_rgb(below)})")
        picture.append("\n")
    return picture


def _window_start(indices: npt.NDArray[np.int64], extent: int, limit: int) -> int:
    """Return the start of a window that is centred on the indices and does not exceed the limit."""
    centre = (int(indices.min()) + int(indices.max())) // 2
    return max(0, min(centre - extent // 2, limit - extent))


def _rgb(colour: npt.NDArray[np.uint8]) -> str:
    return ",".join(str(int(part)) for part in colour)


def scatter_picture(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], *, columns: int, rows: int
) -> rich.text.Text:
    """Draw points as Braille dots, with the range of both axes.

    Parameters
    ----------
    x, y
        Coordinates of the points, (point,); outliers and points that are not finite are left out.
    columns, rows
        Size of the picture in characters.
    """
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    if not len(x):
        return rich.text.Text("(nothing to show)\n")
    (x_low, x_high), (y_low, y_high) = (np.quantile(values, [0.0, 0.995], method="higher") for values in (x, y))
    shown = (x <= x_high) & (y <= y_high)
    column = np.rint((x[shown] - x_low) / max(x_high - x_low, 1e-12) * (2 * columns - 1)).astype(int)
    row = np.rint((y_high - y[shown]) / max(y_high - y_low, 1e-12) * (4 * rows - 1)).astype(int)
    cells = np.zeros((rows, columns), int)
    np.bitwise_or.at(cells, (row // 4, column // 2), BRAILLE_DOTS[row % 4, column % 2])
    picture = rich.text.Text()
    for index, line in enumerate(cells):
        label = f"{y_high:7.3f} " if index == 0 else f"{y_low:7.3f} " if index == rows - 1 else " " * 8
        picture.append(label + "│", style="dim")
        picture.append("".join(chr(BRAILLE_BASE + int(cell)) for cell in line) + "\n", style="bright_cyan")
    picture.append(" " * 8 + "└" + "─" * columns + "\n", style="dim")
    right = f"{x_high:.1f}"
    picture.append(" " * 9 + f"{x_low:<{columns - len(right)}.1f}{right}\n", style="dim")
    return picture
