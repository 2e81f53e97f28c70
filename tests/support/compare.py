"""Say exactly in what two processed .rtdc files differ."""

from __future__ import annotations

import json

import h5py
import hdf5plugin  # noqa: F401 -- registers the Zstandard filter
import numpy as np

RELATIVE, ABSOLUTE = 1e-9, 1e-12
ATTRIBUTES = ("experiment:event count", "experiment:run identifier", "imaging:pixel size")


def background_per_event(h5):
    """Return (images, image of each event), from events or an internal basin, or None."""
    if "image_bg" in h5["events"]:
        images = h5["events/image_bg"][:]
        return images, np.arange(len(images))
    for definition in h5.get("basins", {}).values():
        basin = json.loads(b"\n".join(definition[:]))
        if basin["type"] == "internal" and "image_bg" in basin["features"]:
            return h5["basin_events/image_bg"][:], h5["events"][basin["mapping"]][:]
    return None


def _values_differ(ours, expected):
    if ours.shape != expected.shape:
        return f"shape {ours.shape}, expected {expected.shape}"
    if expected.dtype.kind == "f":
        same = np.isclose(ours, expected, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)
    else:
        same = ours == expected
    if same.all():
        return ""
    first = np.argwhere(~same)[0]
    return (
        f"{np.count_nonzero(~same)} of {same.size} values differ, first at {tuple(first.tolist())}: "
        f"{ours[tuple(first)]!r}, expected {expected[tuple(first)]!r}"
    )


def differences(path, reference):
    """Return a list of all differences between a result of ours and dcnum's; the order of events counts."""
    found = []
    with h5py.File(path, locking=False) as ours, h5py.File(reference, locking=False) as theirs:
        for name in theirs["events"]:
            # how internal basins are numbered is free; image_bg is compared through them
            if name in {"image_bg", *(f"basinmap{number}" for number in range(1, 9))}:
                continue
            if name not in ours["events"]:
                found.append(f"events/{name} is missing")
            elif text := _values_differ(ours["events"][name][:], theirs["events"][name][:]):
                found.append(f"events/{name}: {text}")
        extra = set(ours["events"]) - set(theirs["events"])
        found += [f"events/{name} is extra" for name in extra if not name.startswith(("basinmap", "image_bg"))]
        found += _compare_backgrounds(background_per_event(ours), background_per_event(theirs))
        names = [name for name in theirs.attrs if name.startswith("pipeline:") or name in ATTRIBUTES]
        found += [
            f"attribute {name}: {ours.attrs.get(name)!r}, expected {theirs.attrs[name]!r}"
            for name in names
            if str(ours.attrs.get(name)) != str(theirs.attrs[name])
        ]
    return found


def _compare_backgrounds(ours, theirs):
    if theirs is None or ours is None:
        return [] if theirs is ours else ["image_bg is in only one file"]
    if len(ours[1]) != len(theirs[1]):
        return [f"image_bg of {len(ours[1])} events, expected {len(theirs[1])}"]
    different = sum(
        not np.array_equal(ours[0][one], theirs[0][other]) for one, other in zip(ours[1], theirs[1], strict=True)
    )
    return [f"image_bg differs for {different} events"] if different else []
