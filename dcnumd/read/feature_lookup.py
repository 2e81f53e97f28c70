"""Where the features of a measurement are: in its own file, or in a basin."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection

from dcnumd.errors import MeasurementError
from dcnumd.read.basin import Basin, event_mapping, read_basins
from dcnumd.read.basin_files import BasinData
from dcnumd.read.image_stack import ImageStack
from dcnumd.read.index_mapping import Indices
from dcnumd.read.interrupted import common_frames
from dcnumd.read.measurement_file import MeasurementFile


class FeatureLookup:
    """Finds features in a measurement's own file, else in its basins.

    Parameters
    ----------
    file
        The measurement's own file.
    open_basin
        Returns the measurement that a file basin leads to.

    Raises
    ------
    MeasurementError
        By each method, when a file cannot be read, or a basin must not be read.
    """

    def __init__(self, file: MeasurementFile, open_basin: Callable[[Basin], BasinData]) -> None:
        self._file = file
        self._open_basin = open_basin

    @functools.cached_property
    def basins(self) -> list[Basin]:
        """Definitions of all basins."""
        return read_basins(self._file.h5)

    @functools.cached_property
    def limit(self) -> int | None:
        """Number of events that count if features may have more, as in interrupted recordings; None for all."""
        return common_frames(self._file) if self._file.interrupted else None

    def find(self, feature: str, indices: Indices | None, *, needed: bool) -> ImageStack | None:
        """Return a feature without reading it; None when there is none.

        A basin that cannot be used is an error when it declares the feature, or when the feature is `needed` and the
        basin may contain it. A basin that must not be used, or is temporarily unreadable, is always an error.
        """
        stack = self._find(feature, indices, needed=needed)
        if stack is None or self.limit is None or indices is not None:
            return stack
        return stack.first(self.limit)

    def _find(self, feature: str, indices: Indices | None, *, needed: bool) -> ImageStack | None:
        own = self._file.feature(feature)
        if own is not None:
            return ImageStack(own, indices, as_bool=feature == "mask", where=str(self._file.path))
        failure: MeasurementError | None = None
        for basin in self.basins:
            if not basin.may_have(feature):
                continue
            try:
                stack = self._find_in_basin(basin, feature, indices)
            except MeasurementError as error:
                if error.reason != "basin":
                    raise
                failure = error if failure is None and (needed or basin.features is not None) else failure
                continue
            if stack is not None:
                return stack
        if failure is not None:
            raise failure
        return None

    def _find_in_basin(self, basin: Basin, feature: str, indices: Indices | None) -> ImageStack | None:
        wanted = self._positions(basin, indices)
        if basin.kind == "internal":
            for group in basin.paths:
                item = self._file.dataset(f"{group}/{feature}")
                if item is not None:
                    where = str(self._file.path)
                    return ImageStack(item, wanted, as_bool=feature == "mask", where=where, basin=basin)
            return None
        stack = self._open_basin(basin).find(feature)
        if stack is None or wanted is None:
            return stack
        positions = wanted if stack.indices is None else stack.indices[wanted]
        return ImageStack(stack.dataset, positions, as_bool=feature == "mask", where=stack.where, basin=stack.basin)

    def _positions(self, basin: Basin, indices: Indices | None) -> Indices | None:
        """Return the positions in the basin of the selected events."""
        if basin.mapping is None:
            return indices
        positions = event_mapping(basin, self._file.feature(basin.mapping), self._file.path)
        return positions if indices is None else positions[indices]

    def names(self) -> set[str]:
        """Return the names of all features that can be read; basins that cannot be opened are skipped."""
        names = set(self._file.names("events"))
        for basin in self.basins:
            try:
                names |= self._names_in_basin(basin)
            except MeasurementError:
                continue
        return names

    def names_among(self, candidates: Collection[str]) -> set[str]:
        """Return which of these features can be read; only missing basins are skipped."""
        names = set(self._file.names("events"))
        for basin in self.basins:
            if any(map(basin.may_have, candidates)):
                try:
                    names |= self._names_in_basin(basin)
                except MeasurementError as error:
                    if error.reason != "basin":
                        raise
        return names.intersection(candidates)

    def _names_in_basin(self, basin: Basin) -> set[str]:
        if basin.kind == "internal":
            names = {name for group in basin.paths for name in self._file.names(group)}
        else:
            names = set(self._open_basin(basin).keys())
        return names if basin.features is None else names & basin.features

    def count_events(self, stated: float | None) -> int:
        """Return the number of events in the file: of images, else as `stated` by the file, else of any feature."""
        if self.limit is not None:
            return self.limit
        try:
            image = self.find("image", None, needed=False)
        except MeasurementError:
            image = None
        if image is not None:
            return len(image)
        if stated is not None and math.isfinite(stated):
            return int(stated)
        datasets = map(self._file.feature, self._file.names("events"))
        return next((int(dataset.shape[0]) for dataset in datasets if dataset is not None), 0)
