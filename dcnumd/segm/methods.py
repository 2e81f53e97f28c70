"""Segmenters by their code, for configurations."""

from __future__ import annotations

from dcnumd.errors import MethodError
from dcnumd.extras import lacking
from dcnumd.meta.registry import find_methods, get_method
from dcnumd.segm.segmenter import BUILT_IN, ENTRY_POINT_GROUP, REQUIRED_EXTRAS
from dcnumd.segm.segmenter_mpo import MPOSegmenter


def get_available_segmenters() -> dict[str, type[MPOSegmenter]]:
    """Return all segmenters by their code: built-in, of installed packages, and other subclasses.

    Raises
    ------
    MethodError
        An entry point cannot be loaded or is not a subclass of `MPOSegmenter`.
    """
    found = find_methods(ENTRY_POINT_GROUP, MPOSegmenter, BUILT_IN)  # type: ignore[type-abstract]  # a base, not made
    return {code: segmenter for code, segmenter in found.items() if segmenter.is_available()}


def get_segmenter(code: str) -> type[MPOSegmenter]:
    """Return the segmenter with the given code.

    Raises
    ------
    MethodError
        There is no such segmenter; or it cannot run on this computer, then the message says what it needs, or lists
        those that can.
    """
    if code in REQUIRED_EXTRAS and (problem := lacking(REQUIRED_EXTRAS[code])):
        raise MethodError(f"segmenter {code!r}: {problem}")
    segmenter = get_method(code, "segmenter", ENTRY_POINT_GROUP, MPOSegmenter, BUILT_IN)  # type: ignore[type-abstract]  # likewise
    if not segmenter.is_available():
        available = ", ".join(sorted(get_available_segmenters()))
        raise MethodError(
            f"segmenter {code!r} cannot be used, because {segmenter.missing_requirement()}; available are {available}"
        )
    return segmenter
