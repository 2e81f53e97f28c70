"""A recording that is open in SWMR mode, read while its recorder appends frames.

HDF5 promises a reader in SWMR mode a consistent file: after a refresh, the frames that a dataset has are complete. The
file is opened without a lock, so that the recorder never waits. Only whole chunks of frames are used, because a chunk
that is not full yet is written again. The file may get another name meanwhile: whoever reads it opens it through the
descriptor of this process.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt

from dcnumd.errors import MeasurementError
from dcnumd.read.chunk_keys import KEY_BYTES, Keys, chunk_keys
from dcnumd.read.chunk_layout import ChunkTable
from dcnumd.read.chunk_table import check_dataset, dataset_filters, filter_roles
from dcnumd.read.frame_reader import FrameSource
from dcnumd.read.interrupted import COUNTED, NEEDED
from dcnumd.read.open_file import HDF5_FAULTS, damage_named, unreadable
from dcnumd.read.superblock import HEAD_BYTES, read_superblock, superblock_at
from dcnumd.read.swmr import open_swmr

ROOM = 256
"""Number of chunks by which arrays of chunks grow."""

Table = npt.NDArray[np.int64]


def unsuited(path: str | pathlib.Path, why: str) -> MeasurementError:
    """Return the error for a recording that cannot be processed while it grows."""
    return MeasurementError(f"{path}: {why}", "not_live")


class GrowingStack:
    """The frames of a growing dataset, up to the last whole chunk.

    Parameters
    ----------
    dataset
        Dataset of frames in a file that is open in SWMR mode.

    Raises
    ------
    MeasurementError
        Reason ``not_live``, when only HDF5 can read the dataset; or as for `check_dataset`.
    """

    def __init__(self, dataset: h5py.Dataset) -> None:
        self.dataset = dataset
        self.path = os.path.abspath(dataset.file.filename)  # noqa: PTH100 -- keeps names that are not UTF-8
        self._opened = f"/proc/{os.getpid()}/fd/{_descriptor_of(dataset.file)}"
        check_dataset(dataset, self.path)
        roles = None if dataset.chunks is None else filter_roles(dataset_filters(dataset))
        if roles is None or dataset.file.userblock_size:
            raise unsuited(self.path, f"{dataset.name} has a layout that cannot be read while it grows")
        self._filters = dataset_filters(dataset)
        self._roles = roles
        _, *across = (-(-length // chunk) for length, chunk in zip(dataset.shape, dataset.chunks, strict=True))
        self._places = np.zeros((3, 0, *across), np.int64)
        self._keys: Keys = np.empty((0, KEY_BYTES), np.uint8)
        self._chunks = 0

    @property
    def frames_per_chunk(self) -> int:
        """Number of frames in a chunk."""
        return int(self.dataset.chunks[0])

    @property
    def frames(self) -> int:
        """Number of frames in the chunks that are known."""
        return self._chunks * self.frames_per_chunk

    @property
    def keys(self) -> Keys:
        """Keys of the chunks that are known."""
        return self._keys[: self._chunks]

    def extend(self, frames: int) -> None:
        """Look up the chunks that are full when the dataset has a number of `frames`.

        Raises
        ------
        MeasurementError
            Reason ``damaged``, when the file has no such chunk.
        """
        chunks = frames // self.frames_per_chunk
        if chunks <= self._chunks:
            return
        if chunks > self._places.shape[1]:
            more = chunks + ROOM - self._places.shape[1]
            self._places = np.concatenate([self._places, np.zeros((3, more, *self._places.shape[2:]), np.int64)], 1)
            self._keys = np.concatenate([self._keys, np.zeros((more, KEY_BYTES), np.uint8)])
        _, height, width = self.dataset.chunks
        for number in range(self._chunks, chunks):
            for row, column in np.ndindex(*self._places.shape[2:]):
                self._look_up(number, row, column, (number * self.frames_per_chunk, row * height, column * width))
        # The keys come before the frames are read: if a chunk is written again meanwhile, its key will not hold.
        table, known = self._table(chunks), self._chunks
        self._keys[known:chunks] = chunk_keys(self.path, table, self._filters, known, chunks, opened=self._opened)
        self._chunks = chunks

    def _look_up(self, number: int, row: int, column: int, start: tuple[int, int, int]) -> None:
        with damage_named(self.path, self.dataset.name):
            found = self.dataset.id.get_chunk_info_by_coord(start)
        if found.byte_offset is None:
            raise MeasurementError(f"{self.path}: {self.dataset.name} has no chunk at {start}", "damaged")
        self._places[:, number, row, column] = found.byte_offset, found.size, found.filter_mask

    def _table(self, chunks: int) -> ChunkTable:
        offsets, sizes, masks = self._places[:, :chunks]
        return ChunkTable(self.dataset.chunks, offsets, sizes, masks, *self._roles)

    def source(self) -> FrameSource:
        """Return the recipe for reading the frames in the chunks that are known."""
        _, height, width = self.dataset.shape
        return FrameSource(
            path=self.path,
            dataset=self.dataset.name,
            frame_shape=(height, width),
            frame_count=self.frames,
            stored_count=self.frames,
            indices=None,
            table=self._table(self._chunks),
            frames_per_chunk=self.frames_per_chunk,
            opened=self._opened,
        )


class GrowingFile:
    """A file that is open in SWMR mode, for reading.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    MeasurementError
        Reason ``not_live``, when it is not open in SWMR mode; ``no_images``; ``unreadable`` or ``damaged``.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        try:
            block = superblock_at(os.fspath(path))
        except OSError as error:
            raise unreadable(path, error) from error
        if block is None or not block.open_in_swmr_mode:
            raise unsuited(path, "the recorder has not opened it in SWMR mode")
        try:
            self.h5 = open_swmr(path, keep_chunks=False)
        except HDF5_FAULTS as error:
            raise unsuited(path, f"cannot be read while it grows ({' '.join(str(error).split())})") from error
        try:
            with damage_named(path, "events"):
                self._datasets = _own_datasets(self.h5)
            if "image" not in self._datasets:
                raise MeasurementError(f"{path}: has no events/image that grows", "no_images")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(*HDF5_FAULTS):
            self.h5.close()

    @property
    def image(self) -> h5py.Dataset:
        """The dataset of frames."""
        return self._datasets["image"]

    @property
    def image_bg(self) -> h5py.Dataset | None:
        """The dataset of background images; None if there is none."""
        return self._datasets.get("image_bg")

    def numbers(self, feature: str) -> h5py.Dataset | None:
        """Return the dataset of a scalar feature; None if there is none."""
        return self._datasets.get(feature)

    @property
    def ended(self) -> bool:
        """Whether the recorder has closed the file.

        Raises
        ------
        MeasurementError
            Reason ``unreadable``.
        """
        try:
            block = read_superblock(os.pread(_descriptor_of(self.h5), HEAD_BYTES, 0))
        except OSError as error:
            raise unreadable(self.path, error) from error
        return block is None or not block.open_in_swmr_mode

    def refresh(self) -> int:
        """Return the number of frames that all features have now.

        Raises
        ------
        MeasurementError
            Reason ``damaged`` or ``unreadable``.
        """
        lengths = []
        for name, dataset in self._datasets.items():
            with damage_named(self.path, f"events/{name}"):
                dataset.refresh()
                length = dataset.shape[0] if dataset.shape else 0
            if name in COUNTED and (length or name in NEEDED):
                lengths.append(length)
        return min(lengths)


