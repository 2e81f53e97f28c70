"""Segmentation with a model of version 1 on a graphics card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from dcnumd.segm.segm_torch import torch_model
from dcnumd.segm.segm_torch.model_meta import JIT, Wiring
from dcnumd.segm.segm_torch.segm_torch_base import TorchSegmenter
from dcnumd.segm.segm_torch.segm_torch_mpo import segment_frames
from dcnumd.segm.segm_torch.torch_setup import missing_cuda
from dcnumd.segm.segmenter_sto import STOSegmenter

FIRST_CARD = "cuda:0"


class SegmentTorchSTO(TorchSegmenter, STOSegmenter):
    """Segmenter with a model of version 1 (TorchScript) on a graphics card, which one process has."""

    requires_model_format_version: ClassVar[int] = 1
    keywords_without_ppid: ClassVar[frozenset[str]] = frozenset({"device"})

    @staticmethod
    def is_available() -> bool:
        """Return whether torch, built with CUDA, is installed and there is a card; torch is not imported for this."""
        return not missing_cuda()

    @classmethod
    def missing_requirement(cls) -> str:
        """Return what is missing on this computer, as a clause; empty if nothing is."""
        return missing_cuda()

    @staticmethod
    def segment_algorithm(
        images: npt.NDArray[Any], *, model_file: str | None = None, device: str | None = None
    ) -> npt.NDArray[np.bool_]:
        """Return the masks of frames.

        Parameters
        ----------
        images
            Frames, uint8 (frame, y, x).
        model_file
            Path of a model, or its name in a registered folder.
        device
            The card: ``cuda:0``, ``cuda:1`` …; None for the first one.
        """
        return segment_frames(images, model_file, device or FIRST_CARD, torch_model.DEFAULT_BATCH)

    @classmethod
    def wiring_of(cls, kwargs: Mapping[str, Any]) -> Wiring:
        """Return backend and device; see the base class."""
        return cls.model_of(kwargs).wiring(JIT, kwargs.get("device") or FIRST_CARD)

    def warm_up(self) -> None:
        """Load the network, and compute once, after which it is as fast as it gets."""
        model = self.model_of(self.kwargs)
        height, width = model.meta.image_shape or (64, 64)
        for _ in range(2):
            self.segment_algorithm(np.zeros((1, height, width), np.uint8), **self.kwargs)
