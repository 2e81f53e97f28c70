"""Evaluates a sample of the recorded frames, for what the features of the events do not contain."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dcnumd.errors import DcnumdError
from dcnumd.feat.feat_background.offset import wall_brightness
from dcnumd.meta.ppid import parse_gate_ppid, ppid_to_kwargs
from dcnumd.read.image_stack import ImageStack
from dcnumd.read.index_mapping import Indices
from dcnumd.report.result_file import ResultData
from dcnumd.segm import labeling
from dcnumd.segm.segm_thresh import SegmentThresh

Frames = npt.NDArray[np.uint8]

BURST = 10
"""Number of neighbouring frames to read in each place. Why neighbours: they are stored in one chunk."""
PLACES = 10
FEWEST_PLACES = 3
MOST_BYTES = 16 * 2**20
"""Largest size of all chunks to unpack; larger chunks mean fewer places [bytes]."""
EVENT_IMAGES = 20
"""Largest number of events' images to read if the recorded frames cannot be reached."""
SATURATED = 255
SPOT = 3
"""Width of a spot whose mean is compared with the background [px]."""


@dataclasses.dataclass(frozen=True, slots=True)
class FrameSample:
    """The evaluation of the sample; values are None, or empty, if the images for them cannot be reached.

    Attributes
    ----------
    position
        Index of the first frame of each place.
    level
        Median brightness in each place [grey levels].
    flicker
        Standard deviation of the brightness of the wall among neighbouring frames [grey levels].
    saturated
        Share of pixels with the largest value that can be stored.
    cells, border_cells
        Number of cells, and number of those that touch the edge of the frame.
    threshold
        Threshold of the segmenter ``thresh`` [grey levels].
    frame, darkest
        For a result without events: the index of each sampled frame, and the deviation of its darkest spot from the
        background [grey levels]. A spot is the mean of `SPOT` by `SPOT` pixels, which noise hardly changes.
    """

    position: tuple[int, ...] = ()
    level: tuple[float, ...] = ()
    flicker: float | None = None
    saturated: float | None = None
    cells: int | None = None
    border_cells: int | None = None
    threshold: float | None = None
    frame: tuple[int, ...] = ()
    darkest: tuple[float, ...] = ()


def sample_frames(data: ResultData) -> FrameSample:
    """Evaluate up to 100 of the processed frames, or a few images of events if the frames cannot be reached."""
    read = _read_bursts(data)
    if not read:
        return _sample_events(data)
    bursts = [(int(indices[0]), frames) for indices, frames in read]
    walls = [wall_brightness(frames) for _, frames in bursts]
    spare = sum(len(wall) - 1 for wall in walls)
    squares = sum(float(((wall - wall.mean()) ** 2).sum()) for wall in walls)
    settings = _segmenter_settings(data)
    pairs = _with_backgrounds(data, bursts)
    cells, border_cells = _count_cells(pairs, settings) if settings else (None, None)
    darkest = [] if len(data) else [_darkest(*pair).tolist() for pair in pairs]
    places = [indices.tolist() for indices, _ in read] if darkest else []
    return FrameSample(
        position=tuple(start for start, _ in bursts),
        level=tuple(_median(frames) for _, frames in bursts),
        flicker=float(np.sqrt(squares / spare)) if spare >= BURST - 1 else None,
        saturated=_saturated([frames for _, frames in bursts]),
        cells=cells,
        border_cells=border_cells,
        threshold=settings[0] if settings else None,
        frame=tuple(itertools.chain.from_iterable(places)),
        darkest=tuple(itertools.chain.from_iterable(darkest)),
    )


