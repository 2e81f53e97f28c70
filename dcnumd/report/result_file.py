"""Opens and reads a result of dcnumd or dcnum."""

from __future__ import annotations

import contextlib
import functools
import pathlib
import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from dcnumd.errors import MeasurementError
from dcnumd.read.hdf5_data import HDF5Data
from dcnumd.read.image_stack import ImageStack
from dcnumd.read.index_mapping import Indices
from dcnumd.read.metadata import ORIGIN
from dcnumd.read.open_file import HDF5_FAULTS, members, open_measurement
from dcnumd.read.trust import Trust, trust_in_force, trusting
from dcnumd.report.processed import WHOLE_MEASUREMENT, processed_frames
from dcnumd.report.processing import Run, read_run
from dcnumd.report.request import ReportRequest

Frame = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]

KEPT = 12
"""Largest number of features to keep in memory; a result may have millions of events."""
PIXELS = {"image": "images", "mask": "masks", "image_bg": "background images"}
"""Features that are pictures, with their names in sentences."""
COUNTING = ("area_um", "deform", "pos_x", "basinmap0", "mask", "frame", "time")
"""Features whose length is the number of events, in order of preference."""
PROCESSED = re.compile(r"pipeline:dcnum hash|user:dcevent ")
"""Attributes of measurements whose features are those of dcnum, or of its predecessor, and not of the instrument."""
SHARED_BACKGROUNDS = "basin_events/image_bg"
"""Dataset with the background images that events share."""
MOST_SHARED_BYTES = 64 * 2**20
"""Largest size of these images that is read [bytes]."""


