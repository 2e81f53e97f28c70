"""Removing an existing background from a file."""

from __future__ import annotations

import hashlib
import json

from dcnumd.read.basin import Basin, read_basins
from dcnumd.write.writer import HDF5Writer, store_lines

BACKGROUND_FEATURES = frozenset({"bg_off", "image_bg"})


def remove_background(writer: HDF5Writer) -> None:
    """Remove ``image_bg`` and ``bg_off`` from a file, so that they can be written again.

    They are removed from ``events``, from ``basin_events`` and from the features of all basins. Event mappings that
    are not used any more are removed as well.

    Parameters
    ----------
    writer
        The file.
    """
    h5 = writer.h5
    for group in ("events", "basin_events"):
        for feature in BACKGROUND_FEATURES.intersection(h5.get(group, {})):
            del h5[group][feature]
    basins = read_basins(h5)
    changed = [basin for basin in basins if BACKGROUND_FEATURES.intersection(basin.features or ())]
    for basin in changed:
        _remove_from_basin(writer, basin)
    used = {basin.mapping for basin in read_basins(h5)}
    for mapping in {basin.mapping for basin in changed} - used:
        if mapping is not None and mapping in h5["events"]:
            del h5["events"][mapping]


def _remove_from_basin(writer: HDF5Writer, basin: Basin) -> None:
    """Remove the background from the features of a basin; remove the basin if it has no other features."""
    basins = writer.h5["basins"]
    del basins[basin.key]
    features = [name for name in basin.definition["features"] if name not in BACKGROUND_FEATURES]
    if not features:
        return
    text = json.dumps({**basin.definition, "features": features}, indent=2)
    key = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    if key not in basins:
        store_lines(basins, key, text.split("\n"), writer.ds_kwds)
