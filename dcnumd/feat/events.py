"""Events: the masks of labelled frames and their features.

Names, units and the order of columns are those of the table in `dcnumd.meta.features`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from dcnumd.feat.correlation import correlation_measures
from dcnumd.feat.kernels_events import NUM_BRIGHTNESS, NUM_CONTOUR, NUM_VOLUME, POS_X, POS_Y, extract
from dcnumd.feat.kernels_texture import DOUBTFUL, F13_MEAN, NUM_TEXTURE
from dcnumd.feat.scratch import Scratch, new_scratch
from dcnumd.meta.features import names_of

Scalar = TypeVar("Scalar", bound=np.generic)

FEATURES_CONTOUR = names_of("contour")
FEATURES_VOLUME = names_of("volume")
FEATURES_BRIGHTNESS = names_of("brightness")
FEATURES_TEXTURE = names_of("texture")
FEATURES = FEATURES_CONTOUR + FEATURES_VOLUME + FEATURES_BRIGHTNESS + FEATURES_TEXTURE

# The kernels write columns by number. Why not import the table there? Its constants would be compiled into the kernels,
# and each change of a label would compile all kernels again.
assert len(FEATURES_CONTOUR) == NUM_CONTOUR
assert len(FEATURES_VOLUME) == NUM_VOLUME
assert len(FEATURES_BRIGHTNESS) == NUM_BRIGHTNESS
assert len(FEATURES_TEXTURE) == NUM_TEXTURE
assert (FEATURES_CONTOUR[POS_X], FEATURES_CONTOUR[POS_Y]) == ("pos_x", "pos_y")
assert FEATURES_TEXTURE[-4:] == ("tex_f12_avg", "tex_f12_ptp", "tex_f13_avg", "tex_f13_ptp")
assert FEATURES_TEXTURE[F13_MEAN] == "tex_f13_avg"


def feature_names(*, brightness: bool = True, haralick: bool = True, volume: bool = True) -> tuple[str, ...]:
    """Return the names of the columns of an events table, in order, for the chosen groups of features."""
    return FEATURES_CONTOUR + FEATURES_VOLUME * volume + FEATURES_BRIGHTNESS * brightness + FEATURES_TEXTURE * haralick


class Workspace:
    """Buffers of `extract_events`, which are reused between calls and grow with the frames; not thread-safe."""

    def __init__(self) -> None:
        self._shape = (0, 0)
        self._scratch: Scratch | None = None

    def scratch_for(self, height: int, width: int) -> Scratch:
        """Return buffers for frames of at least (height, width) pixels."""
        known_height, known_width = self._shape
        if self._scratch is None or height > known_height or width > known_width:
            self._shape = (max(height, known_height), max(width, known_width))
            self._scratch = new_scratch(*self._shape)
        return self._scratch


@dataclass(frozen=True)
class Events:
    """The events of a batch of frames, ordered by frame, then by label.

    Attributes
    ----------
    table
        Features, float64 (event, feature); the columns are `feature_names` for the same groups.
    frame
        Index of the frame in the batch, int64 (event,).
    label
        Label of the event in its frame, uint16 (event,).
    box
        Bounding box of the mask [px]: y0, y1, x0, x1, half open, int32 (event, 4).
    invalid
        Number of masks without an event, because their contour encloses no area.
    """

    table: npt.NDArray[np.float64]
    frame: npt.NDArray[np.int64]
    label: npt.NDArray[np.uint16]
    box: npt.NDArray[np.int32]
    invalid: int


def extract_events(
    images: npt.NDArray[np.uint8],
    backgrounds: npt.NDArray[np.uint8],
    background_index: npt.NDArray[np.int64],
    bg_off: npt.NDArray[np.float64],
    labels: npt.NDArray[np.uint16],
    skip: npt.NDArray[np.bool_],
    *,
    pixel_size: float,
    size_thresh: int,
    brightness: bool = True,
    haralick: bool = True,
    volume: bool = True,
    workspace: Workspace | None = None,
) -> Events:
    """Compute the features of all events in a batch of labelled frames.

    An event is a label of more than `size_thresh` pixels whose contour encloses an area. If a label has several pieces,
    its contour is that of the piece whose first pixel is last in raster order, not counting pieces in the hole of
    another one. Brightness and texture are computed from all pixels of the label.

    Parameters
    ----------
    images
        Frames, uint8 (frame, y, x).
    backgrounds
        Background images, uint8 (background, y, x).
    background_index
        Index of the background image of each frame, int64 (frame,).
    bg_off
        Brightness offset of each frame from its background, float64 (frame,); empty for none.
    labels
        Labels, uint16 (frame, y, x), 0 for background. Labels need not be consecutive, and may have several pieces.
    skip
        Frames without events, which are duplicates of the frame before, bool (frame,).
    pixel_size
        Side of a pixel [µm].
    size_thresh
        Number of pixels that a mask must exceed.
    brightness, haralick, volume
        Whether to compute these groups of features, in addition to those of the contour.
    workspace
        Buffers from an earlier call; None to allocate new ones.

    Raises
    ------
    ValueError
        The arrays have wrong shapes or dtypes.

    Notes
    -----
    Contours are those of Suzuki and Abe (CVGIP 30, 1985), moments follow from Green's theorem, textures from
    Haralick et al. (IEEE Trans. SMC 3, 1973). The kernel runs without the GIL.
    """
    _check_arrays(images, backgrounds, background_index, bg_off, labels, skip)
    columns = len(feature_names(brightness=brightness, haralick=haralick, volume=volume))
    room = len(images) + 64
    frame = events = invalid = 0
    table = np.empty((0, columns), np.float64)
    event_frame = np.empty(0, np.int64)
    event_label = np.empty(0, np.uint16)
    event_box = np.empty((0, 4), np.int32)
    settings = (float(pixel_size), int(size_thresh), bool(brightness), bool(haralick), bool(volume))
    arrays = (
        np.ascontiguousarray(images),
        np.ascontiguousarray(backgrounds),
        np.ascontiguousarray(background_index),
        np.full(len(backgrounds), np.nan),
        np.ascontiguousarray(bg_off),
        np.ascontiguousarray(labels),
        np.ascontiguousarray(skip),
    )
    scratch: tuple[npt.NDArray[Any], ...] = tuple((workspace or Workspace()).scratch_for(*images.shape[1:]))
    while frame < len(images):
        table = _enlarge(table, room)
        event_frame = _enlarge(event_frame, room)
        event_label = _enlarge(event_label, room)
        event_box = _enlarge(event_box, room)
        frame, events, invalid, room = extract(
            *arrays, *settings, scratch, frame, events, invalid, table, event_frame, event_label, event_box
        )
        room *= 2
    found = Events(table[:events], event_frame[:events], event_label[:events], event_box[:events], invalid)
    if haralick:
        _settle_doubtful(found, images, backgrounds, background_index, labels)
    return found


def _settle_doubtful(
    events: Events,
    images: npt.NDArray[np.uint8],
    backgrounds: npt.NDArray[np.uint8],
    background_index: npt.NDArray[np.int64],
    labels: npt.NDArray[np.uint16],
) -> None:
    """Compute f12 and f13, the last four columns, for events where the kernel marks them as doubtful."""
    for number in np.flatnonzero(events.table[:, -2] == DOUBTFUL):
        frame, (top, bottom, left, right) = events.frame[number], events.box[number]
        place = frame, slice(top, bottom), slice(left, right)
        mask = labels[place] == events.label[number]
        corrected = images[place].astype(np.int16) - backgrounds[(background_index[frame], *place[1:])]
        grey = ((corrected - corrected[mask].min() + 1) * mask).astype(np.uint8)
        events.table[number, -4:] = correlation_measures(grey)


def _enlarge(array: npt.NDArray[Scalar], length: int) -> npt.NDArray[Scalar]:
    larger = np.empty((length, *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger


def _check_arrays(
    images: npt.NDArray[np.uint8],
    backgrounds: npt.NDArray[np.uint8],
    background_index: npt.NDArray[np.int64],
    bg_off: npt.NDArray[np.float64],
    labels: npt.NDArray[np.uint16],
    skip: npt.NDArray[np.bool_],
) -> None:
    """Raise an error for arrays of which the kernel would read out of bounds."""
    frames = len(images)
    if images.ndim != 3 or labels.shape != images.shape or backgrounds.shape[1:] != images.shape[1:]:
        raise ValueError(
            "images, labels and backgrounds must be (frame, y, x) with one frame size, "
            f"got {images.shape}, {labels.shape}, {backgrounds.shape}"
        )
    if background_index.shape != (frames,) or skip.shape != (frames,) or bg_off.shape not in {(frames,), (0,)}:
        raise ValueError(
            f"expected one background_index, skip and bg_off (or no bg_off) for each of {frames} frames, "
            f"got {background_index.shape}, {skip.shape}, {bg_off.shape}"
        )
    if frames and not 0 <= background_index.min() <= background_index.max() < len(backgrounds):
        raise ValueError(
            f"background_index must be within 0…{len(backgrounds) - 1}, "
            f"got {background_index.min()}…{background_index.max()}"
        )
    for name, array, kinds in (("images", images, "u1"), ("backgrounds", backgrounds, "u1"), ("labels", labels, "u2")):
        if array.dtype != np.dtype(kinds):
            raise ValueError(f"{name} must be {np.dtype(kinds)}, got {array.dtype}")
