"""The HDF5 file of a measurement by itself, without its basins."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import h5py

from dcnumd.errors import MeasurementError
from dcnumd.read.open_file import damage_named, is_grave, is_marked, member, open_measurement
from dcnumd.read.survey import Survey
from dcnumd.read.trust import Trust

NUMBERS = "biuf"
"""Kinds of data types that can be computed with."""


class MeasurementFile:
    """An open HDF5 file; a dataset is opened only after a `Survey` has checked it.

    Parameters
    ----------
    source
        The path; or an open `h5py.File`, which then stays open on `close`.
    trust
        Which other files may be read.

    Attributes
    ----------
    path
        Path of the file.
    faults
        See `Survey.faults`.
    interrupted
        Whether the file is marked as open for writing, and `trust` allows to read it nevertheless.

    Raises
    ------
    MeasurementError
        When the file cannot be opened, see `open_measurement`. Each method raises it for what it cannot read.
    """

    def __init__(self, source: str | pathlib.Path | h5py.File, trust: Trust) -> None:
        self._owns_file = not isinstance(source, h5py.File)
        self.path = pathlib.Path(source.filename if isinstance(source, h5py.File) else source)
        self._h5: h5py.File | None = (
            source if isinstance(source, h5py.File) else open_measurement(source, interrupted=trust.interrupted)
        )
        try:
            self._survey = Survey(self._h5, trust)
            self._survey.check_copied()
        except BaseException:
            self.close()
            raise
        self.faults = self._survey.faults
        self.interrupted = trust.interrupted and is_marked(self.path)

    def close(self) -> None:
        """Close the file; using it afterwards is an error."""
        if self._h5 is not None and self._owns_file:
            self._h5.close()
        self._h5 = None

    @property
    def h5(self) -> h5py.File:
        """The open HDF5 file."""
        if self._h5 is None:
            raise ValueError(f"{self.path}: is closed")
        return self._h5

    def extras(self, group: str) -> Iterator[tuple[str, h5py.Dataset]]:
        """Return names and datasets in ``logs`` or ``tables``, without those in `faults`."""
        self.h5  # noqa: B018 -- raises an error if the file is closed
        return self._survey.extras(group)

    def names(self, group: str) -> list[str]:
        """Return the names of all datasets in a group."""
        return self._survey.names(group)

    def stored(self, path: str) -> h5py.Dataset | None:
        """Return a dataset by its path; None when there is none."""
        h5 = self.h5
        item = member(h5, path) if self._survey.check(path) else None
        return item if isinstance(item, h5py.Dataset) else None

    def dataset(self, path: str) -> h5py.Dataset | None:
        """Return a dataset by its path; None when there is none, or it has no axis."""
        item = self.stored(path)
        if item is None:
            return None
        with damage_named(self.path, path):
            # a type that numpy does not know is found here, not where the values are used
            return item if item.shape and item.dtype is not None else None

    def feature(self, name: str) -> h5py.Dataset | None:
        """Return the dataset of a feature; None when there is none."""
        return self.dataset(f"events/{name}")

    def numbers(self, feature: str) -> h5py.Dataset | None:
        """Return the dataset of a feature if it is a list of numbers, else None."""
        try:
            item = self.feature(feature)
        except MeasurementError as error:
            if is_grave(error):
                raise
            return None
        return item if item is not None and item.ndim == 1 and item.dtype.kind in NUMBERS else None
