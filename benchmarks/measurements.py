"""The simulated measurements that cases work on; each is written once."""

from __future__ import annotations

import dataclasses
import pathlib

import h5py

from dcnumd.simulate.measurement import MeasurementSpec, write_measurement

SCALE_FRAMES = 10_000
"""The number of frames that ``--frames`` replaces; others follow in proportion."""
FEWEST_FRAMES = 300
"""dcnum's background needs more than 200 frames."""


@dataclasses.dataclass(frozen=True, slots=True)
class Measurement:
    """What is in a measurement and how it is stored."""

    spec: MeasurementSpec
    contiguous: bool = False
    """Whether all images lie in one piece in the file; the simulated instrument writes chunks."""

    def scaled(self, frames: int) -> Measurement:
        """Return the measurement with fewer or more frames, `frames` in place of 10,000."""
        number = max(round(self.spec.frames * frames / SCALE_FRAMES), min(FEWEST_FRAMES, self.spec.frames))
        return dataclasses.replace(self, spec=dataclasses.replace(self.spec, frames=number))


class Stock:
    """Writes measurements when they are asked for first, and keeps them.

    Parameters
    ----------
    folder
        Where they are written.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._paths: dict[Measurement, pathlib.Path] = {}

    def path(self, measurement: Measurement) -> pathlib.Path:
        """Return the file of a measurement."""
        if measurement not in self._paths:
            path = self._folder / f"S{len(self._paths) + 1:03d}_data.rtdc"
            write_measurement(path, measurement.spec)
            if measurement.contiguous:
                make_contiguous(path)
            self._paths[measurement] = path
        return self._paths[measurement]


def make_contiguous(path: pathlib.Path) -> None:
    """Store the images of a measurement in one piece, without filters."""
    rewritten = path.with_suffix(".part")
    with h5py.File(path, "r") as source, h5py.File(rewritten, "w") as target:
        target.attrs.update(source.attrs)
        for name in source:
            if name != "events":
                source.copy(name, target)
        events = target.create_group("events")
        for name, dataset in source["events"].items():
            if name != "image":
                source.copy(dataset, events)
                continue
            image = events.create_dataset(name, dataset.shape, dataset.dtype)
            image.attrs.update(dataset.attrs)
            for start in range(0, len(dataset), 1000):
                image[start : start + 1000] = dataset[start : start + 1000]
    rewritten.replace(path)
