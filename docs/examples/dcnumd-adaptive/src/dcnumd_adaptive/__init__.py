"""A segmenter whose threshold follows the noise of each frame."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from dcnumd.segm.segmenter_mpo import MPOSegmenter

__all__ = ["SegmentAdaptive"]


class SegmentAdaptive(MPOSegmenter):
    """All that is darker than the background by several times the noise of its frame is a cell.

    A fixed threshold that suits a good light is too strict for a weak lamp, whose frames have less contrast and less
    noise, and too lax for a camera with a high gain. This one needs no such choice.
    """

    # dcnumd takes the background away before it calls `segment_algorithm`,
    requires_background_correction: ClassVar[bool] = True
    # and clears the border, fills holes and smooths the masks afterwards,
    mask_postprocessing: ClassVar[bool] = True
    # in this way, unless the configuration says otherwise.
    mask_default_kwargs: ClassVar[dict[str, Any]] = {"clear_border": True, "fill_holes": True, "closing_disk": 2}

    # The keyword-only arguments are the settings of the method: with their defaults they are what a configuration
    # may say below [pipeline.segmenter], and they become part of the pipeline ID, in this order.
    @staticmethod
    def segment_algorithm(
        image: npt.NDArray[Any], *, noise_factor: float = 4.0, least: float = 3.0
    ) -> npt.NDArray[np.bool_]:
        """Return the mask of the pixels that stand out from the noise.

        Parameters
        ----------
        image
            One frame minus its background, int16 or float64 (y, x).
        noise_factor
            How many standard deviations of the noise darker a cell is.
        least
            The threshold is never nearer to the background than this [grey levels], however little noise there is.

        Returns
        -------
        numpy.ndarray
            bool (y, x).
        """
        # Every other pixel of every other row tells the noise as well as all do. Cells are darker than the background,
        # so the brighter half of the pixels shows the noise alone, which is the same on both sides of the median.
        sample = image[::2, ::2].astype(np.float64)
        middle = np.median(sample)
        brighter = sample[sample >= middle] - middle
        noise = np.sqrt(np.mean(brighter**2))
        return np.asarray(image < middle - max(noise_factor * noise, least))
