"""Segmentation with a model of version 1 on the processors, a frame at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from dcnumd.errors import MethodError, WorkerError
from dcnumd.segm.segm_torch import torch_model
from dcnumd.segm.segm_torch.model_meta import JIT, Wiring
from dcnumd.segm.segm_torch.preprocessing import fit_masks, preprocess
from dcnumd.segm.segm_torch.segm_torch_base import TorchSegmenter, check_output

LEVEL = 0.5
"""Smallest output of a network for a pixel of a mask."""


class SegmentTorchMPO(TorchSegmenter):
    """Segmenter with a model of version 1 (TorchScript) in worker processes."""

    requires_model_format_version: ClassVar[int] = 1

    @staticmethod
    def segment_algorithm(image: npt.NDArray[Any], *, model_file: str | None = None) -> npt.NDArray[np.bool_]:
        """Return the mask of a frame.

        Parameters
        ----------
        image
            2D frame, uint8.
        model_file
            Path of a model, or its name in a registered folder.
        """
        mask: npt.NDArray[np.bool_] = segment_frames(image[np.newaxis], model_file, "cpu", 1)[0]
        return mask

    @classmethod
    def wiring_of(cls, kwargs: Mapping[str, Any]) -> Wiring:  # noqa: ARG003 -- it does not depend on them
        """Return the only backend and device, whatever the model names; see the base class."""
        return Wiring(JIT, "cpu")

    def warm_up(self) -> None:
        """Load the network, and compute once, after which it is as fast as it gets."""
        model = self.model_of(self.kwargs)
        height, width = model.meta.image_shape or (64, 64)
        for _ in range(2):
            self.segment_algorithm(np.zeros((height, width), np.uint8), **self.kwargs)

    def _segment_images(
        self,
        images: npt.NDArray[Any],
        bg_off: npt.NDArray[np.float64] | None,  # noqa: ARG002 -- models get raw frames
        mask: npt.NDArray[np.bool_],
    ) -> None:
        mask[:] = segment_frames(images, self.kwargs["model_file"], "cpu", 1)


def segment_frames(
    images: npt.NDArray[Any], model_file: str | None, device: str, batch_size: int
) -> npt.NDArray[np.bool_]:
    """Return the masks of frames, which are pre-processed as the model wants them.

    Parameters
    ----------
    images
        Frames, uint8 (frame, y, x).
    model_file
        Path or name of a model of version 1.
    device
        Where to compute: ``cpu``, ``cuda``, ``cuda:1`` …
    batch_size
        Number of frames that the network gets at once. A frame at a time, as in dcnum, is as fast on a processor.

    Raises
    ------
    MethodError
        There is no model, or it is not one of version 1.
    WorkerError
        The network failed.
    """
    if model_file is None:
        raise MethodError("a segmenter with a model needs model_file, the path or name of a .dcnm file")
    network = torch_model.networks.get(model_file, JIT, device)
    preprocessing = network.model.meta.preprocessing
    if preprocessing is None:
        raise MethodError(f"{network.model.path}: is no model of version 1")

    def prepare(start: int, stop: int) -> npt.NDArray[np.float32]:
        return preprocess(images[start:stop], preprocessing)

    parts = []
    with torch_model.without_warnings():
        for _, output in network.run(len(images), batch_size, prepare):
            if output.ndim != 4 or output.shape[1] != 1:
                raise WorkerError(
                    f"{network.model.file_name}: the output of the network has shape {output.shape}, "
                    "expected (frame, 1, y, x)",
                    "model_failed",
                )
            check_output(output, network.model)
            parts.append(output[:, 0] >= LEVEL)
    masks = np.concatenate(parts) if parts else np.zeros(images.shape, np.bool_)
    if masks.shape == images.shape:
        return masks
    return fit_masks(masks, (images.shape[1], images.shape[2]))
