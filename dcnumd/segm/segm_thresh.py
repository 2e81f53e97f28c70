"""Segmentation with a threshold on the background-corrected image."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from dcnumd.segm import labeling
from dcnumd.segm.segmenter import Segmenter
from dcnumd.segm.segmenter_mpo import MPOSegmenter
from dcnumd.shared_memory.slot import ChunkSlotData


class SegmentThresh(MPOSegmenter):
    """Segmenter for all pixels that are darker than the background by more than a threshold.

    One compiled kernel thresholds, labels and post-processes a whole batch. It reads each pixel once and does not store
    background-corrected images.
    """

    requires_background_correction: ClassVar[bool] = True
    mask_postprocessing: ClassVar[bool] = True
    mask_default_kwargs: ClassVar[dict[str, Any]] = {
        "clear_border": True,
        "fill_holes": True,
        "closing_disk": 2,
    }

    @staticmethod
    def segment_algorithm(image: npt.NDArray[Any], *, thresh: float = -6) -> npt.NDArray[np.bool_]:
        """Return the mask of all pixels below a threshold.

        Parameters
        ----------
        image
            2D background-corrected frame, int16 or float64.
        thresh
            Threshold [grey values], usually negative.
        """
        return np.asarray(image < thresh)

    def label_batch(
        self,
        slot: ChunkSlotData,
        start: int,
        stop: int,
        backgrounds: npt.NDArray[np.uint8],
        background_index: npt.NDArray[np.int64],
    ) -> None:
        """Fill a slot's labels with one kernel; see the base class."""
        if (
            type(self).segment_algorithm is not SegmentThresh.segment_algorithm
            or type(self).process_labels is not Segmenter.process_labels
        ):
            # a subclass has its own algorithm, which the kernel does not implement
            super().label_batch(slot, start, stop, backgrounds, background_index)
            return
        bg_off = slot.bg_off
        labeling.label_thresholded(
            slot.image[start:stop],
            backgrounds,
            background_index,
            np.empty(0) if bg_off is None else bg_off[start:stop],
            float(self.kwargs["thresh"]),
            self.kwargs_mask["clear_border"],
            self.kwargs_mask["fill_holes"],
            self.kwargs_mask["closing_disk"],
            slot.labels[start:stop],
        )
