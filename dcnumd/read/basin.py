"""Basins: features of a measurement that are stored elsewhere, in another file or another group.

A basin is described by JSON lines in ``basins/<md5>``: ``file`` basins name paths (absolute, or relative to
the folder of the referring file), ``internal`` basins the group ``basin_events``. With a ``mapping``, event i of
the referring file is event ``events/<mapping>[i]`` of the basin.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import h5py
import numpy as np

from dcnumd.errors import MeasurementError
from dcnumd.read.index_mapping import Indices
from dcnumd.read.metadata import read_lines, to_text
from dcnumd.read.open_file import damage_named, members


@dataclasses.dataclass(frozen=True)
class Basin:
    """The definition of one basin.

    Attributes
    ----------
    key
        Name of the definition in ``basins``.
    name
        Name that is shown to users.
    kind
        ``file`` or ``internal``.
    paths
        Files to try in order, or the group for an internal basin.
    features
        Names of the features that the basin provides; None for all features in it.
    mapping
        Name of the event mapping in ``events``; None without one.
    identifier
        Measurement identifier that the file must have; None for any.
    definition
        The complete definition as stored.
    fault
        Why the definition is invalid; None for a valid one. An invalid basin may have any feature, and cannot be used.
    """

    key: str
    name: str
    kind: str
    paths: tuple[str, ...]
    features: frozenset[str] | None
    mapping: str | None
    identifier: str | None
    definition: dict[str, Any] = dataclasses.field(repr=False)
    fault: MeasurementError | None = None

    def may_have(self, feature: str) -> bool:
        """Return whether `feature` can be in this basin according to its definition."""
        return self.features is None or feature in self.features

    def files(self, referring: pathlib.Path) -> list[pathlib.Path]:
        """Return the candidate files; relative paths start at the folder of the `referring` file."""
        # a file name cannot contain a zero byte, and looking one up would raise ValueError
        return [referring.absolute().parent / path for path in self.paths if "\0" not in path]

    def candidates(self, referring: pathlib.Path) -> list[pathlib.Path]:
        """Return `files`, followed by places in the folder of the `referring` file to which they may have moved.

        A relative path may have been written on Windows. A file that was copied together with the one that refers to
        it is in the same folder. A matching name alone proves little, so such a file is a candidate only if the
        definition has an identifier to check.

        Raises
        ------
        MeasurementError
            Reason ``basin``, when the definition is invalid.
        """
        if self.fault is not None:
            raise self.fault
        found = self.files(referring)
        if self.kind == "file":
            folder = referring.absolute().parent
            windows = [pathlib.PureWindowsPath(path) for path in self.paths if "\0" not in path]
            found += [folder / path.as_posix() for path in windows if not path.anchor]
            if self.identifier is not None:
                found += [folder / path.name for path in windows if path.name]
        return list(dict.fromkeys(found))


class BasinFailures:
    """Collects why the files of a basin cannot be used, and makes one error of it."""

    def __init__(self) -> None:
        self._details: list[str] = []
        self._worst: MeasurementError | None = None

    def add(self, detail: str, reason: str = "basin") -> None:
        """Record why a file was not used."""
        self.add_error(MeasurementError(detail, reason))

    def add_error(self, error: MeasurementError) -> None:
        """Record why a file could not be opened.

        A file that does not exist or is not a measurement is skipped. One that must not be read, or that is
        temporarily unreadable, may contain the requested feature, so its error outweighs those of skipped files.
        """
        self._details.append(error.message)
        missing = isinstance(error.__cause__, FileNotFoundError | NotADirectoryError)
        grave = error.transient or error.reason in {"outside", "too_large"}
        if grave and not missing and (self._worst is None or (error.transient and not self._worst.transient)):
            self._worst = error

    def error(self, problem: str) -> MeasurementError:
        """Return the error for the basin as a whole."""
        message = f"{problem}: {'; '.join(self._details) or 'no path is given'}"
        if self._worst is None:
            return MeasurementError(message, reason="basin")
        return MeasurementError(message, reason=self._worst.reason, transient=self._worst.transient)


def read_basins(h5: h5py.File) -> list[Basin]:
    """Return all basin definitions of a file: internal ones first, then sorted by name and by key.

    Internal basins come first because a file basin that does not list its features would hide theirs. Sorting by name
    is what dcnum does to choose between basins that have the same feature. A definition that is not JSON, or that is
    incomplete, is returned with a `Basin.fault`.

    Raises
    ------
    MeasurementError
        A definition cannot be read.
    """
    definitions = {to_text(key): dataset for key, dataset in members(h5, "basins").items()}
    basins = [_read_basin(h5.filename, key, dataset) for key, dataset in sorted(definitions.items())]
    return sorted(basins, key=lambda basin: (basin.kind != "internal", basin.name))


def _read_basin(where: str, key: str, dataset: h5py.Dataset) -> Basin:
    text = "\n".join(read_lines(dataset))
    try:
        definition = json.loads(text)
        features = definition.get("features")
        basin = Basin(
            key=key,
            name=str(definition.get("name", key)),
            kind=str(definition["type"]),
            paths=tuple(str(path) for path in definition.get("paths", ())),
            features=None if features is None else frozenset(features),
            mapping=None if definition.get("mapping") in {None, "same"} else str(definition["mapping"]),
            identifier=definition.get("identifier") or None,
            definition=definition,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        fault = MeasurementError(f"{where}: basins/{key} is not a basin definition in JSON ({error})", reason="basin")
        return Basin(key, key, "unknown", (), None, None, None, {}, fault)
    return basin


def event_mapping(basin: Basin, stored: h5py.Dataset | None, where: pathlib.Path) -> Indices:
    """Return for each event of a file its position in a basin.

    Parameters
    ----------
    basin
        A basin with a mapping.
    stored
        Dataset of the mapping; None if the file does not contain it.
    where
        Path of the file, for messages.

    Raises
    ------
    MeasurementError
        Reason ``basin``, when the mapping is missing or is not a list of numbers.
    """
    problem = f"{where}: basin {basin.name!r} is mapped by events/{basin.mapping}, which"
    if stored is None:
        raise MeasurementError(f"{problem} does not exist", reason="basin")
    if stored.ndim != 1 or stored.dtype.kind not in "iuf":
        raise MeasurementError(
            f"{problem} is {stored.dtype} with {stored.ndim} axes, expected whole numbers", reason="basin"
        )
    with damage_named(where, f"events/{basin.mapping}"):
        positions: Indices = stored[:].astype(np.int64)
    return positions
