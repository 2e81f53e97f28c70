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

from dcnumd.errors import MeasurementError
from dcnumd.read.metadata import read_lines
from dcnumd.read.open_file import members


@dataclasses.dataclass(frozen=True)
class Basin:
    """Where features of a measurement are kept instead.

    Attributes
    ----------
    key
        Name of the definition in ``basins``.
    name, kind
        Name for humans; ``file`` or ``internal``.
    paths
        Files to try in order, or the group for an internal basin.
    features
        What the basin provides; None: everything it has.
    mapping
        Name of the event mapping in ``events``, if any.
    identifier
        Measurement identifier that the file must have, if any.
    definition
        The complete definition as stored.
    """

    key: str
    name: str
    kind: str
    paths: tuple[str, ...]
    features: frozenset[str] | None
    mapping: str | None
    identifier: str | None
    definition: dict[str, Any] = dataclasses.field(repr=False)

    def may_have(self, feature: str) -> bool:
        """Return whether the definition leaves it possible that `feature` is in this basin."""
        return self.features is None or feature in self.features

    def files(self, referring: pathlib.Path) -> list[pathlib.Path]:
        """Return the candidate files, relative paths taken from the folder of the `referring` file."""
        return [referring.absolute().parent / path for path in self.paths]


def read_basins(h5: h5py.File) -> list[Basin]:
    """Return all basin definitions of a file, internal ones first, in the order of their names.

    What the file holds itself must not be hidden by a file basin that does not say what it provides.

    Raises
    ------
    MeasurementError
        Reason ``basin``, when a definition is not JSON or is neither a file nor an internal basin.
    """
    basins = [_read_basin(h5.filename, key, dataset) for key, dataset in sorted(members(h5, "basins").items())]
    return sorted(basins, key=lambda basin: basin.kind != "internal")


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
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MeasurementError(
            f"{where}: basins/{key} is not a basin definition in JSON ({error})", reason="basin"
        ) from error
    return basin
