"""The checksum of HDF5's filter 3."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from dcnumd.read.kernels_checksum import fletcher32


def stored_checksum(data):
    """Return what HDF5 itself stores for `data`."""
    with h5py.File("checksum", "w", driver="core", backing_store=False) as h5:
        dataset = h5.create_dataset("a", data=data, chunks=data.shape, fletcher32=True)
        _, chunk = dataset.id.read_direct_chunk((0,))
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
