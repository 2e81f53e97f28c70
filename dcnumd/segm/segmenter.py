"""Base class of segmenters: keywords, pipeline identifier, mask post-processing."""

from __future__ import annotations

import abc
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from dcnumd.errors import MeasurementError, MethodError
from dcnumd.meta.keywords import (
    Keyword,
    format_keywords,
    keyword_defaults,
    kwargs_to_ppid,
    method_keywords,
    parse_keywords,
    ppid_to_kwargs,
)
from dcnumd.meta.registry import get_method
from dcnumd.segm import labeling

ENTRY_POINT_GROUP = "dcnumd.segmenters"
BUILT_IN = {
    "thresh": "dcnumd.segm.segm_thresh:SegmentThresh",
    "torchmpo": "dcnumd.segm.segm_torch.segm_torch_mpo:SegmentTorchMPO",
    "torchsto": "dcnumd.segm.segm_torch.segm_torch_sto:SegmentTorchSTO",
    "torchuni": "dcnumd.segm.segm_torch.segm_torch_uni:SegmentTorchUNI",
}
"""Segmenters of this package: code → ``module:class``."""
REQUIRED_EXTRAS = {"torchmpo": "torch", "torchuni": "torch", "torchsto": "torch"}
"""Optional package that a segmenter of this package needs, by its code."""


class SegmenterNotApplicableError(MeasurementError):
    """A segmenter is not made for a measurement.

    Parameters
    ----------
    segmenter_class
        Class of the segmenter.
    reasons_list
        All reasons, in words.
    """

    default_reason = "not_applicable"

    def __init__(self, segmenter_class: type[Segmenter], reasons_list: Sequence[str]) -> None:
        code = segmenter_class.get_ppid_code()
        super().__init__(f"the segmenter {code!r} is not made for this measurement: {'; '.join(reasons_list)}")
        self.segmenter_class = segmenter_class
        self.reasons_list = list(reasons_list)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.segmenter_class, self.reasons_list)


