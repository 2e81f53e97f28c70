"""Masks of events as bits within their bounding boxes, which take little room until they are written.

A mask has one bit for each pixel of its box, row by row, and begins at a new byte.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from dcnumd.feat.events import Events
from dcnumd.feat.kernels_masks import collect_bits, draw_bits


@functools.cache
def mask_dtype(frame_shape: tuple[int, ...]) -> np.dtype[Any]:
    """Return the dtype of a mask that waits: its box (y0, y1, x0, x1), and room for its bits."""
    # whole words, so that the boxes of an array are aligned
    size = 4 * -(-math.prod(frame_shape) // 32)
    return np.dtype([("box", np.int32, (4,)), ("bits", np.uint8, (size,))])


def mask_offsets(boxes: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """Return where the mask of each event begins, and where the last one ends [bytes], int64 (event + 1,).

    Parameters
    ----------
    boxes
        Bounding boxes: y0, y1, x0, x1, int32 (event, 4).
    """
    pixels = (boxes[:, 1] - boxes[:, 0]).astype(np.int64) * (boxes[:, 3] - boxes[:, 2])
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(-(-pixels // 8))])


def pack_masks(labels: npt.NDArray[np.uint16], events: Events) -> npt.NDArray[np.uint8]:
    """Return the masks of the events of a batch one after the other, uint8 (byte,).

    Parameters
    ----------
    labels
        Labelled frames of the batch, uint16 (frame, y, x).
    events
        The events.
    """
    offsets = mask_offsets(events.box)
    bits = np.empty(offsets[-1], np.uint8)
    collect_bits(labels, events.frame, events.label, events.box, offsets, bits)
    return bits


def stage_masks(
    masks: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], boxes: npt.NDArray[np.int32], out: npt.NDArray[Any]
) -> None:
    """Copy masks to where they wait for being written.

    Parameters
    ----------
    masks, offsets
        Masks of a batch, and where those to copy begin and end: see `pack_masks` and `mask_offsets`.
    boxes
        Bounding boxes of the masks to copy, int32 (event, 4).
    out
        Receives them, `mask_dtype` (event,).
    """
    out["box"] = boxes
    bounds = offsets.tolist()
    for bits, begin, end in zip(out["bits"], bounds, bounds[1:], strict=False):
        bits[: end - begin] = masks[begin:end]


def draw_masks(waiting: npt.NDArray[Any], out: npt.NDArray[np.uint8]) -> None:
    """Draw masks as they are in a result: 255 inside, 0 outside.

    Parameters
    ----------
    waiting
        The masks, `mask_dtype` (event,).
    out
        Receives them, uint8 (event, y, x); it may have room for more, which becomes 0.
    """
    out[...] = 0
    draw_bits(waiting["box"], waiting["bits"], out)
