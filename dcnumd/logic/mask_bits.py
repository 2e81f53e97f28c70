"""Masks of events as bits within their bounding boxes, for masks that wait longer than their slot does.

A mask has one bit for each pixel of its box, row by row, and begins at a new byte.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dcnumd.feat.events import Events


def pack_masks(labels: npt.NDArray[np.uint16], events: Events) -> npt.NDArray[np.uint8]:
    """Return the masks of the events of a batch one after the other, uint8 (byte,).

    Parameters
    ----------
    labels
        Labelled frames of the batch, uint16 (frame, y, x).
    events
        The events.
    """
    parts = [
        np.packbits(labels[frame, top:bottom, left:right] == label)
        for frame, label, (top, bottom, left, right) in zip(
            events.frame.tolist(), events.label, events.box.tolist(), strict=True
        )
    ]
    return np.concatenate(parts) if parts else np.empty(0, np.uint8)


def mask_offsets(boxes: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """Return where the mask of each event begins, and where the last one ends [bytes], int64 (event + 1,).

    Parameters
    ----------
    boxes
        Bounding boxes: y0, y1, x0, x1, int32 (event, 4).
    """
    pixels = (boxes[:, 1] - boxes[:, 0]).astype(np.int64) * (boxes[:, 3] - boxes[:, 2])
    return np.concatenate([[0], np.cumsum(-(-pixels // 8))])


def draw_packed_masks(
    masks: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    boxes: npt.NDArray[np.int32],
    out: npt.NDArray[np.uint8],
) -> None:
    """Draw the mask of each event: 255 inside, 0 outside.

    Parameters
    ----------
    masks, offsets
        Masks of a batch, and where they begin: see `pack_masks` and `mask_offsets`.
    boxes
        Bounding boxes of the events to draw, int32 (event, 4).
    out
        Receives the masks, uint8 (event, y, x).
    """
    out[...] = 0
    for number, (top, bottom, left, right) in enumerate(boxes.tolist()):
        height, width = bottom - top, right - left
        bits = np.unpackbits(masks[offsets[number] :], count=height * width).reshape(height, width)
        np.multiply(bits, 255, out=out[number, top:bottom, left:right], dtype=np.uint8)
