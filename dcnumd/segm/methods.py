"""The segmenters that can be named in a configuration."""

from __future__ import annotations

from dcnumd.meta.registry import find_methods, get_method
from dcnumd.segm.segmenter_mpo import MPOSegmenter

ENTRY_POINT_GROUP = "dcnumd.segmenters"
BUILT_IN = {"thresh": "dcnumd.segm.segm_thresh:SegmentThresh"}
"""Segmenters of this package: code → where the class is."""


def get_available_segmenters() -> dict[str, type[MPOSegmenter]]:
    """Return all segmenters by their code: the built-in ones and those of installed packages."""
    return find_methods(ENTRY_POINT_GROUP, MPOSegmenter, BUILT_IN)  # type: ignore[type-abstract]  # a base, not made


def get_segmenter(code: str) -> type[MPOSegmenter]:
    """Return the segmenter with the given code.

    Raises
    ------
    MethodError
        There is none; the message names those that are there.
    """
    return get_method(code, "segmenter", ENTRY_POINT_GROUP, MPOSegmenter, BUILT_IN)  # type: ignore[type-abstract]  # likewise
