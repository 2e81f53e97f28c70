"""Loads all that reports need, in a process that then makes them one after the other."""

from __future__ import annotations

import gc

import numpy as np

from dcnumd.feat.feat_background.offset import wall_brightness
from dcnumd.read.kernels_checksum import fletcher32
from dcnumd.report import index, isoelastics, make, page, plots, scatter
from dcnumd.report.cloud import cloud
from dcnumd.segm import labeling

__all__ = ["load", "make"]


def load(*, with_isoelastics: bool) -> None:
    """Load kernels, fonts and templates by using each of them once, and the library for isoelasticity lines.

    What is loaded never becomes garbage. It is left out of the collection of garbage, which would copy the memory that
    a forked copy of this process shares with it.
    """
    frames = np.zeros((2, 8, 70), np.uint8)
    index_of_background, offset = np.zeros(len(frames), np.int64), wall_brightness(frames)
    labels = np.empty(frames.shape, np.uint16)
    labeling.label_thresholded(frames, frames, index_of_background, offset, -6.0, False, True, 2, labels)
    fletcher32(frames.reshape(-1))
    values = np.arange(4.0)
    points = cloud(values, values)
    if points is not None:
        dots = scatter.dots(points)
        scatter.picture(points, dots, ("x", "y"))
        scatter.thumbnail(points)
        scatter.plot(points, dots, ("x", "y"), points.index, "load")
    plots.histogram(values, "x", None, "load")
    page.template()
    index.template()
    if with_isoelastics:
        isoelastics.load()
    gc.collect()
    gc.freeze()
