"""What all segmenters with models have in common: keywords, identifiers, checks, rules of applicability."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from dcnumd.errors import MethodError, ModelError, WorkerError
from dcnumd.extras import lacking
from dcnumd.segm import labeling
from dcnumd.segm.segm_torch.applicability import refusals, wrong_version
from dcnumd.segm.segm_torch.model_file import ModelFile, find_model, read_model
from dcnumd.segm.segm_torch.model_meta import Wiring
from dcnumd.segm.segmenter import SegmenterNotApplicableError
from dcnumd.segm.segmenter_mpo import MPOSegmenter
from dcnumd.shared_memory.slot import ChunkSlotData


class TorchSegmenter(MPOSegmenter):
    """Base class of segmenters that use a trained model.

    They get raw frames. The keyword `model_file` is the path of a model, or its name in a registered folder.
    """

    file_keywords: ClassVar[tuple[str, ...]] = ("model_file",)
    requires_background_correction: ClassVar[bool] = False
    requires_model_format_version: ClassVar[int]
    """Version of the model files that the segmenter takes."""
    mask_postprocessing: ClassVar[bool] = True
    mask_default_kwargs: ClassVar[dict[str, Any]] = {
        "clear_border": True,
        "fill_holes": True,
        "closing_disk": 0,
    }

    def __init__(
        self,
        *,
        num_workers: int | None = None,
        kwargs_mask: Mapping[str, Any] | None = None,
        debug: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_workers=num_workers, kwargs_mask=kwargs_mask, debug=debug, **kwargs)
        if self.kwargs.get("model_file") is not None:
            # workers do not know the registered folders; a missing file is reported when it is used
            with contextlib.suppress(ModelError):
                self.kwargs["model_file"] = os.fspath(find_model(self.kwargs["model_file"]))

    @staticmethod
    def is_available() -> bool:
        """Return whether torch is installed; it is not imported for this."""
        return not lacking("torch")

    @classmethod
    def model_of(cls, kwargs: Mapping[str, Any]) -> ModelFile:
        """Return the model that keyword arguments name.

        Raises
        ------
        MethodError
            They name none.
        ModelError
            The file cannot be used.
        """
        if not kwargs.get("model_file"):
            raise MethodError(f"segmenter {cls.get_ppid_code()!r} needs model_file, the path or name of a .dcnm file")
        return read_model(find_model(kwargs["model_file"]))

    @classmethod
    def wiring_of(cls, kwargs: Mapping[str, Any]) -> Wiring:
        """Return backend and device with which the model of keyword arguments is run.

        Raises
        ------
        DcnumdError
            As for `model_of`; or the model cannot be run so.
        """
        return cls.model_of(kwargs).wiring(kwargs.get("backend"), kwargs.get("device"))

    @classmethod
    def describe_model(cls, kwargs: Mapping[str, Any]) -> dict[str, str]:
        """Return facts about the model that keyword arguments name, and how it is run; see the base class.

        Raises
        ------
        DcnumdError
            As for `wiring_of`.
        """
        model, wiring = cls.model_of(kwargs), cls.wiring_of(kwargs)
        facts = {name: getattr(model.meta, name) for name in ("name", "identifier", "date", "description")}
        return facts | {"md5": model.md5, "backend": wiring.backend, "device": wiring.device}

    def log_info(self, logger: Any) -> None:
        """Log which model is used and how it is run; see the base class."""
        model, facts = self.model_of(self.kwargs), self.describe_model(self.kwargs)
        batch_size = model.meta.batch_size
        for line in (
            f"Model {facts['name']!r} of {facts['date']}, MD5 {facts['md5']}: {facts['description']}",
            f"Segmenter backend {facts['backend']!r} with device {facts['device']!r}",
            f"Batch size: {batch_size}" if batch_size else "No batch size restrictions",
        ):
            logger.info(line)

    @classmethod
    def check_values(cls, kwargs: Mapping[str, Any]) -> None:
        """Make sure that there is a model, and that it suits this segmenter.

        Raises
        ------
        MethodError
            No model is named.
        ModelError
            The file cannot be used.
        """
        model = cls.model_of(kwargs)
        if model.version != cls.requires_model_format_version:
            message = wrong_version(model, cls.requires_model_format_version)
            raise ModelError(f"segmenter {cls.get_ppid_code()!r}: {message}", "model_unsupported")

    @classmethod
    def validate_applicability(
        cls,
        segmenter_kwargs: Mapping[str, Any],
        meta: Mapping[str, Any] | None = None,
        logs: Mapping[str, Sequence[str]] | None = None,
    ) -> bool:
        """Return True if the model is made for a measurement, by its own rules; see the base class."""
        reasons = refusals(cls.model_of(segmenter_kwargs), cls.requires_model_format_version, meta or {}, logs or {})
        if reasons:
            raise SegmenterNotApplicableError(cls, reasons)
        return True

    def mask_batch(
        self,
        slot: ChunkSlotData,
        start: int,
        stop: int,
        backgrounds: npt.NDArray[np.uint8],  # noqa: ARG002 -- models get raw frames
        background_index: npt.NDArray[np.int64],  # noqa: ARG002 -- likewise
    ) -> None:
        """Fill a slot's mask, see the base class; masks of frames that equal the one before are empty.

        Such frames yield no events, so the network, which takes most of the time, need not see them.
        """
        images = slot.image[start:stop]
        chosen = np.flatnonzero(~labeling.duplicate_frames(images, None))
        mask = np.zeros((len(chosen), *images.shape[1:]), np.bool_)
        self._segment_images(images[chosen], None, mask)
        slot.mask[start:stop] = False
        slot.mask[start + chosen] = mask


def check_output(output: npt.NDArray[Any], model: ModelFile) -> None:
    """Make sure that the output of a network consists of numbers.

    Raises
    ------
    WorkerError
        Reason ``model_failed``: it contains NaN, or complex numbers.
    """
    if output.dtype.kind not in "biuf":
        raise WorkerError(f"{model.file_name}: the output of the network consists of {output.dtype}", "model_failed")
    values = output.reshape(-1)
    # the sum of squares is NaN only if one of them is; this is the fastest way to know
    if output.dtype.kind == "f" and np.isnan(np.dot(values, values)):
        raise WorkerError(f"{model.file_name}: the output of the network contains NaN", "model_failed")
