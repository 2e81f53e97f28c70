"""Reading the frames of one dataset in a worker process, without HDF5 if the layout allows it.

Why not HDF5? It serialises all calls by one lock and allocates a new buffer for each chunk. If the layout allows it,
the pipeline process therefore queries the positions of all chunks once, and the workers read them from the file.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import zlib
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt
import zstandard

from dcnumd.errors import MeasurementError
from dcnumd.read.chunk_layout import ZSTANDARD, ChunkTable
from dcnumd.read.index_mapping import Indices
from dcnumd.read.kernels_checksum import fletcher32

if TYPE_CHECKING:
    import h5py

    from dcnumd.read.image_stack import ImageStack

Bytes = npt.NDArray[np.uint8]
CHECKSUM_SIZE = 4


@dataclasses.dataclass(frozen=True, eq=False)
class FrameSource:
    """A picklable recipe for reading the frames of one dataset in another process.

    Attributes
    ----------
    path
        Absolute path of the file with the dataset.
    dataset
        Name of the dataset in the file.
    frame_shape
        Height and width [px].
    frame_count
        Number of frames that can be read.
    stored_count
        Number of frames in the dataset.
    indices
        Position of each frame in the dataset (int64); None for all in order.
    table
        Chunk table; None if only HDF5 can read the dataset.
    frames_per_chunk
        Number of frames in a chunk: batches that begin at its multiples decompress no chunk twice. 1 for any batches.
    interrupted
        Whether the file is marked as open for writing, see `open_measurement`.
    opened
        Path under which to open the file, if `path` may become that of another file; empty for `path`.
    """

    path: str
    dataset: str
    frame_shape: tuple[int, int]
    frame_count: int
    stored_count: int
    indices: Indices | None
    table: ChunkTable | None
    frames_per_chunk: int
    interrupted: bool = False
    opened: str = ""

    @classmethod
    def of(cls, frames: ImageStack | h5py.Dataset) -> Self:
        """Return the recipe for a stack of frames.

        Raises
        ------
        MeasurementError
            The frames are not uint8 images, or need a filter that is not available.
        """
        # Imported here because workers, which receive pickled recipes, do not need HDF5.
        from dcnumd.read.chunk_table import check_dataset, read_chunk_table  # noqa: PLC0415 -- see above
        from dcnumd.read.image_stack import ImageStack  # noqa: PLC0415 -- see above

        stack = frames if isinstance(frames, ImageStack) else ImageStack(frames)
        dataset = stack.dataset
        check_dataset(dataset, stack.where)
        indices = stack.indices
        if indices is not None and np.array_equal(indices, np.arange(indices.size)):
            indices = None
        stored_count, height, width = dataset.shape
        return cls(
            path=os.path.abspath(dataset.file.filename),  # noqa: PTH100 -- keeps names that are not UTF-8
            dataset=dataset.name,
            frame_shape=(height, width),
            frame_count=len(stack),
            stored_count=stored_count,
            indices=indices,
            table=read_chunk_table(dataset),
            frames_per_chunk=dataset.chunks[0] if dataset.chunks else 1,
            interrupted=dataset.file.swmr_mode,
        )

    def open(self) -> FrameReader:
        """Open a reader for this process or thread."""
        return FrameReader(self)


class FrameReader:
    """Reads the frames of one `FrameSource`; one per process or thread.

    A reader keeps one file descriptor, one decompressor with its buffers, and the last decompressed chunk. Reading
    forwards therefore decompresses each chunk once, for any batch size.

    Raises
    ------
    MeasurementError
        Reason ``unreadable``, when the file cannot be opened.
    """

    def __init__(self, source: FrameSource) -> None:
        self.source = source
        self.bytes_read = 0
        """Number of bytes read from the file so far."""
        self._h5: h5py.File | None = None
        self._zstandard = zstandard.ZstdDecompressor()
        self._stored = np.empty(0, np.uint8)
        self._tail = np.empty(CHECKSUM_SIZE, np.uint8)
        self._band: Bytes | None = None
        self._band_number = -1
        try:
            self._descriptor = os.open(source.opened or source.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise MeasurementError(
                f"{source.path}: cannot be read ({error.strerror})", reason="unreadable", transient=True
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; reading afterwards is an error."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._h5 is not None:
            self._h5.close()
            self._h5 = None

    def read_into(self, start: int, stop: int, out: Bytes) -> None:
        """Read frames ``start … stop - 1`` into `out`.

        Parameters
        ----------
        start, stop
            Range of frames, within ``0 … frame_count``.
        out
            uint8, C-contiguous, shape (stop - start, y, x).

        Raises
        ------
        MeasurementError
            Reason ``truncated``, ``checksum``, ``damaged`` or ``unreadable``.
        """
        source = self.source
        if self._descriptor < 0:
            raise ValueError(f"{source.path}: is closed")
        if not 0 <= start <= stop <= source.frame_count:
            raise IndexError(
                f"{source.path}: frames {start} to {stop} asked for, {source.dataset} has {source.frame_count}"
            )
        if out.shape != (stop - start, *source.frame_shape) or out.dtype != np.uint8 or not out.flags.c_contiguous:
            raise ValueError(
                f"out must be C-contiguous uint8 of shape {(stop - start, *source.frame_shape)}, "
                f"got {out.dtype} {out.shape}"
            )
        done = 0
        for first, last in self._runs(start, stop):
            part = out[done : done + last - first]
            done += last - first
            if source.table is None:
                self._read_by_hdf5(first, last, part)
            elif self._is_plain(source.table):
                skipped = first * part[0].nbytes
                self._fill([part.reshape(-1)], int(source.table.offsets[0, 0, 0]) + skipped)
            else:
                self._read_chunks(source.table, first, last, part)

    def _runs(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges of the dataset that contain the requested frames, in order."""
        indices = self.source.indices
        if indices is None:
            if stop > start:
                yield start, stop
            return
        wanted = indices[start:stop]
        bounds = [0, *(np.flatnonzero(np.diff(wanted) != 1) + 1).tolist(), wanted.size]
        for begin, end in itertools.pairwise(bounds):
            if end > begin:
                yield int(wanted[begin]), int(wanted[begin]) + end - begin

    def _is_plain(self, table: ChunkTable) -> bool:
        """Return whether the dataset is contiguous: the frames follow each other in the file."""
        return (
            table.offsets.size == 1
            and table.compressor is table.checksum_bit is None
            and table.shape[1:] == self.source.frame_shape
        )

    def _read_chunks(self, table: ChunkTable, first: int, last: int, out: Bytes) -> None:
        """Read frames ``first … last - 1`` of the dataset, chunk by chunk."""
        count = table.shape[0]
        whole_frames = table.shape[1:] == self.source.frame_shape
        for number in range(first // count, (last - 1) // count + 1):
            low, high = max(first, number * count), min(last, (number + 1) * count)
            target = out[low - first : high - first]
            if whole_frames and high - low == count and number != self._band_number:
                self._decode(table, (number, 0, 0), target.reshape(-1))
                continue
            band = self._load_band(table, number)
            height, width = self.source.frame_shape
            target[...] = band[low - number * count : high - number * count, :height, :width]

    def _load_band(self, table: ChunkTable, number: int) -> Bytes:
        """Return all chunks with the same frames, joined; shape (frames, y, x) including the margins of the chunks."""
        count, height, width = table.shape
        _, rows, columns = table.offsets.shape
        if self._band is None:
            self._band = np.empty((count, rows * height, columns * width), np.uint8)
        if number == self._band_number:
            return self._band
        self._band_number = -1
        if rows == columns == 1:
            self._decode(table, (number, 0, 0), self._band.reshape(-1))
        else:
            piece = np.empty(table.shape, np.uint8)
            for row, column in np.ndindex(rows, columns):
                self._decode(table, (number, row, column), piece.reshape(-1))
                y, x = row * height, column * width
                self._band[:, y : y + height, x : x + width] = piece
        self._band_number = number
        return self._band

    def _decode(self, table: ChunkTable, cell: tuple[int, int, int], target: Bytes) -> None:
        """Read one chunk, check and decompress it into `target` (flat)."""
        offset, size, mask = int(table.offsets[cell]), int(table.sizes[cell]), int(table.filter_masks[cell])
        checked = table.checksum_bit is not None and not mask >> table.checksum_bit & 1
        packed = table.compressor is not None and not mask >> table.compressor_bit & 1
        payload_size = size - CHECKSUM_SIZE if checked else size
        if payload_size < 0 or (not packed and payload_size != target.size):
            raise self._damaged(cell, f"{size} bytes stored, expected {target.size}")
        payload = target
        if packed:
            if self._stored.size < payload_size:
                self._stored = np.empty(max(payload_size, int(table.sizes.max())), np.uint8)
            payload = self._stored[:payload_size]
        self._fill([payload, self._tail] if checked else [payload], offset)
        if checked:
            self._verify(cell, payload)
        if packed:
            self._decompress(table, cell, payload, target)

    def _verify(self, cell: tuple[int, int, int], payload: Bytes) -> None:
        expected = int.from_bytes(self._tail.tobytes(), "little")
        got = int(fletcher32(payload))
        if got != expected:
            raise MeasurementError(
                f"{self.source.path}: {self.source.dataset} is damaged in chunk {cell}: checksum {got:#010x}, "
                f"expected {expected:#010x}",
                reason="checksum",
            )

    def _decompress(self, table: ChunkTable, cell: tuple[int, int, int], payload: Bytes, target: Bytes) -> None:
        """Decompress `payload` so that it fills `target`."""
        try:
            if table.compressor == ZSTANDARD:
                # Reading into a buffer of the right size decompresses in one call without an intermediate buffer,
                # and works for Zstandard frames without a content size.
                with self._zstandard.stream_reader(payload.data, closefd=False) as stream:
                    view = target.data
                    filled = stream.readinto(view)
                    while filled < target.size and (more := stream.readinto(view[filled:])):
                        filled += more
            else:
                # one spare byte reveals data that are too long
                unpacked = zlib.decompressobj().decompress(payload.data, max_length=target.size + 1)
                content = np.frombuffer(unpacked, np.uint8)
                filled = content.size
                if filled == target.size:
                    target[:] = content
        except (zstandard.ZstdError, zlib.error) as error:
            raise self._damaged(cell, str(error)) from error
        if filled != target.size:
            raise self._damaged(cell, f"{filled} bytes after decompression, expected {target.size}")

    def _damaged(self, cell: tuple[int, int, int], detail: str) -> MeasurementError:
        return MeasurementError(
            f"{self.source.path}: {self.source.dataset} is damaged in chunk {cell}: {detail}", reason="damaged"
        )

    def _fill(self, buffers: list[Bytes], offset: int) -> None:
        """Read the bytes at `offset` until all buffers are full."""
        wanted = sum(buffer.size for buffer in buffers)
        self.bytes_read += wanted
        views = [buffer.data for buffer in buffers]
        done = 0
        while done < wanted:
            try:
                count = os.preadv(self._descriptor, views, offset + done)
            except OSError as error:
                raise MeasurementError(
                    f"{self.source.path}: cannot be read at byte {offset + done} ({error.strerror})",
                    reason="unreadable",
                    transient=True,
                ) from error
            if not count:
                raise MeasurementError(
                    f"{self.source.path}: truncated, {self.source.dataset} has {wanted} bytes at {offset}, got {done}",
                    reason="truncated",
                    transient=True,
                )
            done += count
            views = _after(views, count)

    def _read_by_hdf5(self, first: int, last: int, out: Bytes) -> None:
        """Read frames in a layout that only HDF5 can decode."""
        # most workers never need HDF5, and loading it takes time and memory in each of them
        from dcnumd.read.open_file import damage_named, open_measurement  # noqa: PLC0415

        if self._h5 is None:
            self._h5 = open_measurement(self.source.path, interrupted=self.source.interrupted)
        self.bytes_read += out.size
        with damage_named(self.source.path, f"{self.source.dataset}, frames {first} to {last - 1},"):
            self._h5[self.source.dataset].read_direct(out, np.s_[first:last])


def _after(views: list[memoryview], count: int) -> list[memoryview]:
    """Return `views` without their first `count` bytes."""
    left = []
    for view in views:
        if count < len(view):
            left.append(view[count:])
        count = max(0, count - len(view))
    return left
