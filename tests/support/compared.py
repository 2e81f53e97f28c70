"""Compares a complete result with that of dcnum, except for intended differences."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import dclab
import h5py
import hdf5plugin  # noqa: F401 -- registers Zstandard
import numpy as np

from benchmarks.compare import compare_backgrounds, compare_dataset
from dcnumd import __version__ as our_version

RUN_LOG = re.compile(r"dcnumd?-(job|log)-\d")
"""Names of the logs of the run itself, which differ between the programs."""
OUR_NAMES = {f"dcnumd {our_version}": "dcnum 0.31.0", "dcnumd basin": "dcnum basin"}
"""Names of the program in our results, and what dcnum's results have in their place."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """One difference between two results."""

    where: str
    ours: Any
    theirs: Any
    events: int
    """Number of events in dcnum's result."""

    def __str__(self) -> str:
        return f"{self.where}: {self.ours!r:.200}, expected {self.theirs!r:.200}"


@dataclasses.dataclass(frozen=True)
class Intended:
    """A kind of difference that is intended."""

    reason: str
    where: str
    """Regular expression that matches the whole of `Difference.where`."""
    holds: Callable[[Difference], bool]

    def covers(self, difference: Difference) -> bool:
        """Return whether a difference is of this kind."""
        return re.fullmatch(self.where, difference.where) is not None and self.holds(difference)


def _is_missing(difference: Difference) -> bool:
    """Return whether dcnum's result lacks something that dclab can read in ours."""
    return difference.theirs is None and difference.ours != "cannot be read"


def _more_than(features: set[str]) -> Callable[[Difference], bool]:
    """Return a function that says whether our result has exactly these features in addition to those of dcnum's."""
    return lambda difference: set(difference.ours) - set(difference.theirs) == features


IN_BASIN = "frames that a measurement has in another file belong to the result, too; dcnum leaves them out"

INTENDED = (
    Intended(IN_BASIN, r"events/image (layout|attribute .*)|basin of image|dclab image", _is_missing),
    Intended(IN_BASIN, "dclab features", _more_than({"image"})),
    Intended(
        "without any event, dcnum leaves out the features that it computes; here they are there, and empty",
        r"events/(?!basinmap0|nevents)\w+ (layout|attribute .*)",
        lambda difference: difference.events == 0 and difference.theirs is None,
    ),
    Intended(
        "without any event, dcnum leaves out the features that it computes; here they are there, and empty",
        "dclab features",
        lambda difference: difference.events == 0 and set(difference.theirs) <= set(difference.ours),
    ),
    Intended(
        "frames are counted in 32 bits, also under an index mapping",
        "events/basinmap0 layout",
        lambda difference: (difference.ours[0], difference.theirs[0]) == ("uint32", "int64"),
    ),
    Intended(
        "lines of logs are stored as long as the longest of them, not longer",
        "logs/.* layout",
        lambda difference: (
            difference.ours[1:] == difference.theirs[1:]
            and np.dtype(difference.ours[0]).itemsize < np.dtype(difference.theirs[0]).itemsize
        ),
    ),
)
"""All intended differences, each described as narrowly as possible."""


def identify_as_dclab(reference: pathlib.Path, measurement: pathlib.Path) -> None:
    """Correct the identifiers in dcnum's result, which are made from ``b'…'`` if attributes are fixed-length strings.

    That dcnumd makes them from the text is intended, see the guide for scientists.
    """
    with h5py.File(measurement, locking=False) as h5:
        texts = [h5.attrs.get(key) for key in ("experiment:date", "experiment:time", "setup:identifier")]
        if "experiment:run identifier" in h5.attrs or not any(isinstance(text, bytes) for text in texts):
            return
    with _quiet_dataset(measurement) as data:
        identifier = data.get_measurement_identifier()
    if identifier is None:
        return
    with h5py.File(reference, "r+", locking=False) as h5:
        wrong, _, run = h5.attrs["experiment:run identifier"].rpartition("_")
        assert wrong != identifier
        h5.attrs["experiment:run identifier"] = f"{identifier}_{run}"
        for key, lines in [(key, dataset[:].tolist()) for key, dataset in h5.get("basins", {}).items()]:
            del h5["basins"][key]
            h5["basins"][key] = [line.replace(wrong.encode(), identifier.encode()) for line in lines]


def result_differences(ours: pathlib.Path, reference: pathlib.Path) -> list[str]:
    """Return a line for each difference of two results that is not `INTENDED`."""
    return [
        str(difference)
        for difference in all_differences(ours, reference)
        if not any(intended.covers(difference) for intended in INTENDED)
    ]


