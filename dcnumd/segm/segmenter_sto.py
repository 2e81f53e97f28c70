"""Segmentation in a single process, for example because it has a graphics card."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from dcnumd.errors import MethodError
from dcnumd.segm.batches import mask_batches
from dcnumd.segm.segmenter_mpo import MPOSegmenter


class STOSegmenter(MPOSegmenter, abc.ABC):
    """Segmenter whose algorithm runs in one process and gets whole chunks of frames (frame, y, x).

    In the pipeline, one worker segments, and the others load frames and extract features.

    Parameters
    ----------
    num_workers
        None or 1.
    kwargs_mask, debug, kwargs
        As for `MPOSegmenter`.

    Raises
    ------
    MethodError
        A keyword does not exist, or the number of workers is another one.
    """

    hardware_processor: ClassVar[str] = "gpu"
    is_exclusive: bool = True

    def __init__(
        self,
        *,
        num_workers: int | None = None,
        kwargs_mask: Mapping[str, Any] | None = None,
        debug: bool = False,
        **kwargs: Any,
    ) -> None:
        if num_workers not in {None, 1}:
            raise MethodError(
                f"segmenter {self.get_ppid_code()!r} segments in one process, but num_workers is {num_workers}"
            )
        super().__init__(num_workers=1, kwargs_mask=kwargs_mask, debug=debug, **kwargs)

    def _segment_images(
        self,
        images: npt.NDArray[Any],
        bg_off: npt.NDArray[np.float64] | None,
        mask: npt.NDArray[np.bool_],
    ) -> None:
        """Fill `mask` with the output of the algorithm, which gets all images at once."""
        mask_batches(self, images, bg_off, mask, max(len(images), 1), 0)
