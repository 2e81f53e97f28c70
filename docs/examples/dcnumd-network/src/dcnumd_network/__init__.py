"""A segmenter with a network of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from dcnumd.errors import MethodError
from dcnumd.segm.segmenter import SegmenterNotApplicableError
from dcnumd.segm.segmenter_uni import UNISegmenter
from dcnumd_network.network import Network, read_network

__all__ = ["SegmentNetwork"]


class SegmentNetwork(UNISegmenter):
    """A network tells for each pixel how probably it belongs to a cell."""

    # The network gets frames minus their background. Most networks get raw frames, which is the default.
    requires_background_correction: ClassVar[bool] = True
    mask_default_kwargs: ClassVar[dict[str, Any]] = {"clear_border": True, "fill_holes": True, "closing_disk": 2}
    # This keyword is a file: the pipeline ID contains only its name, and dcnumd looks for it in `models.folders`.
    file_keywords: ClassVar[tuple[str, ...]] = ("model_file",)

    # A segmenter with the base class UNISegmenter gets several frames at once.
    @staticmethod
    def segment_algorithm(
        images: npt.NDArray[Any], *, model_file: str | None = None, level: float = 0.5
    ) -> npt.NDArray[np.bool_]:
        """Return the masks of frames.

        Parameters
        ----------
        images
            Frames minus their background, int16 or float64 (frame, y, x).
        model_file
            Path of the file with the weights.
        level
            Smallest probability of a pixel in a mask.

        Returns
        -------
        numpy.ndarray
            bool (frame, y, x).
        """
        return np.asarray(_network_of({"model_file": model_file}).probability(images) >= level)

    # Called when the config is read, so that mistakes are found before the first measurement.
    @classmethod
    def check_values(cls, kwargs: Mapping[str, Any]) -> None:
        """Make sure that there is a network, and that the level is a probability."""
        _network_of(kwargs)
        if not 0 < kwargs.get("level", 0.5) < 1:
            raise MethodError(f"segmenter 'network': level is {kwargs['level']}, expected a number between 0 and 1")

    # Called for each measurement before it is processed, with its attributes and logs.
    @classmethod
    def validate_applicability(
        cls,
        segmenter_kwargs: Mapping[str, Any],
        meta: Mapping[str, Any] | None = None,
        logs: Mapping[str, Sequence[str]] | None = None,  # noqa: ARG003 -- the interface
    ) -> bool:
        """Return True for a measurement in the region for which the network was trained."""
        region = _network_of(segmenter_kwargs).region
        if (meta or {}).get("setup:chip region") != region:
            raise SegmenterNotApplicableError(cls, [f"the network is for recordings in the {region}"])
        return True

    # Logs and reports of results contain these facts.
    @classmethod
    def describe_model(cls, kwargs: Mapping[str, Any]) -> dict[str, str]:
        """Return what the file says of its network."""
        network = _network_of(kwargs)
        return {"date": network.date, "description": network.description, "md5": network.md5}

    # Called in each worker ahead of the first frame.
    def warm_up(self) -> None:
        """Read the file."""
        _network_of(self.kwargs)


def _network_of(kwargs: Mapping[str, Any]) -> Network:
    if kwargs.get("model_file") is None:
        raise MethodError("segmenter 'network' needs model_file, the file with the weights")
    return read_network(str(kwargs["model_file"]))