def all_differences(ours: pathlib.Path, reference: pathlib.Path) -> list[Difference]:
    """Return all differences of two results."""
    with h5py.File(ours, "r", locking=False) as one, h5py.File(reference, "r", locking=False) as two:
        events = len(two["events/nevents"]) if "nevents" in two["events"] else 0
        found = [*_unequal(dict(_described(one)), dict(_described(two)), events), *_unequal_data(one, two, events)]
    return [*found, *_unequal(seen_by_dclab(ours), seen_by_dclab(reference), events)]


def _unequal(ours: dict[str, Any], theirs: dict[str, Any], events: int) -> Iterator[Difference]:
    for where in sorted(ours.keys() | theirs.keys()):
        if ours.get(where) != theirs.get(where):
            yield Difference(where, ours.get(where), theirs.get(where), events)


def _unequal_data(one: h5py.File, two: h5py.File, events: int) -> Iterator[Difference]:
    """Yield the differences of features that both results have, and of the background of each event."""
    for name in sorted(set(one["events"]) & set(two["events"])):
        if name == "basinmap0" or not name.startswith("basinmap"):
            for line in compare_dataset(name, one["events"][name], two["events"][name]):
                yield Difference(f"events/{name} values", line, None, events)
    for line in compare_backgrounds(one, two):
        yield Difference("image_bg values", line, None, events)


def _described(h5: h5py.File) -> Iterator[tuple[str, Any]]:
    """Yield name and description of everything in a result except the values of events."""
    yield from _attributes("", h5)
    for name, dataset in h5["events"].items():
        # The numbers of mappings may differ; images are compared through the mappings.
        if name == "basinmap0" or not name.startswith("basinmap"):
            yield f"events/{name} layout", _layout(dataset)
            yield from _attributes(f"events/{name} ", dataset)
    for name, dataset in h5.get("basin_events", {}).items():
        yield f"basin_events/{name} layout", _layout(dataset)
        yield from _attributes(f"basin_events/{name} ", dataset)
    for group in ("logs", "tables"):
        for name, dataset in h5.get(group, {}).items():
            if not RUN_LOG.match(name):
                yield f"{group}/{name} layout", (str(dataset.dtype), dataset.shape, _filters(dataset))
                # As text, because NaN does not equal NaN.
                yield f"{group}/{name} values", repr(dataset[()].tolist())
                yield from _attributes(f"{group}/{name} ", dataset)
    for dataset in h5.get("basins", {}).values():
        definition = json.loads(b"\n".join(dataset[:].tolist()))
        # The numbers of other mappings may differ, and dcnum has some features in two basins.
        told = {key: _in_their_words(value) for key, value in definition.items() if key != "features"}
        told["mapping"] = definition.get("mapping") == "basinmap0"
        for feature in definition["features"]:
            yield f"basin of {feature}", told


def _attributes(where: str, thing: h5py.File | h5py.Dataset) -> Iterator[tuple[str, tuple[str, Any]]]:
    """Yield type and value of each attribute."""
    for key, value in thing.attrs.items():
        kind = thing.attrs.get_id(key).dtype
        plain = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        yield f"{where}attribute {key}", (str(kind), _in_their_words(plain))


def _in_their_words(value: Any) -> Any:
    """Return a value with the names of dcnum in place of ours."""
    if isinstance(value, str):
        for ours, theirs in OUR_NAMES.items():
            value = value.replace(ours, theirs)
    return value


def _layout(dataset: h5py.Dataset) -> tuple[Any, ...]:
    return str(dataset.dtype), dataset.shape, dataset.maxshape, dataset.chunks, _filters(dataset)


def _filters(dataset: h5py.Dataset) -> list[Any]:
    properties = dataset.id.get_create_plist()
    return [properties.get_filter(number)[0::2] for number in range(properties.get_nfilters())]


def seen_by_dclab(path: pathlib.Path) -> dict[str, Any]:
    """Return the features that dclab finds in a result and its basins, and the values of those from basins."""
    with _quiet_dataset(path) as data:
        seen: dict[str, Any] = {"dclab features": sorted({*data.features_innate, *data.features_basin})}
        for name in data.features_basin:
            try:
                # Why not data[name][number]: each access by name checks which features could be computed.
                feature = data[name]
                values = np.array([feature[number] for number in range(len(data))])
            except KeyError:
                seen[f"dclab {name}"] = "cannot be read"
            else:
                seen[f"dclab {name}"] = (str(values.dtype), values.tobytes())
        return seen


@contextlib.contextmanager
def _quiet_dataset(path: pathlib.Path) -> Iterator[dclab.rtdc_dataset.RTDCBase]:
    """Open a file by dclab, without its warnings, of which simulated measurements raise many."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with dclab.new_dataset(path) as data:
            yield data
