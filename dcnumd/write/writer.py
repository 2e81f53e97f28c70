"""Writing .rtdc files."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pathlib
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import h5py
import hdf5plugin
import numpy as np
import numpy.typing as npt

from dcnumd.errors import ConfigError, ResultError
from dcnumd.write.chunk_size import best_chunk_items
from dcnumd.write.log_lines import encode_line
from dcnumd.write.space import make_room


class Sliceable(Protocol):
    """An array, or an object that returns arrays for slices along its first axis."""

    def __len__(self) -> int:
        """Return the number of items."""

    def __getitem__(self, items: slice, /) -> npt.NDArray[Any]:
        """Return a slice of the items."""


logger = logging.getLogger(__name__)

COMPRESSIONS = ("none", *(f"zstd-{level}" for level in range(1, 10)))
METADATA_BYTES = 2**25
"""Size of the cache for metadata [bytes]; results need a fraction of it, unless they have millions of chunks."""
SPARE_BYTES = 2**18
"""Disk space that is reserved for metadata which HDF5 writes on closing [bytes]."""
COPY_ITEMS = 500
"""Number of images that are copied at once."""
IMAGE_FEATURES = frozenset({"image", "image_bg", "mask"})
IMAGE_ATTRIBUTES = {
    "CLASS": np.bytes_("IMAGE"),
    "IMAGE_VERSION": np.bytes_("1.2"),
    "IMAGE_SUBCLASS": np.bytes_("IMAGE_GRAYSCALE"),
}


def compression_level(compression: str) -> int | None:
    """Return the Zstandard level of a compression setting, None for ``none``.

    Raises
    ------
    ConfigError
        The setting is not one of `COMPRESSIONS`.
    """
    if compression not in COMPRESSIONS:
        raise ConfigError(f"compression {compression!r} is unknown; allowed: {', '.join(COMPRESSIONS)}")
    return None if compression == "none" else int(compression.removeprefix("zstd-"))


def dataset_keywords(compression: str = "zstd-5") -> dict[str, Any]:
    """Return the keywords of `h5py.Group.create_dataset` for a compression setting.

    All settings include checksums (fletcher32), as in dcnum.
    """
    level = compression_level(compression)
    if level is None:
        return {"fletcher32": True}
    return {**hdf5plugin.Zstd(clevel=level), "fletcher32": True}


def get_best_nd_chunks(item_shape: tuple[int, ...], dtype: npt.DTypeLike = np.float64) -> tuple[int, ...]:
    """Return the chunk shape for items of a shape: 1 MiB worth of items, at least 10, at most 1000."""
    item_size = np.dtype(dtype).itemsize * int(np.prod(item_shape, dtype=np.int64))
    return (best_chunk_items(item_size), *item_shape)


def _open_for_writing(path_or_h5: str | pathlib.Path | h5py.File, mode: str) -> h5py.File:
    if isinstance(path_or_h5, h5py.File):
        return path_or_h5
    # As for reading: HDF5 refuses to open a file twice with different locking, and many shares have no locks.
    h5 = h5py.File(path_or_h5, mode, libver="latest", locking=False)
    config = h5.id.get_mdc_config()
    # a cache of fixed size keeps the metadata in memory until the file is closed
    config.set_initial_size, config.initial_size, config.min_size = True, METADATA_BYTES, METADATA_BYTES
    config.max_size = max(config.max_size, METADATA_BYTES)
    h5.id.set_mdc_config(config)
    return h5


def make_room_in(h5: h5py.File, size: int) -> None:
    """Reserve disk space for the data that HDF5 has cached, and `size` bytes more.

    Otherwise HDF5 may crash, now or when the file is closed. Chunks that are written directly are not cached.

    Raises
    ------
    OSError
        No space is left.
    """
    if h5.driver == "sec2":
        make_room(h5.id.get_vfd_handle(), h5.id.get_filesize() + size + SPARE_BYTES)


class HDF5Writer:
    """Appends features, logs and basins to an .rtdc file.

    Parameters
    ----------
    path_or_h5
        File to open with `mode`; or an open `h5py.File`, which then stays open.
    mode
        ``a`` (append), ``w`` (replace), ``x`` (must not exist) or ``r+``.
    ds_kwds
        Keywords for new datasets, see `dataset_keywords`; None: ``zstd-5``.
    """

    def __init__(
        self, path_or_h5: str | pathlib.Path | h5py.File, mode: str = "a", ds_kwds: Mapping[str, Any] | None = None
    ) -> None:
        self._owns_file = not isinstance(path_or_h5, h5py.File)
        self.h5 = _open_for_writing(path_or_h5, mode)
        self.ds_kwds = dict(dataset_keywords() if ds_kwds is None else ds_kwds)
        self.events = self.h5.require_group("events")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.discard()

    def close(self) -> None:
        """Close the file, unless the caller opened it.

        Raises
        ------
        OSError or RuntimeError
            Writing failed, for example because the disk is full; the file is unusable then.
        """
        if not self._owns_file:
            return
        try:
            self.make_room()
        except OSError:
            self.discard()
            raise
        self.h5.close()

    def make_room(self, size: int = 0) -> None:
        """Reserve disk space for `size` more bytes, see `make_room_in`."""
        make_room_in(self.h5, size)

    def discard(self) -> None:
        """Close a file that is going to be removed, without writing to the disk, which may be full."""
        if not self._owns_file or not self.h5:
            return
        nowhere = os.memfd_create("dcnumd-discarded", os.MFD_CLOEXEC)
        try:
            # HDF5 flushes its caches on closing and can crash if that fails
            os.dup2(nowhere, self.h5.id.get_vfd_handle(), inheritable=False)
            self.h5.close()
        except Exception as error:  # noqa: BLE001 -- the error that led here is the one to report
            logger.warning("a file that was given up could not be closed: %s", error)
        finally:
            os.close(nowhere)

    @staticmethod
    def get_best_nd_chunks(item_shape: tuple[int, ...], feat_dtype: npt.DTypeLike = np.float64) -> tuple[int, ...]:
        """Return the chunk shape for items of a shape, see `get_best_nd_chunks`."""
        return get_best_nd_chunks(item_shape, feat_dtype)

    def require_feature(
        self,
        feat: str,
        item_shape: tuple[int, ...],
        feat_dtype: npt.DTypeLike,
        ds_kwds: Mapping[str, Any] | None = None,
        group_name: str = "events",
    ) -> tuple[h5py.Dataset, int]:
        """Return the dataset of a feature, created if missing, and its number of events."""
        group = self.h5.require_group(group_name)
        if feat not in group:
            dataset = group.create_dataset(
                feat,
                shape=(0, *item_shape),
                dtype=feat_dtype,
                maxshape=(None, *item_shape),
                chunks=get_best_nd_chunks(item_shape, feat_dtype),
                **(self.ds_kwds if ds_kwds is None else ds_kwds),
            )
            if len(item_shape) == 2:
                dataset.attrs.update(IMAGE_ATTRIBUTES)
        dataset = group[feat]
        if dataset.shape[1:] != tuple(item_shape):
            raise ResultError(
                f"{self.h5.filename}: {group_name}/{feat} has items of shape {dataset.shape[1:]}, "
                f"got {tuple(item_shape)}"
            )
        return dataset, int(dataset.shape[0])

    def store_feature_chunk(self, feat: str, data: npt.ArrayLike, group_name: str = "events") -> None:
        """Append events to a feature.

        Parameters
        ----------
        feat
            Name of the feature.
        data
            Array of shape (events, …). A bool mask is stored as 0 and 255.
        group_name
            HDF5 group: ``events`` or ``basin_events``.
        """
        array = np.asarray(data)
        if feat == "mask" and array.dtype == bool:
            array = array.view(np.uint8) * np.uint8(255)
        self.make_room(array.nbytes)
        dataset, offset = self.require_feature(feat, array.shape[1:], array.dtype, group_name=group_name)
        dataset.resize(offset + array.shape[0], axis=0)
        dataset[offset:] = array

    def store_basin(
        self,
        name: str,
        paths: Sequence[str | pathlib.Path] | None = None,
        features: Sequence[str] | None = None,
        description: str | None = None,
        mapping: npt.ArrayLike | str | None = None,
        internal_data: Mapping[str, Sliceable] | None = None,
        identifier: str | None = None,
    ) -> str:
        """Store the definition of a basin, and the data of an internal one.

        Parameters
        ----------
        name, description
            Name and description that are shown to users.
        paths
            Files of a ``file`` basin in order of preference; relative paths start at the folder of this file.
        features
            Features of the file basin; None for all. For an internal basin, those of `internal_data`.
        mapping
            Position in the basin of each event of this file (integers, shape (events,)), stored once
            as ``events/basinmapN`` and shared by all basins with the same mapping; or the name of such a dataset.
        internal_data
            Feature data to store in ``basin_events``, copied in parts; makes the basin ``internal``.
        identifier
            Measurement identifier that the file must have; None for any.

        Returns
        -------
        str
            Name of the definition in the group ``basins``.

        Raises
        ------
        ResultError
            Reason ``basin_exists``, when another internal basin has one of the features.
        """
        if (paths is None) == (internal_data is None):
            raise ValueError("a basin has either paths or internal_data")
        definition: dict[str, Any] = {"description": description, "name": name}
        if internal_data is not None:
            if features is not None:
                raise ValueError("the features of an internal basin follow from internal_data; got features too")
            for feature, data in internal_data.items():
                if f"basin_events/{feature}" in self.h5:
                    raise ResultError(
                        f"{self.h5.filename}: basin_events/{feature} already exists", reason="basin_exists"
                    )
                for start in range(0, max(len(data), 1), COPY_ITEMS):
                    self.store_feature_chunk(feature, data[start : start + COPY_ITEMS], group_name="basin_events")
            features = list(internal_data)
            definition.update(format="h5dataset", paths=["basin_events"], type="internal")
        elif paths is not None:
            definition.update(format="hdf5", paths=[str(path) for path in paths], type="file", identifier=identifier)
        if features is not None:
            definition["features"] = list(features)
        if mapping is not None:
            named = isinstance(mapping, str)
            definition["mapping"] = mapping if named else self._store_mapping(np.asarray(mapping))
        return self._store_definition(definition)

    def _store_mapping(self, mapping: npt.NDArray[Any]) -> str:
        """Return the name of the event mapping with these values, storing it if missing."""
        number = 0
        while (key := f"basinmap{number}") in self.events:
            if np.array_equal(self.events[key][:], mapping):
                return key
            number += 1
        self.store_feature_chunk(key, mapping)
        return key

    def _store_definition(self, definition: Mapping[str, Any]) -> str:
        text = json.dumps(definition, indent=2)
        key = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
        basins = self.h5.require_group("basins")
        if key not in basins:
            self.make_room(len(text))
            store_lines(basins, key, text.split("\n"), self.ds_kwds)
        return key

    def store_log(self, name: str, lines: Sequence[str], override: bool = False) -> h5py.Dataset:
        """Store lines of text as the log `name`.

        Raises
        ------
        ResultError
            Reason ``log_exists``, when the log exists and `override` is False.
        """
        self.make_room(sum(map(len, lines)))
        logs = self.h5.require_group("logs")
        if name in logs:
            if not override:
                raise ResultError(f"{self.h5.filename}: log {name!r} already exists", reason="log_exists")
            del logs[name]
        return store_lines(logs, name, lines, self.ds_kwds)


def store_lines(group: h5py.Group, name: str, lines: Sequence[str], ds_kwds: Mapping[str, Any]) -> h5py.Dataset:
    """Store lines as fixed-length strings (UTF-8) with the length of the longest line."""
    encoded = [encode_line(line) for line in lines]
    length = max(1, max((len(line) for line in encoded), default=1))
    data = np.array(encoded, dtype=f"S{length}")
    if not data.size:
        return group.create_dataset(name, shape=(0,), maxshape=(None,), chunks=(1,), dtype=data.dtype)
    return group.create_dataset(name, data=data, maxshape=data.shape, chunks=data.shape, **ds_kwds)
