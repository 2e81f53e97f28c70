"""Batches of frames: their masks by an algorithm for single frames, and labels from masks."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt

from dcnumd.errors import WorkerError
from dcnumd.segm import labeling
from dcnumd.segm.segmenter import Segmenter
from dcnumd.shared_memory.slot import ChunkSlotData


def images_of(
    segmenter: Segmenter,
    slot: ChunkSlotData,
    batch: slice,
    backgrounds: npt.NDArray[np.uint8],
    background_index: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64] | None]:
    """Return the images of a slot that a segmenter needs, raw or background-corrected, and their background offsets.

    Parameters
    ----------
    segmenter
        The segmenter.
    slot
        The slot, whose image and, if it has one, bg_off are filled for the batch.
    batch
        Range of frames of the batch.
    backgrounds
        Background images, uint8 (image, y, x).
    background_index
        Index of the background image of each frame of the batch.
    """
    if not segmenter.requires_background_correction:
        return slot.image[batch], None
    corrected = cast("npt.NDArray[np.int16]", slot.image_corr)[batch]
    np.subtract(slot.image[batch], backgrounds[background_index], out=corrected, dtype=np.int16)
    return corrected, None if slot.bg_off is None else slot.bg_off[batch]


def mask_frames(
    segmenter: Segmenter,
    images: npt.NDArray[Any],
    bg_off: npt.NDArray[np.float64] | None,
    mask: npt.NDArray[np.bool_],
) -> None:
    """Fill masks with the output of an algorithm that gets one frame at a time.

    Raises
    ------
    WorkerError
        Reason ``segmenter_output``: the output has another shape.
    """
    algorithm = segmenter.segment_algorithm_wrapper()
    for index, image in enumerate(images):
        outcome = np.asarray(algorithm(image if bg_off is None else image - bg_off[index]))
        if outcome.shape not in {image.shape, (1, *image.shape)}:
            raise WorkerError(
                f"segmenter {segmenter.get_ppid_code()!r} returned an array of shape {outcome.shape} "
                f"for a frame of shape {image.shape}",
                "segmenter_output",
            )
        # assigning numbers, for example labels, sets all pixels that are not 0
        mask[index] = outcome


def mask_batches(
    segmenter: Segmenter,
    images: npt.NDArray[Any],
    bg_off: npt.NDArray[np.float64] | None,
    mask: npt.NDArray[np.bool_],
    size: int,
    required_size: int,
) -> None:
    """Fill masks with the output of an algorithm that gets several frames at a time.

    Parameters
    ----------
    segmenter, images, bg_off, mask
        As for `mask_frames`.
    size
        Largest number of frames in a batch.
    required_size
        Number of frames with which a shorter batch is filled up; 0 for none.

    Raises
    ------
    WorkerError
        Reason ``segmenter_output``: the output has another shape.
    """
    algorithm = segmenter.segment_algorithm_wrapper()
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        if bg_off is not None:
            batch = batch - bg_off[start : start + size, np.newaxis, np.newaxis]
        number = len(batch)
        if number < required_size:
            filling = np.zeros((required_size - number, *batch.shape[1:]), batch.dtype)
            batch = np.concatenate([batch, filling])
        outcome = np.asarray(algorithm(batch))
        if outcome.shape != batch.shape:
            raise WorkerError(
                f"segmenter {segmenter.get_ppid_code()!r} returned an array of shape {outcome.shape} "
                f"for frames of shape {batch.shape}",
                "segmenter_output",
            )
        mask[start : start + number] = outcome[:number]


def label_masks(segmenter: Segmenter, mask: npt.NDArray[np.bool_], labels: npt.NDArray[np.uint16]) -> None:
    """Fill labels (frame, y, x) from masks, and post-process them as the segmenter does."""
    labeling.label_masks(mask, labels)
    if not segmenter.mask_postprocessing:
        return
    if type(segmenter).process_labels is Segmenter.process_labels:
        labeling.process_labels(labels, **segmenter.kwargs_mask)
    else:
        for frame in labels:
            frame[...] = segmenter.process_labels(frame, **segmenter.kwargs_mask)
