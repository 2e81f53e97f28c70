"""How to read the frames of one dataset without HDF5.

HDF5 serialises all its calls in one lock and allocates a new buffer for every chunk. Where the layout allows it, the
pipeline process asks HDF5 once where the chunks are, and the workers read them from the file themselves.
"""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Self

import numpy as np

from dcnumd.read.chunk_layout import ChunkTable
from dcnumd.read.index_mapping import Indices

if TYPE_CHECKING:
    import h5py

    from dcnumd.read.frame_reader import FrameReader
    from dcnumd.read.image_stack import ImageStack


@dataclasses.dataclass(frozen=True, eq=False)
class FrameSource:
    """A picklable recipe for reading the frames of one dataset in another process.

    Attributes
    ----------
    path
        Absolute path of the file that holds the dataset.
    dataset
        Name of the dataset in it.
    frame_shape
        Height and width in pixels.
    frame_count
        Number of frames that can be asked for.
    stored_count
        Number of frames in the dataset.
    indices
        Position in the dataset of every frame (int64); None: all in order.
    table
        Chunk table; None when only HDF5 can read the dataset.
    frames_per_chunk
        Batches that begin at multiples of it decompress no chunk twice; 1 when it does not matter.
    """

    path: str
    dataset: str
    frame_shape: tuple[int, int]
    frame_count: int
    stored_count: int
    indices: Indices | None
    table: ChunkTable | None
    frames_per_chunk: int

    @classmethod
    def of(cls, frames: ImageStack | h5py.Dataset) -> Self:
        """Return the recipe for a stack of frames.

        Raises
        ------
        MeasurementError
            When the frames are not uint8 images or need a filter that does not exist here.
        """
        # Workers get their recipes ready-made and never need HDF5.
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
        )

    def open(self) -> FrameReader:
        """Open a reader for this process or thread."""
        from dcnumd.read.frame_reader import FrameReader  # noqa: PLC0415 -- imports this module

        return FrameReader(self)
