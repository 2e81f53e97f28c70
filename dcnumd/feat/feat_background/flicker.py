"""Detection of flickering illumination."""

from __future__ import annotations

import numpy as np

from dcnumd.errors import MethodError
from dcnumd.feat.feat_background.frames import ReadFrames

FLICKER_FRAMES = 1000
FLICKER_ROWS = 10
FLICKER_BRIGHTNESS = 2.5
"""Smallest difference from the median brightness that counts as flicker [grey values]."""
FLICKER_COUNT = 5
READ_BATCH = 100


def has_flicker(read_frames: ReadFrames, n_frames: int) -> bool:
    """Return whether the brightness of single frames differs from the others.

    The brightness of a frame is the median of its rows 0 to 9, which contain no cells. The illumination flickers if at
    least 5 of the first 1000 frames differ by 2.5 or more from the median of these frames.

    Parameters
    ----------
    read_frames
        Returns frames start … stop - 1, uint8 of shape (stop - start, y, x).
    n_frames
        Number of frames in the measurement.
    """
    count = min(n_frames, FLICKER_FRAMES)
    brightness = np.empty(count, np.float64)
    for start in range(0, count, READ_BATCH):
        stop = min(start + READ_BATCH, count)
        wall = read_frames(start, stop)[:, :FLICKER_ROWS]
        brightness[start:stop] = np.median(wall.reshape(stop - start, -1), axis=1)
    if not count:
        return False
    deviation = np.abs(brightness - np.median(brightness))
    return int(np.count_nonzero(deviation >= FLICKER_BRIGHTNESS)) >= FLICKER_COUNT


def resolve_offset_correction(value: bool | str | None, read_frames: ReadFrames, n_frames: int) -> bool:
    """Return whether to compute an offset for each frame.

    Parameters
    ----------
    value
        True or False, which is returned; or "auto" or None to check whether the illumination flickers.
    read_frames, n_frames
        As for `has_flicker`; only used for "auto".

    Raises
    ------
    MethodError
        `value` is anything else.
    """
    if value is None or value == "auto":
        return has_flicker(read_frames, n_frames)
    if value in (False, True):
        return bool(value)
    raise MethodError(f"offset_correction is {value!r}, expected true, false or 'auto'")
