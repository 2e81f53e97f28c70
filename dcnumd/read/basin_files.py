"""The files that the basins of a measurement name, open for reading."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from dcnumd.errors import MeasurementError
from dcnumd.read.basin import Basin, BasinFailures
from dcnumd.read.image_stack import ImageStack
from dcnumd.read.trust import Trust

MAX_BASIN_DEPTH = 8
"""Number of files that may refer to each other in a row."""


class BasinData(Protocol):
    """What a measurement needs of another one that is its basin."""

    path: pathlib.Path

    @property
    def measurement_identifier(self) -> str | None:
        """Identifier of the measurement."""

    @property
    def basin_files(self) -> list[pathlib.Path]:
        """Files of its own basins that were opened so far."""

    def is_identified_by(self, identifier: str) -> bool:
        """Return whether this is the measurement with that identifier."""

    def find(self, feature: str) -> ImageStack | None:
        """Return a feature without reading it, None when there is none."""

    def keys(self) -> list[str]:
        """Return the features that can be read."""

    def close(self) -> None:
        """Close the file."""


DataT = TypeVar("DataT", bound=BasinData)


class BasinFiles(Generic[DataT]):
    """Opens the file of a basin when it is first needed, and keeps it open.

    Parameters
    ----------
    path
        The measurement that has the basins.
    referring
        The files that lead to it, each a basin of the one before, and itself at the end.
    trust
        Which other files may be read.
    open_file
        Opens a measurement as a basin. It should not hold the measurement that has the basins: in a reference cycle,
        one that nobody closed would keep its file open until the next garbage collection.
    """

    def __init__(
        self,
        path: pathlib.Path,
        referring: tuple[pathlib.Path, ...],
        trust: Trust,
        open_file: Callable[[pathlib.Path], DataT],
    ) -> None:
        self._path = path
        self._referring = referring
        self._trust = trust
        self._open_file = open_file
        self._opened: dict[str, DataT] = {}

    def close(self) -> None:
        """Close all files."""
        for data in self._opened.values():
            data.close()
        self._opened.clear()

    @property
    def paths(self) -> list[pathlib.Path]:
        """Files that were opened so far, with those of their own basins."""
        return [path for data in self._opened.values() for path in (data.path, *data.basin_files)]

    def open(self, basin: Basin) -> DataT:
        """Open the first file of a basin that exists and belongs to the expected measurement.

        Raises
        ------
        MeasurementError
            There is none, see `BasinFailures`.
        """
        if basin.key in self._opened:
            return self._opened[basin.key]
        failures = BasinFailures()
        for path in basin.candidates(self._path):
            # this comes first: looking up a name elsewhere can already hang on a dead share
            if not self._trust.allows_basin(path):
                failures.add(f"{path} is outside of the watched and the output folders", "outside")
            elif len(self._referring) > MAX_BASIN_DEPTH or os.path.realpath(path) in map(str, self._referring):
                failures.add(f"{path} refers back to itself")
            elif (data := self._open_candidate(path, basin, failures)) is not None:
                self._opened[basin.key] = data
                return data
        kind = "" if basin.kind == "file" else f" of unsupported type {basin.kind!r}"
        raise failures.error(f"{self._path}: basin {basin.name!r}{kind} cannot be used")

    def _open_candidate(self, path: pathlib.Path, basin: Basin, failures: BasinFailures) -> DataT | None:
        try:
            data = self._open_file(path)
        except MeasurementError as error:
            failures.add_error(error)
            return None
        if basin.identifier is None or data.is_identified_by(basin.identifier):
            return data
        failures.add(f"{path} is measurement {data.measurement_identifier!r}, expected {basin.identifier!r}")
        data.close()
        return None
