"""Events of a finished recording that were computed while it grew: which of them hold, and what they are.

A unit of frames holds if all of its frames and their background images are what they were when it was processed.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from dcnumd.feat.feat_background.bg_roll_median import RollingMedianSource
from dcnumd.logic.background import PreparedBackground
from dcnumd.logic.plan import Plan
from dcnumd.logic.recipe import recipe_of
from dcnumd.logic.slot_tasks import Piece
from dcnumd.logic.spool import SpoolFile
from dcnumd.logic.tasks import DIGEST_BYTES, NO_SLOT, FramesReply, FramesTask
from dcnumd.read.chunk_keys import Keys, chunk_keys
from dcnumd.read.chunk_layout import Filter
from dcnumd.read.chunk_table import dataset_filters
from dcnumd.read.frame_reader import FrameSource

logger = logging.getLogger(__name__)

Images = npt.NDArray[np.uint8]
OTHER_IMAGE = -1
"""Number of a background image that was not used while the recording grew."""


def digest_of(image: Images) -> bytes:
    """Return the digest of a background image."""
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=DIGEST_BYTES).digest()


class Spool:
    """The spool of a finished recording, as the job that makes its result uses it.

    Parameters
    ----------
    file
        The open file.
    plan
        The job, whose input is the finished recording.
    """

    def __init__(self, file: SpoolFile, plan: Plan) -> None:
        self._file = file
        self._plan = plan
        arrays = file.arrays
        self.unit = int(arrays["unit"])
        """Number of frames in a unit."""
        image = plan.data.check_frames()
        self._held = _held(plan.frames, dataset_filters(image.dataset), arrays["image_keys"])
        self._medians = dict(zip(arrays["median_starts"].tolist(), arrays["median_images"], strict=True))

    def median(self, start: int, kernel_size: int) -> Images | None:
        """Return the median of the frames that begin at `start`; None if it was not computed, or does not hold."""
        if kernel_size != int(self._file.arrays["kernel_size"]) or start not in self._medians:
            return None
        frames = np.array([start]), np.array([start + kernel_size])
        return self._medians[start] if _all_in(self._held, self._plan.frames.frames_per_chunk, *frames)[0] else None

    def known_events(self, background: PreparedBackground, slot_frames: int, *, fetch: bool) -> KnownEvents | None:
        """Return the events that hold; None if there are none, or if a unit does not fit in a slot.

        Parameters
        ----------
        background
            The background of the finished recording.
        slot_frames
            Number of frames in a slot.
        fetch
            Whether the frames of known events have to be loaded, since their images are written.
        """
        plan, unit = self._plan, self.unit
        if slot_frames < unit:
            return None
        records = self._file.records[: plan.count // unit]
        starts = np.arange(len(records)) * unit
        ahead, own = 0, plan.count
        if isinstance(background.frames, RollingMedianSource):
            ahead = background.frames.kernel_size - 1
            # While the recording grew, frames had windows of their own, which the last frames have not.
            own = max(plan.count - background.frames.kernel_size, 0)
        holds = _all_in(self._held, plan.frames.frames_per_chunk, starts, starts + unit + ahead)
        holds &= starts + unit <= own
        if isinstance(background.frames, FrameSource):
            images = plan.data.image_bg
            assert images is not None, "frames have images of their own"
            held = _held(background.frames, dataset_filters(images.dataset), self._file.arrays["background_keys"])
            holds &= _all_in(held, background.frames.frames_per_chunk, starts, starts + unit)
        for then, now in self._per_frame(background):
            common = min(len(then), len(now), len(starts) * unit) // unit * unit
            same = (then[:common] == now[:common]).reshape(-1, unit).all(axis=1)
            holds[: len(same)] &= same
            holds[len(same) :] = False
        for number in np.flatnonzero(holds).tolist():
            holds[number] = self._file.is_intact(number)
        return KnownEvents(self._file, plan, background, holds, unit, fetch=fetch) if holds.any() else None

    def _per_frame(
        self, background: PreparedBackground
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """Yield what each frame depends on besides images: while the recording grew, and now."""
        arrays = self._file.arrays
        if background.images is not None and background.index is not None:
            numbers = {digest.tobytes(): number for number, digest in enumerate(arrays["image_digests"])}
            now = [numbers.get(digest_of(image), OTHER_IMAGE) for image in background.images.images]
            yield arrays["image_of_frame"], np.array(now, np.int64)[background.index]
        given = np.zeros(0) if background.bg_off is None else np.asarray(background.bg_off, np.float64)
        if len(given) or len(arrays["given_offset"]):
            # as integers, so that equal values that are not numbers are equal
            yield arrays["given_offset"].view(np.int64), np.ascontiguousarray(given).view(np.int64)


class KnownEvents:
    """Events of a finished recording that need not be computed.

    Parameters
    ----------
    file
        The spool.
    plan, background
        The job, and the background of the finished recording.
    holds
        Whether the events of each unit hold, bool (unit,).
    unit
        Number of frames in a unit.
    fetch
        Whether the frames of known events have to be loaded.
    """

    def __init__(
        self,
        file: SpoolFile,
        plan: Plan,
        background: PreparedBackground,
        holds: npt.NDArray[np.bool_],
        unit: int,
        *,
        fetch: bool,
    ) -> None:
        self.unit = unit
        self._file = file
        self._count = plan.count
        self._columns = len(plan.features.names)
        self._background = background
        self._holds = holds
        self._fetch = fetch

    @property
    def frames(self) -> int:
        """Number of frames whose events are known."""
        return int(np.count_nonzero(self._holds)) * self.unit

    def pieces(self, slot_frames: int) -> list[Piece]:
        """Return the frames for the workers, in pieces that fit a slot; they begin at units."""
        length = slot_frames // self.unit * self.unit
        bounds = np.flatnonzero(np.diff(self._holds, prepend=False, append=False)) * self.unit
        pieces = []
        begin, known = 0, False
        for end in [*bounds.tolist(), self._count]:
            if self._fetch or not known:
                pieces += [Piece(first, min(first + length, end), known) for first in range(begin, end, length)]
            begin, known = end, not known
        return pieces

    def batch_at(self, first: int) -> tuple[FramesTask, FramesReply] | None:
        """Return the events from a frame on if they are known, and their frames are not needed."""
        if self._fetch or first % self.unit or not self._holds[first // self.unit : first // self.unit + 1].any():
            return None
        of_frames = self._background.of_frames(slice(first, first + self.unit))
        return FramesTask(NO_SLOT, 0, self.unit, first, *of_frames), self.reply_at(first)

    def reply_at(self, first: int) -> FramesReply:
        """Return the events of the unit that begins at a frame."""
        return self._file.read(first // self.unit, self._columns)


@contextlib.contextmanager
def opened_spool(plan: Plan) -> Iterator[Spool | None]:
    """Open the spool of a job in the block; None if it has none that can be used."""
    path = plan.job.spool
    if path is None or plan.data.index_mapping is not None or plan.frames.indices is not None:
        yield None
        return
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(SpoolFile(path))
            same = file.arrays["recipe"].tobytes().decode() == recipe_of(plan)
            spool = Spool(file, plan) if same else None
        except (OSError, ValueError, KeyError) as error:
            logger.info("%s: events of the growing recording cannot be used: %s", path, error)
            spool = None
        yield spool


def _held(source: FrameSource, filters: tuple[Filter, ...], former: Keys) -> npt.NDArray[np.bool_]:
    """Return whether the first chunks of a dataset are what they were, bool (chunk,)."""
    if source.table is None:
        return np.zeros(0, np.bool_)
    count = min(len(former), source.table.offsets.shape[0])
    now = chunk_keys(source.path, source.table, filters, 0, count)
    held: npt.NDArray[np.bool_] = (now == former[:count]).all(axis=1)
    return held


def _all_in(
    held: npt.NDArray[np.bool_], frames_per_chunk: int, starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Return for each range of frames whether all of its chunks are what they were."""
    changed = np.concatenate([[0], np.cumsum(~held)])
    first, last = starts // frames_per_chunk, -(-stops // frames_per_chunk)
    inside = last <= len(held)
    last = np.minimum(last, len(held))
    holds: npt.NDArray[np.bool_] = inside & (changed[last] == changed[np.minimum(first, last)])
    return holds
