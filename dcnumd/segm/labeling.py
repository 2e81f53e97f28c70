"""Labels of whole batches of frames: thresholding, labelling, mask post-processing, duplicates, offsets.

Labels are uint16 (frame, y, x) with 0 for background. Components are 8-connected and numbered by their first pixel in
raster order, as by `scipy.ndimage.label`. Numbers beyond 65535 start again at 0, as in dcnum.

Why not scipy and scikit-image, as in dcnum? They process one frame per call and allocate arrays in each step; these
kernels take a fraction of the time and give the same labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcnumd.segm import kernels_frames, kernels_labeling

MAX_LABEL = np.iinfo(np.uint16).max
"""Largest label."""


def label_thresholded(
    images: npt.NDArray[np.uint8],
    backgrounds: npt.NDArray[np.uint8],
    background_index: npt.NDArray[np.int64],
    bg_off: npt.NDArray[np.float64],
    thresh: float,
    clear_border: bool,
    fill_holes: bool,
    closing_disk: int | None,
    labels: npt.NDArray[np.uint16],
) -> None:
    """Label all pixels that are darker than the background by more than a threshold.

    A pixel belongs to a mask if ``(image - background) - bg_off < thresh``. The masks are processed as by
    `process_labels`.

    Parameters
    ----------
    images
        Frames, uint8 (frame, y, x).
    backgrounds
        Background images, uint8 (background, y, x).
    background_index
        Background image of each frame, int64 (frame,).
    bg_off
        Background offset of each frame [grey values], float64 (frame,); empty for none.
    thresh
        Threshold [grey values], usually negative.
    clear_border, fill_holes, closing_disk
        See `process_labels`.
    labels
        Receives the labels, uint16 (frame, y, x); overwritten completely.

    Raises
    ------
    TypeError
        An array has another dtype.
    ValueError
        An array has another shape or is not contiguous, or an index or `closing_disk` is out of range.
    """
    _check_stack("images", images, np.uint8)
    _check_stack("labels", labels, np.uint16, shape=images.shape)
    _check_output("labels", labels)
    _check_backgrounds(images, backgrounds, background_index)
    _check_array("bg_off", bg_off, np.float64)
    if bg_off.shape not in {(0,), (len(images),)}:
        raise ValueError(f"bg_off has shape {bg_off.shape}, expected ({len(images)},) or (0,)")
    height, width = images.shape[1:]
    radius = _check_radius(closing_disk, height, width)
    if not labels.size:
        return

    def run(clear_border: bool, fill_holes: bool, radius: int) -> None:
        kernels_labeling.label_thresholded_frames(
            _flatten(images),
            _flatten(backgrounds),
            _normalize(background_index),
            _normalize(bg_off),
            float(thresh),
            clear_border,
            fill_holes,
            radius,
            height,
            width,
            _flatten(labels),
        )

    if _most_components(height, width) > MAX_LABEL:
        run(False, False, 0)
        if labels.max() == MAX_LABEL:
            # Labels may have started again at 0. dcnum clears the border by label, so do the same steps as dcnum then.
            process_labels(labels, clear_border=clear_border, fill_holes=fill_holes, closing_disk=radius)
            return
    run(bool(clear_border), bool(fill_holes), radius)


def label_masks(masks: npt.NDArray[np.bool_], labels: npt.NDArray[np.uint16]) -> None:
    """Label the 8-connected components of masks.

    Parameters
    ----------
    masks
        Boolean (frame, y, x).
    labels
        Receives the labels, uint16 (frame, y, x); overwritten completely.

    Raises
    ------
    TypeError
        An array has another dtype.
    ValueError
        The shapes differ or `labels` is not contiguous.
    """
    _check_stack("masks", masks, np.bool_)
    _check_stack("labels", labels, np.uint16, shape=masks.shape)
    _check_output("labels", labels)
    _label_dark(np.logical_not(masks), labels)


def process_frame(
    frame: npt.NDArray[Any], *, clear_border: bool, fill_holes: bool, closing_disk: int | None
) -> npt.NDArray[np.uint16]:
    """Return the post-processed labels of one frame: a boolean mask, or labels of any integer type.

    Parameters
    ----------
    frame
        Boolean mask, or integer labels with 0 for background (y, x); it is not modified.
    clear_border, fill_holes, closing_disk
        See `process_labels`.

    Returns
    -------
    labels
        uint16 (y, x).

    Raises
    ------
    ValueError
        `frame` has another shape, or `closing_disk` is not a non-negative integer.
    """
    if frame.ndim != 2:
        raise ValueError(f"labels have shape {frame.shape}, expected (y, x)")
    radius = _check_radius(closing_disk, *frame.shape)
    labels: npt.NDArray[np.uint16] = np.empty((1, *frame.shape), np.uint16)
    result: npt.NDArray[np.uint16] = labels[0]
    is_mask = frame.dtype == np.bool_
    if clear_border and not is_mask:
        edge = np.concatenate([frame[0], frame[-1], frame[:, 0], frame[:, -1]])
        frame = np.where(np.isin(frame, edge[edge != 0]), 0, frame)
    if is_mask or fill_holes or radius:
        background = (frame <= 0)[np.newaxis]
        _label_dark(background, labels, clear_border=clear_border and is_mask, fill_holes=fill_holes, radius=radius)
    else:
        result[...] = frame
    return result


def process_labels(
    labels: npt.NDArray[np.uint16], *, clear_border: bool, fill_holes: bool, closing_disk: int | None
) -> None:
    """Post-process labels in place.

    The steps follow the order of the parameters. `fill_holes` and `closing_disk` work on the mask of all labels
    together, whose components are then labelled again; without both of them, labels keep their numbers.

    Parameters
    ----------
    labels
        uint16 (frame, y, x).
    clear_border
        Remove every label that touches the edge of the frame.
    fill_holes
        Fill pixels that are not connected to the background in the top left corner. Row 0 and the first two pixels of
        row 1 become background.
    closing_disk
        Radius of the disk of a morphological opening [px], 0 or None for none. Pixels outside the frame neither erode
        nor dilate.

    Raises
    ------
    TypeError
        `labels` has another dtype.
    ValueError
        `labels` has another shape or is not contiguous, or `closing_disk` is not a non-negative integer.
    """
    _check_stack("labels", labels, np.uint16)
    _check_output("labels", labels)
    height, width = labels.shape[1:]
    radius = _check_radius(closing_disk, height, width)
    if clear_border and labels.size:
        kernels_labeling.remove_border_labels(_flatten(labels), height, width)
    if fill_holes or radius:
        _label_dark(labels == 0, labels, fill_holes=fill_holes, radius=radius)


def duplicate_frames(images: npt.NDArray[np.uint8], previous: npt.NDArray[np.uint8] | None) -> npt.NDArray[np.bool_]:
    """Return which frames are identical to the frame before.

    Parameters
    ----------
    images
        Frames, uint8 (frame, y, x).
    previous
        The frame before the first, uint8 (y, x); None if there is none.

    Returns
    -------
    duplicate
        Boolean (frame,).

    Raises
    ------
    TypeError
        An array has another dtype.
    ValueError
        An array has another shape.
    """
    _check_stack("images", images, np.uint8)
    if previous is None:
        flat_previous = np.empty(0, np.uint8)
    else:
        _check_array("previous", previous, np.uint8)
        if previous.shape != images.shape[1:]:
            raise ValueError(f"previous has shape {previous.shape}, expected {images.shape[1:]}")
        flat_previous = _normalize(previous).reshape(-1)
    duplicate = np.empty(len(images), np.bool_)
    kernels_frames.mark_duplicates(_flatten(images), flat_previous, duplicate)
    return duplicate


def _label_dark(
    background: npt.NDArray[np.bool_],
    labels: npt.NDArray[np.uint16],
    *,
    clear_border: bool = False,
    fill_holes: bool = False,
    radius: int = 0,
) -> None:
    """Label the masks in frames in which the background is 1 and masks are 0."""
    if not labels.size:
        return
    frames, height, width = labels.shape
    kernels_labeling.label_thresholded_frames(
        _flatten(background).view(np.uint8),
        np.zeros((1, height * width), np.uint8),
        np.zeros(frames, np.int64),
        np.empty(0, np.float64),
        1.0,
        bool(clear_border),
        bool(fill_holes),
        radius,
        height,
        width,
        _flatten(labels),
    )


def _flatten(stack: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return (frame, y, x) as (frame, pixel), in the only layout for which kernels are compiled."""
    frames, height, width = stack.shape
    return _normalize(stack).reshape(frames, height * width)