class ResultData:
    """A result: its attributes, the scalar features of its events, and the pictures that can be read.

    Methods and properties return None for data that cannot be read; `missing` says why.

    Parameters
    ----------
    data
        The open file.

    Attributes
    ----------
    path
        Path of the file.
    meta
        Attributes of the file, by ``section:key``.
    missing
        Sentences on what cannot be shown.
    """

    def __init__(self, data: HDF5Data) -> None:
        self.path = data.path
        self.meta = data.meta
        self.missing: list[str] = []
        self._data = data
        self._opened = contextlib.ExitStack()
        self._scalars: dict[str, Values | None] = {}
        self._events = {name: item for name, item in members(data.h5, "events").items() if isinstance(name, str)}
        self._count = self._count_events()
        self._stacks = {name: self._stack(name) for name in PIXELS}

    def close(self) -> None:
        """Close the other files that were opened."""
        self._opened.close()

    def __len__(self) -> int:
        """Return the number of events."""
        return self._count

    def _count_events(self) -> int:
        """Return the number of events by the length of the features; note if the file's attribute differs."""
        lengths = (self._events[name].shape for name in COUNTING if name in self._events)
        stored = self.meta.get("experiment:event count")
        said = int(stored) if isinstance(stored, int | float) and 0 <= stored < 2**53 else None
        count = next((int(shape[0]) for shape in lengths if shape), said or 0)
        if said is not None and said != count:
            self.miss(f"The file says that it has {said:,} events, but there are {count:,}.")
        return count

    @property
    def has_images(self) -> bool:
        """Whether the images of the events can be reached."""
        return self._stacks["image"] is not None

    @property
    def frame_size(self) -> tuple[int, int] | None:
        """Height and width of the frames [px]; None if there are neither images nor masks."""
        stack = self._stacks["image"] or self._stacks["mask"]
        return (int(stack.shape[1]), int(stack.shape[2])) if stack is not None else None

    @functools.cached_property
    def run(self) -> Run:
        """What the logs say about the processing; empty if they cannot be read."""
        try:
            return read_run(self._data.logs)
        except MeasurementError as error:
            self.miss(f"The logs cannot be read: {error.message}.")
            return Run()

    @property
    def interrupted_after(self) -> int | None:
        """Number of frames after which the recording was interrupted; None if it was not."""
        try:
            attributes = self._data.h5["events"].attrs
            frames = attributes.get(f"{ORIGIN}frames") if attributes.get(f"{ORIGIN}interrupted") else None
            return None if frames is None else int(frames)
        except HDF5_FAULTS:
            return None

    # -- numbers ----------------------------------------------------------------------------------

    @functools.cached_property
    def scalar_names(self) -> list[str]:
        """Names of the scalar features in the file itself, sorted."""
        return sorted(
            name
            for name, item in self._events.items()
            if item.shape is not None and len(item.shape) == 1 and not name.startswith("basinmap")
        )

    def scalar(self, name: str) -> Values | None:
        """Return a scalar feature, float64 of shape (event,); None if there is none with one value for each event."""
        found = self._scalars.pop(name) if name in self._scalars else self._read(name)
        # The features that were requested least recently are dropped first.
        self._scalars[name] = found
        if len(self._scalars) > KEPT:
            del self._scalars[next(iter(self._scalars))]
        return found

    def _read(self, name: str) -> Values | None:
        try:
            stack = self._data.find(name)
            if stack is None or stack.ndim != 1 or stack.dtype.kind not in "biuf":
                return None
            if len(stack) != self._count:
                self.miss(f"The feature {name} has {len(stack):,} values for {self._count:,} events.")
                return None
            return stack[:].astype(np.float64)
        except MeasurementError as error:
            self.miss(f"The feature {name} cannot be read: {error.message}.")
            return None

    @functools.cached_property
    def positions(self) -> Values | None:
        """Index of the frame in which each event was found, from 0 on; None if not known."""
        found = self.scalar("basinmap0")
        if found is None and (frame := self.scalar("frame")) is not None and frame.size:
            found = frame - frame.min()
        return found

    # -- pictures ---------------------------------------------------------------------------------

    def image(self, index: int) -> Frame | None:
        """Return the frame of an event, of shape (y, x)."""
        return self._picture("image", index)

    def background(self, index: int) -> Frame | None:
        """Return the background of an event, of shape (y, x)."""
        return self._picture("image_bg", index)

    def mask(self, index: int) -> Mask | None:
        """Return the mask of an event, of shape (y, x)."""
        found = self._picture("mask", index)
        return None if found is None else found.astype(np.bool_)

    def background_at(self, position: int) -> Frame | None:
        """Return the background of the first event at or after a frame; after the last event, of the last one.

        Without events, the result does not say which background image belongs to a frame. The images are then taken as
        evenly spread over the processed frames.
        """
        if not self._count and self.processed is not None and (images := self.background_images):
            place = int(np.searchsorted(self.processed, position))
            return images[min(place * len(images) // max(len(self.processed), 1), len(images) - 1)]
        if not self._count or self.positions is None:
            return None
        event = int(np.searchsorted(self.positions, position))
        return self.background(min(event, self._count - 1))

    @functools.cached_property
    def background_images(self) -> list[Frame]:
        """Background images that events share, each of shape (y, x); empty if there are none, or too many to keep."""
        try:
            stored = self._data.stored(SHARED_BACKGROUNDS)
            if stored is None or stored.ndim != 3 or stored.dtype != np.uint8 or stored.size > MOST_SHARED_BYTES:
                return []
            return list(ImageStack(stored, None, as_bool=False, where=str(self.path))[:])
        except MeasurementError as error:
            self.miss(f"The background images cannot be read: {error.message}.")
            return []

    def _stack(self, name: str) -> ImageStack | None:
        try:
            stack = self._data.find(name)
        except MeasurementError as error:
            self.miss(f"The {PIXELS[name]} cannot be reached: {error.message}.")
            return None
        if stack is None:
            if self._count:
                self.miss(f"There are no {PIXELS[name]} in this result.")
            return None
        if stack.ndim != 3 or len(stack) != self._count or stack.dtype.kind not in "bu":
            found = "x".join(map(str, stack.shape))
            self.miss(f"The {PIXELS[name]} cannot be shown: they are {stack.dtype} of shape {found}.")
            return None
        return stack

    def _picture(self, name: str, index: int) -> Frame | None:
        stack = self._stacks[name]
        if stack is None:
            return None
        try:
            return np.asarray(stack[index])
        except MeasurementError as error:
            self.miss(f"Some {PIXELS[name]} cannot be read: {error.message}.")
            return None

    # -- the measurement --------------------------------------------------------------------------

    @property
    def whole(self) -> bool:
        """Whether all frames of the measurement were processed."""
        return self._mapping == WHOLE_MEASUREMENT

    @property
    def _mapping(self) -> str:
        return str(self.meta.get("pipeline:dcnum mapping", WHOLE_MEASUREMENT))

    @functools.cached_property
    def processed(self) -> Indices | None:
        """Indices of the processed frames of the measurement, of shape (frame,), ascending; None if not known."""
        if self.source_frames is None:
            return None
        return processed_frames(self._mapping, self.run.listed, len(self.source_frames))

    @functools.cached_property
    def source(self) -> HDF5Data | None:
        """The processed measurement, opened; None if it cannot be reached."""
        with contextlib.suppress(MeasurementError):
            for basin in self._data.basins:
                if basin.kind == "file" and basin.may_have("image"):
                    return self._data.open_basin(basin)
            return self._open_named()
        return None

    def _open_named(self) -> HDF5Data | None:
        """Open the measurement that the log of the run names; return None if its identifier is not the expected one."""
        path = pathlib.Path(self.run.path_in)
        if not path.is_absolute() or "\0" in str(path) or not trust_in_force().allows_basin(path):
            return None
        data = self._opened.enter_context(HDF5Data(path))
        expected = str(self.meta.get("experiment:run identifier", "")).rpartition("_dcn-")[0]
        return data if expected and data.is_identified_by(expected) else None

    @functools.cached_property
    def source_frames(self) -> ImageStack | None:
        """All frames of the measurement, uint8 of shape (frame, y, x); None if they cannot be reached."""
        if self.source is None:
            return None
        try:
            stack = self.source.find("image")
        except MeasurementError:
            return None
        return stack if stack is not None and stack.ndim == 3 and stack.dtype == np.uint8 else None

    @functools.cached_property
    def source_times(self) -> Values | None:
        """Times of the first and the last frame of the measurement [s], of shape (2,); None if not known."""
        if self.source is None:
            return None
        try:
            stack = self.source.find("time")
            if stack is None or stack.ndim != 1 or not len(stack) or stack.dtype.kind not in "iuf":
                return None
            ends = np.array([stack[0], stack[len(stack) - 1]], np.float64)
        except MeasurementError:
            return None
        return ends if np.isfinite(ends).all() and ends[1] >= ends[0] else None

    @functools.cached_property
    def online_events(self) -> int | None:
        """Number of events that the instrument measured; None if the measurement has no features of the instrument.

        Its attribute ``experiment:event count`` does not tell: in a measurement without features it is the number of
        frames.
        """
        if self.source is None or not self.whole or any(map(PROCESSED.match, self.source.meta)):
            return None
        try:
            areas = self.source.find("area_um")
            if areas is None or areas.ndim != 1 or areas.dtype.kind not in "iuf":
                return None
            return int(np.count_nonzero(areas[:] > 0))
        except MeasurementError:
            return None

    def stored_names(self, group: str) -> frozenset[str]:
        """Return the names of the datasets in a group of the result; none if they cannot be read."""
        return _names(self._data, group)

    def source_names(self, group: str) -> frozenset[str]:
        """Return the names of the datasets in a group of the measurement; none if it cannot be reached."""
        return _names(self.source, group) if self.source is not None else frozenset()

    def scalar_of_frames(self, name: str) -> Values | None:
        """Return a scalar feature of the measurement, the value of its frame for each event; None if there is none."""
        frames = self.scalar("basinmap0")
        if self.source is None or frames is None:
            return None
        try:
            stack = self.source.find(name)
            if stack is None or stack.ndim != 1 or stack.dtype.kind not in "biuf":
                return None
            values = stack[:].astype(np.float64)
        except MeasurementError:
            return None
        places = frames.astype(np.int64)
        return values[places] if not places.size or places.max() < values.size else None

    def miss(self, sentence: str) -> None:
        """Add a sentence on what cannot be shown, unless it is there already."""
        if sentence not in self.missing:
            self.missing.append(sentence)


def _names(data: HDF5Data, group: str) -> frozenset[str]:
    try:
        return frozenset(data.stored_names(group))
    except MeasurementError:
        return frozenset()


@contextlib.contextmanager
def open_result(request: ReportRequest) -> Iterator[ResultData]:
    """Yield the result of a request, opened.

    Raises
    ------
    MeasurementError
        If the file cannot be opened, or, with the reason ``no_result``, if it is not a result.
    """
    path = pathlib.Path(request.path_result)
    # The result may be that of a recording that was interrupted.
    trust = Trust(request.trusted_folders, basins=request.trust_basins, interrupted=True)
    with trusting(trust), open_measurement(path, keep_chunks=False) as h5, HDF5Data(h5) as data:
        events = members(data.h5, "events")
        processed = "pipeline:dcnum hash" in data.meta or {"area_um", "deform"} <= events.keys()
        if "events" not in data.h5 or not processed:
            message = f"{path}: is no result of dcnum or dcnumd; process it first (dcnumd process {path.name})"
            raise MeasurementError(message, "no_result")
        result = ResultData(data)
        with contextlib.closing(result):
            yield result
