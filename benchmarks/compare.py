"""Whether two results hold the same events."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 -- registers Zstandard
import numpy as np
import numpy.typing as npt

RELATIVE = 1e-9
ABSOLUTE = 1e-12
"""For values that are zero up to rounding."""
IDENTIFYING = ("experiment:time", "experiment:date", "setup:identifier")
"""From these dcnum makes the identifier of a measurement that has none."""


def differences(ours: pathlib.Path, reference: pathlib.Path) -> list[str]:
    """Compare every dataset of ``events``, the background of each event, and the pipeline attributes.

    Parameters
    ----------
    ours
        A result of dcnumd.
    reference
        The result of dcnum for the same measurement and settings.

    Returns
    -------
    list of str
        One line for each difference; empty when the results are the same. Integers must be equal, floats equal to
        1e-9 relative.
    """
    found = []
    with h5py.File(ours, "r", locking=False) as one, h5py.File(reference, "r", locking=False) as two:
        names = set(one["events"]) ^ set(two["events"])
        found += [f"events/{name}: only in one result" for name in sorted(names) if not name.startswith("basinmap")]
        for name in sorted(set(one["events"]) & set(two["events"])):
            if name == "basinmap0" or not name.startswith("basinmap"):
                found += compare_dataset(name, one["events"][name], two["events"][name])
        found += compare_backgrounds(one, two)
        found += [
            f"attribute {key}: {one.attrs.get(key)!r}, expected {two.attrs[key]!r}"
            for key in two.attrs
            if key.startswith(("pipeline:", "experiment:", "imaging:")) and not same_attribute(key, one, two)
        ]
    return found


def same_attribute(key: str, one: h5py.File, two: h5py.File) -> bool:
    """Compare an attribute as text; of run identifiers that dcnum has from ``b'…'``, only what it has added."""
    ours, theirs = str(one.attrs.get(key)), str(two.attrs[key])
    if key == "experiment:run identifier" and any(isinstance(two.attrs.get(name), bytes) for name in IDENTIFYING):
        ours, theirs = (text.rpartition("_dcn-")[2] for text in (ours, theirs))
    return ours == theirs


def compare_dataset(name: str, one: h5py.Dataset, two: h5py.Dataset) -> list[str]:
    """Compare two datasets in blocks, so that images need little memory."""
    if one.shape != two.shape:
        return [f"events/{name}: shape {one.shape}, expected {two.shape}"]
    block = 1000 if len(two.shape) > 1 else max(1, len(two))
    unequal = [
        place
        for start in range(0, len(two), block)
        for place in unequal_places(one[start : start + block], two[start : start + block], start)
    ]
    if not unequal:
        return []
    first = unequal[0]
    return [
        (
            f"events/{name}: {len(unequal)} of {two.size} values differ, first at {first}: {one[first]!r}, "
            f"expected {two[first]!r}"
        )
    ]


def unequal_places(one: npt.NDArray[Any], two: npt.NDArray[Any], start: int) -> list[tuple[int, ...]]:
    """Return where values differ by more than rounding; `start` is the first event of the block."""
    if np.issubdtype(two.dtype, np.floating):
        unequal = ~np.isclose(one, two, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)
    else:
        unequal = one != two
    return [(int(event) + start, *map(int, place)) for event, *place in np.argwhere(unequal)]


def compare_backgrounds(one: h5py.File, two: h5py.File) -> list[str]:
    """Compare the background image of each event, wherever it is stored."""
    (images_one, map_one), (images_two, map_two) = mapped_background(one), mapped_background(two)
    if len(map_one) != len(map_two):
        return [f"image_bg: {len(map_one)} events, expected {len(map_two)}"]
    pairs = set(zip(map_one.tolist(), map_two.tolist(), strict=True))
    unequal = [pair for pair in pairs if not np.array_equal(images_one[pair[0]], images_two[pair[1]])]
    return [f"image_bg: {len(unequal)} of {len(pairs)} backgrounds differ"] if unequal else []


def mapped_background(h5: h5py.File) -> tuple[h5py.Dataset | list[object], npt.NDArray[np.int64]]:
    """Return the background images and which of them each event has."""
    if "image_bg" in h5["events"]:
        images = h5["events/image_bg"]
        return images, np.arange(len(images))
    for lines in h5.get("basins", {}).values():
        basin = json.loads(b"\n".join(lines[:]))
        if basin["type"] == "internal" and "image_bg" in basin["features"]:
            return h5["basin_events/image_bg"], np.asarray(h5["events"][basin["mapping"]][:], np.int64)
    return [], np.zeros(0, np.int64)