def _descriptor_of(h5: h5py.File) -> int:
    """Return the descriptor with which HDF5 has opened a file."""
    return int(h5.id.get_vfd_handle())


def _own_datasets(h5: h5py.File) -> dict[str, h5py.Dataset]:
    """Return the datasets of features, but none with a link or values that may lead to another file."""
    events = _own_member(h5, b"events")
    if not isinstance(events, h5py.Group):
        return {}
    found = {name.decode(errors="surrogateescape"): _own_member(events, name) for name in events.id}
    return {
        name: item
        for name, item in found.items()
        if isinstance(item, h5py.Dataset) and not item.is_virtual and not item.external
    }


def _own_member(group: h5py.Group, name: bytes) -> Any:
    """Return what a group contains under a name; None if that is nothing, or only a link.

    h5py would follow a link even to say that it is one.
    """
    links = group.id.links
    return group[name] if links.exists(name) and links.get_info(name).type == h5py.h5l.TYPE_HARD else None


class GrowingValues:
    """The values of a growing scalar feature, of which only new ones are read.

    Parameters
    ----------
    dataset
        The feature.
    where
        Path of the file, for messages.
    """

    def __init__(self, dataset: h5py.Dataset, where: pathlib.Path) -> None:
        self._dataset = dataset
        self._where = where
        self._values: npt.NDArray[Any] = np.empty(0, dataset.dtype)

    def first(self, count: int) -> npt.NDArray[Any]:
        """Return the first `count` values.

        Raises
        ------
        MeasurementError
            Reason ``damaged``.
        """
        known = len(self._values)
        if count > known:
            with damage_named(self._where, self._dataset.name):
                self._values = np.concatenate([self._values, self._dataset[known:count]])
        return self._values[:count]
