"""Size limits for the parts of a measurement, checked before memory is allocated for them.

The limits are far above what instruments record, and low enough to protect the computer from malicious files.
"""

from __future__ import annotations

import math

import h5py

from dcnumd.errors import MeasurementError

MAX_FRAMES = 2**27
"""Number of frames in a measurement: seven hours at 5000 frames per second. Each takes about 100 bytes of memory."""
MAX_FRAME_PIXELS = 2**26
"""Number of pixels in a frame; the largest cameras for deformability cytometry have a sixteenth of it."""
MAX_CHUNK_BYTES = 2**29
"""Uncompressed size of an HDF5 chunk [bytes], of which readers keep one in memory. Usual are a few MiB."""
MAX_CHUNKS = 2**24
"""Number of chunks in a dataset; the table of their places takes 24 bytes each."""
MAX_PACKING = 100_000
"""Ratio of the size of an image dataset to that of its file. Zstandard compresses 128 KiB to 4 bytes at best."""
MAX_VALUES_BYTES = 2**30
"""Size of a scalar feature or an event mapping [bytes]: `MAX_FRAMES` values of 8 bytes."""
MAX_COPIED_BYTES = 2**28
"""Size of all basin definitions, of all logs, and of all tables [bytes], which are copied through memory. Usual is
1 MiB."""
MAX_MEMBERS = 10_000
"""Number of names in one group; about 300 features exist."""
MAX_ATTRIBUTES = 10_000
"""Number of attributes of one object; measurements have about 100."""
MAX_ATTRIBUTE_BYTES = 2**20
"""Size of an attribute [bytes]. HDF5 stores up to 64 KiB in the object's header."""
MAX_VARIABLE_ITEMS = 4096
"""Number of texts of variable length in one attribute, whose size HDF5 does not report before reading them."""


def too_large(where: str, what: str, size: int, limit: int, unit: str) -> MeasurementError:
    """Return the error for a part that exceeds its limit."""
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
    # HDF5 fails to report the size of an attribute without a value
    size = attribute.get_storage_size() if items else 0
    if size > MAX_ATTRIBUTE_BYTES:
        raise too_large(where, f"attribute {_name(attribute)} of {name}", size, MAX_ATTRIBUTE_BYTES, "bytes")
    if items > MAX_VARIABLE_ITEMS and has_variable_length(attribute.get_type()):
        raise too_large(where, f"attribute {_name(attribute)} of {name}", items, MAX_VARIABLE_ITEMS, "texts")


def check_frames_shape(dataset: h5py.Dataset, where: str) -> None:
    """Make sure that a dataset of images, shape (frame, y, x), has a valid shape.

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
    """Make sure that the chunks of a dataset, and its values if they are scalars, do not exceed the limits.

    Returns
    -------
    size
        Uncompressed size of the dataset [bytes].

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
    # texts of variable length have no limit here because they are read in small blocks
    if len(shape) <= 1 and size > MAX_VALUES_BYTES and not isinstance(dataset.get_type(), h5py.h5t.TypeStringID):
        raise too_large(where, name, size, MAX_VALUES_BYTES, "bytes")
    return size


def has_variable_length(kind: h5py.h5t.TypeID) -> bool:
    """Return whether values of a type, or fields of them, have variable length."""
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
