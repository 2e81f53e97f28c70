"""Frames as networks of version 1 get them, and the way back to masks for the frames; no torch is needed for this."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcnumd.segm import labeling
from dcnumd.segm.segm_torch.model_meta import Preprocessing


def preprocess(images: npt.NDArray[Any], preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    """Return frames as the input of a network: cropped, padded and normalized.

    Frames are cropped in the middle; if the number of pixels is odd, one more goes at the bottom or on the right.
    Padding has the median of the whole frame.

    Parameters
    ----------
    images
        Frames (frame, y, x).
    preprocessing
        What the model needs.

    Returns
    -------
    batch
        float32 (frame, 1, y, x).
    """
    height, width = images.shape[1:]
    out_height, out_width = preprocessing.image_shape or (height, width)
    rows, rows_out = _overlap(height, out_height)
    columns, columns_out = _overlap(width, out_width)
    cropped = images[:, rows, columns]
    if out_height > height or out_width > width:
        batch = np.empty((len(images), out_height, out_width), np.float32)
        batch[:] = np.median(images, axis=(1, 2))[:, np.newaxis, np.newaxis]
        batch[:, rows_out, columns_out] = cropped
    else:
        batch = cropped.astype(np.float32)
    if preprocessing.norm_mean is not None and preprocessing.norm_std is not None:
        # in this order and in float32, in which rounding is as in dcnum
        batch /= 255
        batch -= preprocessing.norm_mean
        batch /= preprocessing.norm_std
    return batch[:, np.newaxis]


def fit_masks(masks: npt.NDArray[np.bool_], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the masks of a network for frames of another shape.

    Cropping and padding are undone, with pixels that belong to no mask. If masks have to be padded in any direction,
    those that touch an edge are removed first, because only a part of them is known.

    Parameters
    ----------
    masks
        bool (frame, y, x).
    shape
        Height and width of the frames [px].
    """
    rows_out, rows = _overlap(shape[0], masks.shape[1])
    columns_out, columns = _overlap(shape[1], masks.shape[2])
    if shape[0] > masks.shape[1] or shape[1] > masks.shape[2]:
        labels = np.empty(masks.shape, np.uint16)
        labeling.label_masks(masks, labels)
        labeling.process_labels(labels, clear_border=True, fill_holes=False, closing_disk=0)
        masks = labels > 0
    fitted = np.zeros((len(masks), *shape), np.bool_)
    fitted[:, rows_out, columns_out] = masks[:, rows, columns]
    return fitted


def _overlap(length: int, out_length: int) -> tuple[slice, slice]:
    """Return the part of a side of a frame that remains when its length changes, and its place on the new side."""
    margin = abs(length - out_length) // 2
    if length >= out_length:
        return slice(margin, margin + out_length), slice(0, out_length)
    return slice(0, length), slice(margin, margin + length)
