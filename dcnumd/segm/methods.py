"""The segmenters that can be named in a configuration."""

from __future__ import annotations

import importlib.metadata

from dcnumd.errors import MethodError
from dcnumd.segm.segm_thresh import SegmentThresh
from dcnumd.segm.segmenter_mpo import MPOSegmenter

ENTRY_POINT_GROUP = "dcnumd.segmenters"
BUILT_IN: dict[str, type[MPOSegmenter]] = {"thresh": SegmentThresh}


def get_available_segmenters() -> dict[str, type[MPOSegmenter]]:
    """Return all segmenters by their code: the built-in ones and those of installed packages."""
    found = dict(BUILT_IN)
    for entry in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        segmenter = entry.load()
        if not (isinstance(segmenter, type) and issubclass(segmenter, MPOSegmenter)):
            raise MethodError(
                f"entry point {entry.name!r} in group {ENTRY_POINT_GROUP} is {segmenter!r}, "
                "expected a subclass of MPOSegmenter"
            )
        found.setdefault(segmenter.get_ppid_code(), segmenter)
    return found


def get_segmenter(code: str) -> type[MPOSegmenter]:
    """Return the segmenter with the given code.

    Raises
    ------
    MethodError
        There is none; the message names those that are there.
    """
    if code in BUILT_IN:
        return BUILT_IN[code]
    available = get_available_segmenters()
    if code not in available:
        raise MethodError(f"unknown segmenter {code!r}, available are {', '.join(sorted(available))}")
    return available[code]