def _normalize(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Copy an array that is not contiguous or is read-only, for which numba would compile all kernels again."""
    return np.require(array, requirements=["C", "A", "W"])


def _check_array(name: str, array: npt.NDArray[Any], dtype: type[np.generic]) -> None:
    if array.dtype != dtype:
        raise TypeError(f"{name} has dtype {array.dtype}, expected {np.dtype(dtype)}")


def _check_stack(
    name: str, stack: npt.NDArray[Any], dtype: type[np.generic], shape: tuple[int, ...] | None = None
) -> None:
    _check_array(name, stack, dtype)
    if stack.ndim != 3:
        raise ValueError(f"{name} has shape {stack.shape}, expected (frame, y, x)")
    if shape is not None and stack.shape != shape:
        raise ValueError(f"{name} has shape {stack.shape}, expected {shape}")


def _check_output(name: str, array: npt.NDArray[Any]) -> None:
    if not (array.flags.c_contiguous and array.flags.writeable):
        raise ValueError(f"{name} is not a contiguous, writeable array; it is filled in place")


def _check_backgrounds(
    images: npt.NDArray[np.uint8],
    backgrounds: npt.NDArray[np.uint8],
    background_index: npt.NDArray[np.int64],
) -> None:
    """Raise an error for arrays of which a kernel would read out of bounds."""
    _check_stack("backgrounds", backgrounds, np.uint8)
    if backgrounds.shape[1:] != images.shape[1:]:
        raise ValueError(f"backgrounds have frame shape {backgrounds.shape[1:]}, expected {images.shape[1:]}")
    _check_array("background_index", background_index, np.int64)
    if background_index.shape != (len(images),):
        raise ValueError(f"background_index has shape {background_index.shape}, expected ({len(images)},)")
    if background_index.size and not (background_index.min() >= 0 and background_index.max() < len(backgrounds)):
        raise ValueError(
            f"background_index has values {background_index.min()}…{background_index.max()}, "
            f"expected 0…{len(backgrounds) - 1}"
        )


def _most_components(height: int, width: int) -> int:
    """Return the largest number of 8-connected components in a frame."""
    return ((height + 1) // 2) * ((width + 1) // 2)


def _check_radius(closing_disk: float | None, height: int, width: int) -> int:
    """Return the radius of the disk [px], limited to one that covers the frame from any pixel."""
    return min(check_radius(closing_disk), height + width)


def check_radius(closing_disk: float | None) -> int:
    """Return the radius of the disk [px], 0 for none.

    Raises
    ------
    ValueError
        It is not a non-negative integer.
    """
    if closing_disk is None:
        return 0
    if closing_disk < 0 or closing_disk != int(closing_disk):
        raise ValueError(f"closing_disk is {closing_disk!r}, expected a whole number of pixels, 0 for none")
    return int(closing_disk)
