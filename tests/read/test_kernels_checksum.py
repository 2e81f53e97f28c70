"""The checksum of HDF5's filter 3."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dcnumd.read.kernels_checksum import fletcher32
from tests.support.frames import every_special_picture, pictures


def stored_checksum(data):
    """Return what HDF5 itself stores for `data`."""
    with h5py.File("checksum", "w", driver="core", backing_store=False) as h5:
        dataset = h5.create_dataset("a", data=data, chunks=data.shape, fletcher32=True)
        _, chunk = dataset.id.read_direct_chunk((0,) * data.ndim)
    assert chunk[:-4] == data.tobytes()
    return int.from_bytes(chunk[-4:], "little")


@pytest.mark.parametrize("size", [1, 2, 3, 5, 719, 720, 721, 65535, 65536, 65537, 131075])
@pytest.mark.parametrize("content", ["random", "zeros", "ones", "last"])
def test_fletcher32_equals_hdf5(size, content):
    """Even and odd lengths, block borders and sums that are 0 modulo 65535 come out as in HDF5."""
    data = {
        "random": np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8),
        "zeros": np.zeros(size, np.uint8),
        "ones": np.full(size, 255, np.uint8),
        "last": np.r_[np.zeros(size - 1, np.uint8), np.uint8(1)],
    }[content]
    assert fletcher32(data) == stored_checksum(data)


@settings(max_examples=60, deadline=None)
@every_special_picture(dtype=("u1", "i2", "f8", "u1"))
@given(pictures(), st.sampled_from(["u1", "<i2", ">i4", "f8"]))
def test_fletcher32_of_any_frame_equals_hdf5(picture, dtype):
    """Frames and masks of all shapes, and other types of number, have HDF5's checksum."""
    for array in (picture.image, picture.mask * np.uint8(255), picture.corrected):
        data = array.astype(dtype)
        assert fletcher32(np.frombuffer(bytearray(data.tobytes()), np.uint8)) == stored_checksum(data)


@settings(max_examples=100, deadline=None)
@example(b"\xff\xff" * 65535)
@example(b"\x00\x00\xff\xff" * 3)
@example(b"\xff\xfe\x00\x01")
@example(b"\xff\xfe\x01")
@given(st.binary(min_size=1, max_size=200))
def test_fletcher32_of_any_bytes_equals_hdf5(content):
    """Any bytes, among them words whose sum is a multiple of the modulus."""
    data = np.frombuffer(bytearray(content), np.uint8)
    assert fletcher32(data) == stored_checksum(data)
