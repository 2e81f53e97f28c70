"""Segmentation of several frames at once, by persistent workers."""

from __future__ import annotations

import abc
from typing import Any

import numpy as np
import numpy.typing as npt

from dcnumd.errors import MethodError
from dcnumd.segm.batches import mask_batches
from dcnumd.segm.segmenter_mpo import MPOSegmenter

DEFAULT_BATCH_SIZE = 10
"""Number of frames in a batch for an algorithm that takes any number, as in dcnum."""


class UNISegmenter(MPOSegmenter, abc.ABC):
    """Segmenter whose algorithm gets a batch of frames, uint8 or as for `MPOSegmenter` (frame, y, x).

    Everything else is as for `MPOSegmenter`, whose workers run it.

    Attributes
    ----------
    required_batch_size : int
        Number of frames that the algorithm needs in each batch; the last batch is filled with zeros. 0 for any number.
    """

    required_batch_size: int = 0

    def segment_single(self, image: npt.NDArray[Any], bg_off: float | None = None) -> npt.NDArray[np.bool_]:
        """Return the boolean mask image (y, x) for one input image; see `segment_batch`.

        Raises
        ------
        MethodError
            The algorithm needs several frames in each batch.
        """
        if self.required_batch_size > 1:
            raise MethodError(
                f"segmenter {self.get_ppid_code()!r} only segments batches of {self.required_batch_size} frames"
            )
        return super().segment_single(image, bg_off)

    def _segment_images(
        self,
        images: npt.NDArray[Any],
        bg_off: npt.NDArray[np.float64] | None,
        mask: npt.NDArray[np.bool_],
    ) -> None:
        """Fill `mask` with the output of the algorithm, which gets batches of frames."""
        size = self.required_batch_size or DEFAULT_BATCH_SIZE
        mask_batches(self, images, bg_off, mask, size, self.required_batch_size)
