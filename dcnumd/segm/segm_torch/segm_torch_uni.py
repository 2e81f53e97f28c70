"""Segmentation with a model of version 2, in batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from dcnumd.errors import MethodError, WorkerError
from dcnumd.segm.segm_torch import torch_model
from dcnumd.segm.segm_torch.segm_torch_base import TorchSegmenter, check_output
from dcnumd.segm.segm_torch.ways import raise_problem
from dcnumd.segm.segmenter_uni import UNISegmenter


class SegmentTorchUNI(TorchSegmenter, UNISegmenter):
    """Segmenter with a model of version 2, whose network takes frames as they are and returns masks.

    Backend and device are the first that the model names, unless they are given.
    """

    requires_model_format_version: ClassVar[int] = 2
    # as in dcnum; results of different backends may differ in single pixels
    keywords_without_ppid: ClassVar[frozenset[str]] = frozenset({"backend", "device"})

    def __init__(
        self,
        *,
        num_workers: int | None = None,
        kwargs_mask: Mapping[str, Any] | None = None,
        debug: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_workers=num_workers, kwargs_mask=kwargs_mask, debug=debug, **kwargs)
        if self.kwargs["model_file"] is not None:
            model = self.model_of(self.kwargs)
            wiring = model.wiring(self.kwargs["backend"], self.kwargs["device"])
            self.kwargs |= {"backend": wiring.backend, "device": wiring.device}
            self.required_batch_size = model.meta.batch_size
            # one process has the card
            self.is_exclusive = wiring.device != "cpu"

    @classmethod
    def check_values(cls, kwargs: Mapping[str, Any]) -> None:
        """Make sure that there is a model, and a way to run it; see the base class."""
        super().check_values(kwargs)
        model = cls.model_of(kwargs)
        wiring = model.wiring(kwargs.get("backend"), kwargs.get("device"))
        raise_problem(model, wiring)

    @staticmethod
    def segment_algorithm(
        images: npt.NDArray[Any],
        *,
        model_file: str | None = None,
        backend: str | None = None,
        device: str | None = None,
    ) -> npt.NDArray[np.bool_]:
        """Return the masks of frames.

        Parameters
        ----------
        images
            Frames, uint8 (frame, y, x).
        model_file
            Path of a model, or its name in a registered folder.
        backend
            What runs the network: ``torch.jit``, ``torch.eager``, ``openvino``, or a backend of `torch.compile`, such
            as ``inductor``; None for the first that the model names.
        device
            Where it runs: ``cpu``, ``cuda``, ``cuda:1`` …; None for the first that the model names.
        """
        if model_file is None:
            raise MethodError("segmenter 'torchuni' needs model_file, the path or name of a .dcnm file")
        network = torch_model.networks.get(model_file, backend, device)
        size = network.batch_size or torch_model.DEFAULT_BATCH
        masks = np.empty(images.shape, np.bool_)
        with torch_model.without_warnings():
            for start, output in network.run(len(images), size, lambda start, stop: images[start:stop]):
                if output.shape[1:] != images.shape[1:]:
                    raise WorkerError(
                        f"{network.model.file_name}: the output of the network has shape {output.shape} for frames of "
                        f"shape {images.shape[1:]}, expected the same",
                        "model_failed",
                    )
                check_output(output, network.model)
                # any number but 0 belongs to a mask, as in dcnum
                masks[start : start + len(output)] = output
        return masks

    def _segment_images(
        self,
        images: npt.NDArray[Any],
        bg_off: npt.NDArray[np.float64] | None,  # noqa: ARG002 -- models get raw frames
        mask: npt.NDArray[np.bool_],
    ) -> None:
        mask[:] = self.segment_algorithm(images, **self.kwargs)

    def warm_up(self) -> None:
        """Load the network, and compute once, after which it is as fast as it gets."""
        model = self.model_of(self.kwargs)
        height, width = model.meta.image_shape or (64, 64)
        size = self.required_batch_size or torch_model.DEFAULT_BATCH
        for _ in range(2):
            self.segment_algorithm(np.zeros((size, height, width), np.uint8), **self.kwargs)