class Segmenter(abc.ABC):
    """Base class of all segmenters.

    A subclass implements `segment_algorithm`, whose keyword-only arguments are the parameters of the segmenter and
    make up its pipeline identifier.

    Parameters
    ----------
    kwargs_mask
        Keyword arguments for mask post-processing (see `process_labels`). They override `mask_default_kwargs`.
    debug
        Use one thread of this process instead of worker processes.
    kwargs
        Keyword arguments for `segment_algorithm`.

    Raises
    ------
    MethodError
        A keyword does not exist, or `kwargs_mask` is given to a segmenter without mask post-processing.
    """

    hardware_processor: ClassVar[str] = "none"
    """Required hardware ("cpu" or "gpu"), defined in the first-level subclass."""
    requires_background_correction: ClassVar[bool] = False
    """Whether `segment_algorithm` receives background-corrected images (int16) instead of raw ones."""
    mask_postprocessing: ClassVar[bool] = True
    """Whether `process_labels` is applied after the segmentation."""
    mask_default_kwargs: ClassVar[dict[str, Any]] = {}
    """Defaults of this segmenter for the keywords of `process_labels`."""
    keywords_without_ppid: ClassVar[frozenset[str]] = frozenset()
    """Keywords of `segment_algorithm` that are not part of the pipeline identifier."""

    file_keywords: ClassVar[tuple[str, ...]] = ()
    """Keywords of `segment_algorithm` that are files, such as models; identifiers contain only their names.

    A config may name such a file without its folder if it is in a folder of models."""

    def __init__(self, *, kwargs_mask: Mapping[str, Any] | None = None, debug: bool = False, **kwargs: Any) -> None:
        self.check_settings(kwargs, kwargs_mask or {})
        self.debug = debug
        self.kwargs: dict[str, Any] = {**keyword_defaults(type(self), "segment_algorithm"), **kwargs}
        self.kwargs_mask: dict[str, Any] = {}
        if self.mask_postprocessing:
            self.kwargs_mask = self._complete_mask_kwargs(kwargs_mask)

    @classmethod
    def check_settings(cls, kwargs: Mapping[str, Any], kwargs_mask: Mapping[str, Any]) -> None:
        """Make sure that all keywords exist.

        Raises
        ------
        MethodError
            A keyword does not exist, or `kwargs_mask` is given to a segmenter without mask post-processing.
        """
        cls._check_keywords("segment_algorithm", kwargs)
        if cls.mask_postprocessing:
            cls._check_keywords("process_labels", kwargs_mask)
        elif kwargs_mask:
            raise MethodError(
                f"segmenter {cls.get_ppid_code()!r} does not support mask postprocessing, "
                f"but got mask keywords {', '.join(sorted(kwargs_mask))}"
            )

    @classmethod
    def check_mask_values(cls, kwargs_mask: Mapping[str, Any]) -> None:
        """Make sure that mask keywords, whose types have been checked, are in range.

        A subclass with its own `process_labels` has to check its keywords itself.

        Raises
        ------
        MethodError
            A value is out of range.
        """
        if cls.mask_postprocessing and cls.process_labels is Segmenter.process_labels:
            try:
                labeling.check_radius(cls._complete_mask_kwargs(kwargs_mask)["closing_disk"])
            except ValueError as error:
                raise MethodError(f"segmenter {cls.get_ppid_code()!r}: {error}") from error

    @classmethod
    def _complete_mask_kwargs(cls, given: Mapping[str, Any] | None) -> dict[str, Any]:
        return {**keyword_defaults(cls, "process_labels"), **cls.mask_default_kwargs, **(given or {})}

    @classmethod
    def _check_keywords(cls, method: str, given: Mapping[str, Any]) -> None:
        allowed = [keyword.name for keyword in method_keywords(cls, method)]
        unknown = sorted(set(given) - set(allowed))
        if unknown:
            raise MethodError(
                f"segmenter {cls.get_ppid_code()!r} has no keyword {unknown[0]!r} for {method}, "
                f"expected one of {', '.join(allowed)}"
            )

    @staticmethod
    @abc.abstractmethod
    def segment_algorithm(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Segment one frame.

        Parameters
        ----------
        image
            2D frame: uint8, or int16 (float64 with a background offset) if `requires_background_correction`.

        Returns
        -------
        mask_or_labels
            2D array of the same shape: boolean mask, or integer labels with 0 for background.
        """

    @staticmethod
    def is_available() -> bool:
        """Return whether the segmenter can run on this computer; subclasses with special requirements override this."""
        return True

    @classmethod
    def missing_requirement(cls) -> str:
        """Return what the segmenter lacks on this computer, as a clause; empty if it is available."""
        return "" if cls.is_available() else "this computer lacks something that it needs"

    @classmethod  # noqa: B027 -- most take any value
    def check_values(cls, kwargs: Mapping[str, Any]) -> None:
        """Make sure that keyword arguments, whose types have been checked, can be used; subclasses override this.

        Raises
        ------
        MethodError
            A value cannot be used.
        """

    @classmethod
    def describe_model(cls, kwargs: Mapping[str, Any]) -> dict[str, str]:  # noqa: ARG003 -- subclasses use it
        """Return facts about the model that keyword arguments name, for logs and reports; empty without a model.

        Subclasses with models override this. Reports know the keys ``name``, ``date``, ``description``, ``md5``,
        ``backend`` and ``device``.
        """
        return {}

    def warm_up(self) -> None:  # noqa: B027 -- most load nothing
        """Load what the first frame needs, in a worker; subclasses that load much override this."""

    def log_info(self, logger: Any) -> None:  # noqa: B027 -- most have nothing to tell
        """Log what a reader of results wants to know of the segmenter and its hardware; subclasses override this.

        Parameters
        ----------
        logger
            Object with a method ``info``, which takes a line of text.
        """

    @classmethod
    def validate_applicability(
        cls,
        segmenter_kwargs: Mapping[str, Any],  # noqa: ARG003 -- subclasses use it
        meta: Mapping[str, Any] | None = None,  # noqa: ARG003 -- likewise
        logs: Mapping[str, Sequence[str]] | None = None,  # noqa: ARG003 -- likewise
    ) -> bool:
        """Return True if the segmenter is made for a measurement; subclasses with special requirements override this.

        Parameters
        ----------
        segmenter_kwargs
            Keyword arguments for `segment_algorithm`.
        meta
            Attributes of the measurement.
        logs
            Logs of the measurement: the lines of each, by name.

        Raises
        ------
        SegmenterNotApplicableError
            The segmenter is not made for the measurement.
        """
        return True

    def segment_algorithm_wrapper(self) -> Callable[[npt.NDArray[Any]], npt.NDArray[Any]]:
        """Return `segment_algorithm` with this instance's keyword arguments."""
        return functools.partial(self.segment_algorithm, **self.kwargs)

    @staticmethod
    def process_labels(
        labels: npt.NDArray[Any],
        *,
        clear_border: bool = True,
        fill_holes: bool = True,
        closing_disk: int | bool | None = 5,
    ) -> npt.NDArray[np.uint16]:
        """Post-process the labels of one frame.

        Parameters
        ----------
        labels
            2D integer labels with 0 for background, or a boolean mask, whose 8-connected components are labelled.
        clear_border
            Remove labels that touch the frame's border.
        fill_holes
            Fill pixels that a mask encloses.
        closing_disk
            Radius of the disk for a morphological opening [px]; 0, False and None for none.

        Returns
        -------
        labels
            uint16 array of the same shape, labelled again in raster order. If labels are given and only `clear_border`
            is true, the remaining labels keep their numbers. Above 65535 numbers start again at 0.
        """
        return labeling.process_frame(
            labels, clear_border=clear_border, fill_holes=fill_holes, closing_disk=closing_disk
        )

    def get_ppid(self) -> str:
        """Return the pipeline identifier of this segmenter, for example ``thresh:t=-6:cle=1^f=1^clo=2``."""
        return self.get_ppid_from_ppkw(self.kwargs, self.kwargs_mask)

    @classmethod
    def get_ppid_code(cls) -> str:
        """Return the code of the segmenter: its class name in lower case, without ``segment``."""
        return cls.__name__.lower().removeprefix("segment")

    @classmethod
    def get_ppid_from_ppkw(cls, kwargs: Mapping[str, Any], kwargs_mask: Mapping[str, Any] | None = None) -> str:
        """Return the pipeline identifier for given keyword arguments; missing ones have their defaults.

        Parameters
        ----------
        kwargs
            Keyword arguments for the constructor: those of `segment_algorithm`, and ``kwargs_mask`` if the next
            parameter is None. Others, such as ``num_workers``, are not part of the identifier.
        kwargs_mask
            Keyword arguments for mask post-processing.

        Raises
        ------
        MethodError
            A keyword does not exist, or mask keywords are given to a segmenter without mask post-processing.
        """
        given_mask = kwargs.get("kwargs_mask") if kwargs_mask is None else kwargs_mask
        settings = {name: value for name, value in kwargs.items() if name not in cls._constructor_keywords()}
        cls.check_settings(settings, given_mask or {})
        for name in cls.file_keywords:
            if isinstance(settings.get(name), str | pathlib.Path) and pathlib.Path(settings[name]).exists():
                settings[name] = pathlib.Path(settings[name]).name
        stated = {name: value for name, value in settings.items() if name not in cls.keywords_without_ppid}
        parts = [cls.get_ppid_code(), format_keywords(cls._ppid_keywords(), stated, cls.__name__)]
        if cls.mask_postprocessing:
            parts.append(kwargs_to_ppid(cls, "process_labels", cls._complete_mask_kwargs(given_mask)))
        return ":".join(parts)

    @classmethod
    def _ppid_keywords(cls) -> list[Keyword]:
        """Return the keywords of `segment_algorithm` that are part of the pipeline identifier."""
        own = method_keywords(cls, "segment_algorithm")
        return [keyword for keyword in own if keyword.name not in cls.keywords_without_ppid]

    @classmethod
    def _constructor_keywords(cls) -> set[str]:
        """Return the keywords of the constructor that `segment_algorithm` does not have."""
        own = {keyword.name for keyword in method_keywords(cls, "segment_algorithm")}
        return {keyword.name for keyword in method_keywords(cls, "__init__")} - own

    @staticmethod
    def get_ppkw_from_ppid(segm_ppid: str) -> dict[str, Any]:
        """Return the keyword arguments, including ``kwargs_mask``, from the identifier of any segmenter.

        Raises
        ------
        MethodError
            There is no such segmenter, or it has no such keyword.
        """
        code, _, keywords = segm_ppid.partition(":")
        cls = get_method(code, "segmenter", ENTRY_POINT_GROUP, Segmenter, BUILT_IN)  # type: ignore[type-abstract]  # a base, not made
        if not cls.mask_postprocessing:
            return parse_keywords(cls._ppid_keywords(), keywords, cls.__name__)
        keywords, _, mask_keywords = keywords.partition(":")
        kwargs = parse_keywords(cls._ppid_keywords(), keywords, cls.__name__)
        given = ppid_to_kwargs(cls, "process_labels", mask_keywords) if mask_keywords else {}
        kwargs["kwargs_mask"] = cls._complete_mask_kwargs(given)
        return kwargs
