"""How fast this machine can be at best: reading and unpacking the input, and packing the result, and nothing else.

Worker processes share the chunks of the input and those of the result, start together, and write nothing.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import pathlib
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier

import h5py
import hdf5plugin  # noqa: F401 -- registers Zstandard
import numpy as np
import numpy.typing as npt

from dcnumd.read.frame_reader import FrameReader, FrameSource
from dcnumd.write.pack import pack_chunk, packed_size_bound
from dcnumd.write.writer import compression_level

KINDS = ("image", "mask")
START_SECONDS = 60.0


@dataclasses.dataclass(frozen=True, slots=True)
class Limit:
    """Seconds that the slowest process took, and that all took together in each part."""

    seconds: float
    read_seconds: float
    pack_seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Share:
    """What one process does: every `count`-th chunk, from number `index` on."""

    source: FrameSource
    result: pathlib.Path
    level: int | None
    index: int
    count: int

    def frame_ranges(self) -> list[tuple[int, int]]:
        """Return the frames of the chunks to read."""
        step = max(self.source.frames_per_chunk, 1)
        starts = range(self.index * step, self.source.frame_count, self.count * step)
        return [(start, min(start + step, self.source.frame_count)) for start in starts]


def measure_limit(measurement: pathlib.Path, result: pathlib.Path, compression: str, processes: int) -> Limit:
    """Read `measurement` and pack what `result` holds.

    Parameters
    ----------
    measurement
        The input; each chunk is read and unpacked once.
    result
        A complete result (strategy ``drain``) of it.
    compression
        How its images and masks are packed.
    processes
        Number of processes that share the work.
    """
    with h5py.File(measurement, "r", locking=False) as h5:
        source = FrameSource.of(h5["events/image"])
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    pipes, workers = [], []
    for index in range(processes):
        share = Share(source, result, compression_level(compression), index, processes)
        ours, theirs = context.Pipe()
        worker = context.Process(target=work, args=(share, barrier, theirs), name=f"limit {index}")
        worker.start()
        # with its end closed here, the death of a worker ends the wait for it
        theirs.close()
        pipes.append(ours)
        workers.append(worker)
    measured = [pipe.recv() for pipe in pipes]
    for worker in workers:
        worker.join()
    return Limit(
        seconds=max(read + pack for read, pack in measured),
        read_seconds=sum(read for read, _ in measured),
        pack_seconds=sum(pack for _, pack in measured),
    )


def work(share: Share, barrier: Barrier, pipe: multiprocessing.connection.Connection) -> None:
    """Do a share, and send the seconds that reading and packing took."""
    chunks = list(result_chunks(share))
    frames = share.frame_ranges()
    buffer = np.zeros((max((stop - start for start, stop in frames), default=1), *share.source.frame_shape), np.uint8)
    packed = memoryview(bytearray(packed_size_bound(max((chunk.nbytes for chunk in chunks), default=1))))
    with FrameReader(share.source) as reader:
        # once before it counts: kernels are loaded and memory is in place
        for start, stop in frames[:1]:
            reader.read_into(start, stop, buffer[: stop - start])
        for chunk in chunks[:1]:
            pack_chunk(chunk, share.level, packed)
        barrier.wait(START_SECONDS)
        begin = time.perf_counter()
        for start, stop in frames:
            reader.read_into(start, stop, buffer[: stop - start])
        middle = time.perf_counter()
        for chunk in chunks:
            pack_chunk(chunk, share.level, packed)
        pipe.send((middle - begin, time.perf_counter() - middle))


def result_chunks(share: Share) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the unpacked chunks of a result that fall into a share, padded as they are stored."""
    with h5py.File(share.result, "r", locking=False) as h5:
        for kind in KINDS:
            dataset = h5["events"][kind]
            items = dataset.chunks[0]
            for start in range(share.index * items, len(dataset), share.count * items):
                chunk = np.zeros(dataset.chunks, np.uint8)
                part = dataset[start : start + items]
                chunk[: len(part)] = part
                yield chunk
