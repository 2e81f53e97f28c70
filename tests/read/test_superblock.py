"""The first bytes of an HDF5 file, read without HDF5."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from dcnumd.read.superblock import HEAD_BYTES, SIGNATURE, read_superblock


@pytest.fixture(params=["earliest", "v110", "latest"])
def libver(request):
    """HDF5 writes superblock version 0 or 3, by what it may use."""
    return request.param


def head_of(path):
    return path.read_bytes()[:HEAD_BYTES]


def test_superblock_tells_a_closed_file(tmp_path, libver):
    """A file that was closed is not open for writing and is as long as it says."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver=libver) as h5:
        h5["x"] = np.zeros(1000)
    superblock = read_superblock(head_of(path))
    assert not superblock.open_for_writing
    assert superblock.end_of_file == path.stat().st_size


def superblock(version, width, flags, end):
    """Return a superblock of a version by the specification, as far as it is read, with addresses of a width."""
    addresses = b"".join(number.to_bytes(width, "little") for number in (0, 2**8 * 7, end))
    if version in {2, 3}:
        return SIGNATURE + bytes([version, width, width, flags]) + addresses
    head = SIGNATURE + bytes([version, 0, 0, 0, 0, width, width, 0, 4, 0, 16, 0]) + flags.to_bytes(4, "little")
    return head + (bytes(4) if version == 1 else b"") + addresses


@pytest.mark.parametrize("version", [0, 1, 2, 3])
@pytest.mark.parametrize("width", [2, 4, 8])
@pytest.mark.parametrize("flags", [0, 1, 4, 5])
def test_every_version_and_width_is_read(version, width, flags):
    """Bit 0 tells of a writer, the last address where the file ends."""
    found = read_superblock(superblock(version, width, flags, 1234))
    assert (found.open_for_writing, found.end_of_file) == (bool(flags & 1), 1234)


@pytest.mark.parametrize("version", [0, 1, 2, 3])
@pytest.mark.parametrize(("other", "width"), [(4, 8), (255, 8), (None, 0), (None, 3), (None, 255)])
def test_what_the_specification_does_not_know_is_no_superblock(version, other, width):
    """HDF5 decides then what the file is."""
    head = bytearray(superblock(version, 8, 1, 1234))
    head[8] = version if other is None else other
    head[9 if version >= 2 else 13] = width
    assert read_superblock(bytes(head)) is None
    assert read_superblock(b" " + superblock(version, 8, 1, 1234)) is None


@pytest.mark.parametrize("length", [0, 8, 11, 23, 40, 95])
def test_short_head_is_no_superblock_or_a_whole_one(tmp_path, length, libver):
    """No cut leads to a wrong reading."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver=libver) as h5:
        h5["x"] = np.zeros(10)
    whole = read_superblock(head_of(path))
    assert read_superblock(head_of(path)[:length]) in {None, whole}
