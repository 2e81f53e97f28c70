"""Calls of all kernels with the types of the pipeline, so that nothing is compiled while a measurement waits.

This module is also the program that compiles in advance: ``python -m dcnumd.logic.warm_up fill FOLDER PARENT``, and
``check FOLDER PARENT``; see `dcnumd.kernels.cache`.
"""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Callable

import numpy as np

from dcnumd.feat.events import Events, extract_events
from dcnumd.feat.feat_background.bg_roll_median import rolling_median
from dcnumd.feat.feat_background.kernels_median import median_of_stack
from dcnumd.feat.feat_background.offset import wall_brightness
from dcnumd.kernels import cache
from dcnumd.kernels.key import cache_key
from dcnumd.logic.mask_bits import draw_masks, mask_dtype, pack_masks
from dcnumd.processes.fork_server import die_with
from dcnumd.read.kernels_checksum import fletcher32
from dcnumd.segm import labeling

SHAPE = (2, 8, 70)


def groups() -> tuple[Callable[[], object], ...]:
    """Return functions that each call a group of kernels, beginning with the slowest to compile."""
    return (_extract, _label, _background, _rest)


def load_kernels() -> None:
    """Load all kernels, or compile those that are not in the cache."""
    for group in groups():
        group()


def _extract() -> None:
    frames = np.zeros(SHAPE, np.uint8)
    index, offset, skip = np.zeros(len(frames), np.int64), np.zeros(len(frames)), np.zeros(len(frames), np.bool_)
    extract_events(frames, frames, index, offset, np.zeros(SHAPE, np.uint16), skip, pixel_size=0.34, size_thresh=10)


def _label() -> None:
    frames = np.zeros(SHAPE, np.uint8)
    index, offset = np.zeros(len(frames), np.int64), np.zeros(len(frames))
    labeling.label_thresholded(frames, frames, index, offset, -6.0, True, True, 2, np.empty(SHAPE, np.uint16))


def _background() -> None:
    frames = np.zeros(SHAPE, np.uint8)
    image = np.empty(SHAPE[1:], np.uint8)
    median_of_stack(frames.reshape(len(frames), -1), 0, image.size, image.reshape(-1))
    rolling_median(frames, 2, frames[:1])


def _rest() -> None:
    frames = np.zeros(SHAPE, np.uint8)
    wall_brightness(frames)
    fletcher32(frames.reshape(-1))
    none = Events(np.zeros((0, 1)), np.zeros(0, np.int64), np.zeros(0, np.uint16), np.zeros((0, 4), np.int32), 0)
    pack_masks(np.zeros(SHAPE, np.uint16), none)
    draw_masks(np.zeros(2, mask_dtype(SHAPE[1:])), frames)
    labeling.duplicate_frames(frames, None)
    # used by segmenters of other packages
    labeling.process_labels(np.zeros(SHAPE, np.uint16), clear_border=True, fill_holes=False, closing_disk=0)


def main() -> None:
    """Fill or check a folder with groups of kernels, whose numbers are read from stdin, one byte each.

    The process ends with its parent, because only the parent can mark the folder as complete.
    """
    action, folder, parent = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
    die_with(parent)
    if folder.name != cache.PREFIX + cache_key():
        sys.exit(f"{folder} is for another version of the kernels; was dcnumd replaced at this moment?")
    {"fill": cache.fill, "check": cache.check}[action](folder)
    all_groups = groups()
    while (number := os.read(0, 1)) and number[0] < len(all_groups):
        all_groups[number[0]]()


if __name__ == "__main__":
    main()
