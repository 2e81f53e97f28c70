"""Kernel: from labelled frames to a table of events."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from dcnumd.feat.kernels_brightness import brightness_features, median_of_image
from dcnumd.feat.kernels_contour import cut_out, find_contour, find_labels
from dcnumd.feat.kernels_moments import contour_features
from dcnumd.feat.kernels_texture import texture_features
from dcnumd.feat.kernels_volume import contour_volume
from dcnumd.kernels.decorator import kernel

NUM_CONTOUR = 18
POS_X = 13
POS_Y = 14
NUM_VOLUME = 1
NUM_BRIGHTNESS = 7


@kernel
def extract(
    images: npt.NDArray[np.uint8],
    backgrounds: npt.NDArray[np.uint8],
    background_index: npt.NDArray[np.int64],
    medians: npt.NDArray[np.float64],
    bg_off: npt.NDArray[np.float64],
    labels: npt.NDArray[np.uint16],
    skip: npt.NDArray[np.bool_],
    pixel_size: float,
    size_thresh: int,
    brightness: bool,
    haralick: bool,
    volume: bool,
    scratch: tuple[npt.NDArray[Any], ...],
    frame: int,
    events: int,
    invalid: int,
    table: npt.NDArray[np.float64],
    event_frame: npt.NDArray[np.int64],
    event_label: npt.NDArray[np.uint16],
    event_box: npt.NDArray[np.int32],
) -> tuple[int, int, int, int]:
    """Append the events from `frame` on to the four tables, see `dcnumd.feat.events.extract_events`.

    Stops at a frame whose labels may not all fit. Returns the next frame, the events and invalid masks so far,
    and the events to make room for before the kernel can go on. `medians` (background,) is NaN where unknown.
    `scratch` is a `dcnumd.feat.scratch.Scratch` as a plain tuple: a named one would be stored by its class in
    numba's cache, which could then not be read by a version that defines it elsewhere.
    """
    (
        label_box,
        label_seen,
        runs,
        window,
        grey,
        position,
        pixel_brightness,
        corrected,
        corrected_count,
        image_count,
        contour_x,
        contour_y,
        row_left,
        row_right,
        hull_x,
        hull_y,
        grey_count,
        pair_count,
        pair_seen,
        marginal,
        difference_count,
        sum_count,
        texture,
        entropy_table,
    ) = scratch
    capacity = len(table)
    while frame < len(images):
        if skip[frame]:
            frame += 1
            continue
        found = find_labels(labels[frame], label_box, label_seen, runs)
        if events + found > capacity:
            for i in range(found):
                label_box[label_seen[i], 0] = 0
            return frame, events, invalid, events + found
        which = background_index[frame]
        for i in range(found):
            label = int(label_seen[i])
            measured = label_box[label]
            pixels = int(measured[0])
            measured[0] = 0
            if pixels <= size_thresh:
                continue
            box = (int(measured[1]), int(measured[2]), int(measured[3]), int(measured[4]))
            first_run = int(measured[5])
            cut_out(
                runs,
                first_run,
                images[frame],
                backgrounds[which],
                box,
                window,
                position,
                pixel_brightness,
                corrected,
            )
            length = find_contour(runs, first_run, box, window, contour_x, contour_y)
            row = table[events]
            if not contour_features(
                contour_x,
                contour_y,
                length,
                pixel_size,
                row_left,
                row_right,
                hull_x,
                hull_y,
                row,
            ):
                invalid += 1
                continue
            column = NUM_CONTOUR
            if volume:
                row[column] = contour_volume(contour_x, contour_y, length, row[POS_X], row[POS_Y], pixel_size)
                column += NUM_VOLUME
            if brightness:
                if math.isnan(medians[which]):
                    medians[which] = median_of_image(backgrounds[which], image_count)
                offset = bg_off[frame] if len(bg_off) else 0.0
                brightness_features(
                    pixel_brightness,
                    corrected,
                    pixels,
                    medians[which],
                    offset,
                    corrected_count,
                    row[column:],
                )
                column += NUM_BRIGHTNESS
            if haralick:
                stride = box[3] - box[2] + 2
                texture_features(
                    corrected,
                    position,
                    pixels,
                    stride,
                    stride * (box[1] - box[0] + 2),
                    grey,
                    grey_count,
                    pair_count,
                    pair_seen,
                    marginal,
                    difference_count,
                    sum_count,
                    entropy_table,
                    texture,
                    row[column:],
                )
            event_frame[events] = frame
            event_label[events] = label
            for side in range(4):
                event_box[events, side] = measured[1 + side]
            events += 1
        frame += 1
    return frame, events, invalid, events
