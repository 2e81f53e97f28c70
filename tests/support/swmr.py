"""Recordings in SWMR mode: a second instrument, dclab's own writer, and recorders that crash."""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from dclab import RTDCWriter

from dcnumd.simulate.content import initial_metadata, scalar_features
from dcnumd.simulate.scene import Scene
from dcnumd.simulate.spec import MeasurementSpec
from dcnumd.simulate.swmr import EVENT_COUNT, SwmrRecorder


class DclabRecorder:
    """Records a simulated measurement with `dclab.RTDCWriter` on a file in SWMR mode.

    dclab creates a dataset with its first frames, and replaces its attributes (smallest, largest and mean value) with
    each append. In SWMR mode, HDF5 2.0 does that only if their size stays the same, which is not so for integers such
    as ``frame``. The attributes that dclab writes at the end exist from the start.

    Parameters
    ----------
    path
        The file to write.
    spec
        The content of the measurement.
    first
        The number of frames that are written before SWMR mode starts.
    """

    def __init__(self, path: pathlib.Path, spec: MeasurementSpec, first: int) -> None:
        self.spec = spec
        self._scene = Scene(spec)
        self.h5 = h5py.File(path, "w", libver="latest")
        self.h5.attrs.update(initial_metadata(spec))
        self._writer = RTDCWriter(self.h5)
        self._writer.store_log("acquisition", ["Recorded with dclab in SWMR mode"])
        self._writer.version_brand()
        self.append(first)
        self._writer.rectify_metadata()
        self.h5.swmr_mode = True

    def __enter__(self) -> DclabRecorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)
        self.h5.close()

    def append(self, stop: int, *names: str) -> None:
        """Append the frames up to `stop` to some features, or to all, and flush each one."""
        for name, values in self._values(stop).items():
            if (names and name not in names) or not len(values):
                continue
            self._writer.store_feature(name, values)
            self.h5["events"][name].flush()

    def _values(self, stop: int) -> Mapping[str, npt.NDArray[Any]]:
        """Return the frames of each feature after those that it has, up to `stop`."""
        return {name: self._slice(name, self._length(name), stop) for name in ("time", "temp", "pressure", "image")}

    def _slice(self, name: str, start: int, stop: int) -> npt.NDArray[Any]:
        if name == "image":
            return np.asarray(self._scene.render(start, stop))
        return scalar_features(self.spec, start, stop)[name]

    def _length(self, name: str) -> int:
        return len(self.h5["events"][name]) if name in self.h5.get("events", {}) else 0


def crashed_recording(path: pathlib.Path, spec: MeasurementSpec, frames: Mapping[str, int]) -> None:
    """Write the file that a recorder leaves when it is killed.

    Parameters
    ----------
    path
        The file to write.
    spec
        The content of the measurement.
    frames
        The number of frames that each feature has; those that are not named have as many as ``image``.
    """
    whole = path.with_name(f".{path.name}.whole")
    with SwmrRecorder(whole, spec) as recorder:
        for name in recorder.features:
            recorder.append(frames.get(name, frames["image"]), name)
        recorder.flush()
        shutil.copy(whole, path)
    whole.unlink()


def cut_copy(crashed: pathlib.Path, path: pathlib.Path, frames: int) -> None:
    """Write what ``h5clear -s --increment=0`` makes of a crashed recording, with all features cut to one length."""
    with h5py.File(crashed, swmr=True, locking=False) as source, h5py.File(path, "w") as target:
        for name in source:
            source.copy(name, target)
        target.attrs.update({**source.attrs, EVENT_COUNT: frames})
        for dataset in target["events"].values():
            dataset.resize(frames, axis=0)


def tear_last_chunk(path: pathlib.Path) -> None:
    """Leave only the first half of the last chunk of the images, as a power failure does."""
    with h5py.File(path, swmr=True, locking=False) as h5:
        image = h5["events/image"]
        chunk = image.id.get_chunk_info_by_coord(((len(image) - 1) // image.chunks[0] * image.chunks[0], 0, 0))
    with path.open("r+b") as file:
        file.seek(chunk.byte_offset + chunk.size // 2)
        file.write(bytes(chunk.size - chunk.size // 2))
