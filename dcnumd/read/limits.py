"""How large the parts of a measurement may be; what is larger is refused before memory is taken for it.

The limits are far beyond what instruments record, and far below what harms a computer.
"""

from __future__ import annotations

import math

import h5py

from dcnumd.errors import MeasurementError

MAX_FRAMES = 2**27
"""Frames of a measurement: seven hours at 5000 frames a second. Each takes some 100 bytes of memory as it is."""
MAX_FRAME_PIXELS = 2**26
"""Pixels of a frame; the largest cameras for deformability cytometry have a sixteenth of it."""
MAX_CHUNK_BYTES = 2**29
"""Unpacked size of an HDF5 chunk; readers hold one of them as a whole. Usual are some MiB, 1000 frames at most."""
MAX_CHUNKS = 2**24
"""Chunks of a dataset; the table of their places takes 24 bytes for each."""
MAX_PACKING = 100_000
"""How many times larger than its file an image dataset may be. Zstandard shrinks 128 KiB to 4 bytes at best."""
MAX_VALUES_BYTES = 2**30
"""Size of a scalar feature or an event mapping: as many values of 8 bytes as there may be frames."""
MAX_COPIED_BYTES = 2**28
"""Size of all basin definitions together, and of all logs and of all tables that a result takes over [bytes]; they are
copied through memory. Usual is 1 MiB."""
MAX_MEMBERS = 10_000
"""Names in one group; there are some 300 features."""
MAX_ATTRIBUTES = 10_000
"""Attributes of one object; measurements have about 100."""
MAX_ATTRIBUTE_BYTES = 2**20
"""Size of an attribute. HDF5 itself keeps those up to 64 KiB in the object's header."""
MAX_VARIABLE_ITEMS = 4096
"""Texts of variable length in one attribute; HDF5 does not tell how long they are before they are read."""


def too_large(where: str, what: str, size: int, limit: int, unit: str) -> MeasurementError:
    """Return the error for something that is larger than its limit."""
    return MeasurementError(f"{where}: {what} has {size} {unit}, more than {limit} are not read", reason="too_large")


def check_members(group: h5py.h5g.GroupID, where: str, name: str) -> None:
    """Make sure that a group does not have too many names.

    Raises
    ------
    MeasurementError
        Reason ``too_large``.
    """
    count = group.get_num_objs()
    if count > MAX_MEMBERS:
        raise too_large(where, f"group {name}", count, MAX_MEMBERS, "members")


def check_attribute(attribute: h5py.h5a.AttrID, where: str, name: str) -> None:
    """Make sure that an attribute of the object `name` can be read.

    Raises
    ------
    MeasurementError
        Reason ``too_large``.
    """
    items = attribute.get_space().get_simple_extent_npoints()
    # of an attribute without a value HDF5 does not tell the size
    size = attribute.get_storage_size() if items else 0
    if size > MAX_ATTRIBUTE_BYTES:
        raise too_large(where, f"attribute {_name(attribute)} of {name}", size, MAX_ATTRIBUTE_BYTES, "bytes")
    if items > MAX_VARIABLE_ITEMS and has_variable_length(attribute.get_type()):
        raise too_large(where, f"attribute {_name(attribute)} of {name}", items, MAX_VARIABLE_ITEMS, "texts")


def check_frames_shape(dataset: h5py.Dataset, where: str) -> None:
    """Make sure that a dataset of images, shape (frame, y, x), can be one.

    Raises
    ------
    MeasurementError
        Reason ``too_large``, or ``image_type`` when frames have no pixels.
    """
    frames, height, width = dataset.shape
    name = dataset.name
    if frames > MAX_FRAMES:
        raise too_large(where, name, frames, MAX_FRAMES, "frames")
    if height * width > MAX_FRAME_PIXELS:
        raise too_large(where, f"a frame of {name} ({height}x{width})", height * width, MAX_FRAME_PIXELS, "pixels")
    if not height * width:
        raise MeasurementError(f"{where}: frames of {name} are {height}x{width}: no pixels", reason="image_type")
    if dataset.is_virtual or dataset.external:
        return
    packed = dataset.file.id.get_filesize()
    if dataset.size > packed * MAX_PACKING:
        raise MeasurementError(
            f"{where}: {name} has {frames} frames of {height}x{width}, but the file has only {packed} bytes",
            reason="too_large",
        )
    if dataset.chunks is not None:
        chunks = math.prod(-(-length // chunk) for length, chunk in zip(dataset.shape, dataset.chunks, strict=True))
        if chunks > min(MAX_CHUNKS, packed):
            raise too_large(where, name, chunks, min(MAX_CHUNKS, packed), "chunks")


def check_storage(dataset: h5py.h5d.DatasetID, where: str, name: str) -> int:
    """Make sure that the chunks of a dataset, and its values if they are scalars, are of a size to be read.

    Returns
    -------
    size
        Unpacked size of the dataset [bytes].

    Raises
    ------
    MeasurementError
        Reason ``too_large``.
    """
    shape = dataset.shape or ()
    item_size = dataset.get_type().get_size()
    size: int = math.prod(shape) * item_size
    properties = dataset.get_create_plist()
    if item_size > MAX_CHUNK_BYTES:
        raise too_large(where, f"a value of {name}", item_size, MAX_CHUNK_BYTES, "bytes")
    if properties.get_layout() == h5py.h5d.CHUNKED:
        chunk = math.prod(properties.get_chunk()) * item_size
        if chunk > MAX_CHUNK_BYTES:
            raise too_large(where, f"a chunk of {name}", chunk, MAX_CHUNK_BYTES, "bytes")
    # texts are read a few at a time
    if len(shape) <= 1 and size > MAX_VALUES_BYTES and not isinstance(dataset.get_type(), h5py.h5t.TypeStringID):
        raise too_large(where, name, size, MAX_VALUES_BYTES, "bytes")
    return size


def has_variable_length(kind: h5py.h5t.TypeID) -> bool:
    """Return whether values of a type, or parts of them, are of variable length."""
    if isinstance(kind, h5py.h5t.TypeStringID):
        return bool(kind.is_variable_str())
    if isinstance(kind, h5py.h5t.TypeCompoundID):
        return any(has_variable_length(kind.get_member_type(index)) for index in range(kind.get_nmembers()))
    if isinstance(kind, h5py.h5t.TypeArrayID):
        return has_variable_length(kind.get_super())
    return bool(kind.detect_class(h5py.h5t.VLEN))


def _name(attribute: h5py.h5a.AttrID) -> str:
    name: bytes = attribute.name
    return name.decode(errors="replace")