def _read_bursts(data: ResultData) -> list[tuple[Indices, Frames]]:
    """Return indices and frames of bursts that are spread over the processed frames."""
    stack, processed = data.source_frames, data.processed
    if stack is None or processed is None or not processed.size:
        return []
    chunk = stack.chunks[0] if stack.chunks else 1
    cost = max(chunk, BURST) * int(np.prod(stack.shape[1:]))
    places = int(np.clip(MOST_BYTES // max(cost, 1), FEWEST_PLACES, PLACES))
    # A burst that begins with a chunk does not need a second one. Of few frames, all are read, and none of them twice.
    step = BURST if processed.size <= BURST * PLACES else max(chunk, BURST)
    firsts = np.unique(np.linspace(0, processed.size - 1, places).astype(np.int64) // step * step)
    bursts = []
    for first in firsts.tolist():
        indices = processed[first : first + BURST]
        try:
            frames = _read(stack, indices)
        except DcnumdError as error:
            data.miss(f"Some of the recorded frames cannot be read: {error.message}.")
            continue
        bursts.append((indices, np.ascontiguousarray(frames)))
    return bursts


def _read(stack: ImageStack, indices: Indices) -> Frames:
    start, end = int(indices[0]), int(indices[-1]) + 1
    if end - start == indices.size:
        return np.asarray(stack[start:end])
    return np.stack([stack[index] for index in indices.tolist()])


def _sample_events(data: ResultData) -> FrameSample:
    """Evaluate a few images of events."""
    if not len(data):
        return FrameSample()
    chosen = np.unique(np.linspace(0, len(data) - 1, min(EVENT_IMAGES, len(data))).astype(np.int64)).tolist()
    images = [image for event in chosen if (image := data.image(event)) is not None]
    return FrameSample(saturated=_saturated(images) if images else None)


def _saturated(stacks: list[Frames]) -> float | None:
    pixels = sum(stack.size for stack in stacks)
    return sum(int(np.count_nonzero(stack == SATURATED)) for stack in stacks) / pixels if pixels else None


def _median(frames: Frames) -> float:
    """Return the median brightness; `numpy.median` takes several times as long."""
    ranks = np.cumsum(np.bincount(frames.ravel(), minlength=256))
    middle = np.searchsorted(ranks, [(frames.size - 1) // 2, frames.size // 2], side="right")
    return float(middle.mean())


def _with_backgrounds(data: ResultData, bursts: list[tuple[int, Frames]]) -> list[tuple[Frames, Frames]]:
    """Return the frames of each burst with their background, of shape (1, y, x).

    If there is none that fits, it is the median of all frames.
    """
    found = [data.background_at(start) for start, _ in bursts]
    shape = bursts[0][1].shape[1:]
    spare = np.empty(shape, np.uint8)
    if any(background is None or background.shape != shape for background in found):
        spare = np.median(np.concatenate([frames for _, frames in bursts]), axis=0).astype(np.uint8)
    used = (spare if background is None or background.shape != shape else background for background in found)
    return [
        (frames, np.ascontiguousarray(background[np.newaxis]))
        for (_, frames), background in zip(bursts, used, strict=True)
    ]


def _darkest(frames: Frames, background: Frames) -> npt.NDArray[np.float32]:
    """Return the deviation of the darkest spot of each frame from the background [grey levels], of shape (frame,)."""
    offset = wall_brightness(frames) - wall_brightness(background)
    deviation = frames.astype(np.float32) - background - offset[:, np.newaxis, np.newaxis].astype(np.float32)
    spots = ndimage.uniform_filter(deviation, (1, SPOT, SPOT), mode="nearest")
    darkest: npt.NDArray[np.float32] = spots.min(axis=(1, 2))
    return darkest


def _count_cells(pairs: list[tuple[Frames, Frames]], settings: tuple[float, bool, int, int]) -> tuple[int, int]:
    """Return the number of cells that the pipeline's threshold finds, and the number of those at the edge."""
    thresh, fill_holes, closing_disk, smallest = settings
    cells = border_cells = 0
    for frames, background in pairs:
        labels = np.empty(frames.shape, np.uint16)
        labeling.label_thresholded(
            frames,
            background,
            np.zeros(len(frames), np.int64),
            wall_brightness(frames) - wall_brightness(background),
            thresh,
            False,
            fill_holes,
            closing_disk,
            labels,
        )
        for frame in labels:
            large = np.bincount(frame.ravel()) > smallest
            large[0] = False
            edge = np.unique(np.concatenate([frame[0], frame[-1], frame[:, 0], frame[:, -1]]))
            cells += int(np.count_nonzero(large))
            border_cells += int(np.count_nonzero(large[edge]))
    return cells, border_cells


def _segmenter_settings(data: ResultData) -> tuple[float, bool, int, int] | None:
    """Return thresh, fill_holes, closing_disk and size_thresh_mask; None for segmenters other than ``thresh``."""
    code, _, text = str(data.meta.get("pipeline:dcnum segmenter", "")).partition(":")
    if code != "thresh":
        return None
    own, _, mask = text.partition(":")
    try:
        thresh = ppid_to_kwargs(SegmentThresh, "segment_algorithm", own)["thresh"]
        given = SegmentThresh.mask_default_kwargs | ppid_to_kwargs(SegmentThresh, "process_labels", mask)
        gate = parse_gate_ppid(str(data.meta.get("pipeline:dcnum gate", "norm:o=0^s=10")))
        return float(thresh), bool(given["fill_holes"]), int(given["closing_disk"]), int(gate["size_thresh_mask"])
    except (DcnumdError, ValueError, TypeError):
        return None
