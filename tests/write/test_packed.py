"""Chunks that were packed without HDF5."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from dcnum import write as dcnum_write

from dcnumd.errors import ResultError
from dcnumd.write.pack import pack_chunk, packed_size_bound
from dcnumd.write.packed import create_packed
from dcnumd.write.writer import HDF5Writer, compression_level, dataset_keywords

IMAGE = ("image", np.dtype(np.uint8), (80, 320))


def assert_same_layout(dataset, expected):
    """Both datasets have the same creation properties, type and extent."""
    assert dataset.id.get_create_plist().equal(expected.id.get_create_plist())
    assert (dataset.dtype, dataset.shape, dataset.maxshape) == (expected.dtype, expected.shape, expected.maxshape)


@pytest.mark.parametrize("compression", ["none", "zstd-1", "zstd-5", "zstd-9"])
@pytest.mark.parametrize("count", [1, 39, 40, 41, 130])
def test_packed_images_are_read_by_hdf5(tmp_path, compression, count):
    """Chunks packed into a buffer and stored in any order read back through HDF5; layout and attributes are dcnum's."""
    images = np.random.default_rng(count).integers(0, 30, (count, 80, 320), dtype=np.uint8)
    path = tmp_path / "a.rtdc"
    with HDF5Writer(path, ds_kwds=dataset_keywords(compression)) as writer:
        (packed,) = create_packed(writer, [IMAGE])
        assert packed.chunk_items == 40
        buffer = memoryview(bytearray(packed_size_bound(40 * 80 * 320)))
        for number in reversed(range(-(-count // 40))):
            part = images[number * 40 : (number + 1) * 40]
            size = pack_chunk(part, compression_level(compression), buffer, items=40)
            packed.write_chunk(number, buffer[:size], len(part))
        packed.finish(count)
    if compression == "zstd-5":
        with dcnum_write.HDF5Writer(tmp_path / "dcnum.rtdc", "w") as oracle:
            oracle.store_feature_chunk("image", images)
        with h5py.File(path) as h5, h5py.File(tmp_path / "dcnum.rtdc") as expected:
            assert_same_layout(h5["events/image"], expected["events/image"])
            assert dict(h5["events/image"].attrs) == dict(expected["events/image"].attrs)
    with h5py.File(path) as h5:
        assert np.array_equal(h5["events/image"][:], images)


def test_pack_chunk_equals_hdf5_filters(tmp_path):
    """Without compression, a packed chunk is byte for byte what HDF5 stores."""
    data = np.random.default_rng(0).normal(size=1000)
    with h5py.File(tmp_path / "a.h5", "w") as h5:
        dataset = h5.create_dataset("a", data=data, chunks=(1000,), fletcher32=True)
        _, stored = dataset.id.read_direct_chunk((0,))
    assert pack_chunk(data, None) == stored


def test_packed_size_bound_is_an_upper_bound():
    """Incompressible data of any size fit into the bound."""
    rng = np.random.default_rng(0)
    for size in (1, 10, 1000, 131071, 131072, 1024000):
        data = rng.integers(0, 256, size, dtype=np.uint8)
        assert all(len(pack_chunk(data, level)) <= packed_size_bound(size) for level in (None, 1, 5, 9))


def test_packed_dataset_notices_missing_chunks(tmp_path):
    """A dataset is finished only when all its chunks and items are there."""
    with HDF5Writer(tmp_path / "a.rtdc") as writer:
        (packed,) = create_packed(writer, [IMAGE])
        packed.finish(0)
        packed.write_chunk(1, pack_chunk(np.zeros((40, 80, 320), np.uint8), 5))
        for length in (80, 79):
            with pytest.raises(ResultError, match=f"expected {length} in 2") as caught:
                packed.finish(length)
            assert caught.value.reason == "incomplete"


def test_packed_dataset_must_be_new(tmp_path):
    """Packed chunks are not mixed with items that are there already."""
    with HDF5Writer(tmp_path / "a.rtdc") as writer:
        writer.store_feature_chunk("image", np.zeros((1, 80, 320), np.uint8))
        with pytest.raises(ResultError, match="already has 1 items"):
            create_packed(writer, [IMAGE])


@pytest.mark.parametrize("count", [0, 1, 1000, 2345])
def test_packed_columns_equal_dcnum(tmp_path, count):
    """Scalar features have dcnum's values, types and layout."""
    rng = np.random.default_rng(count)
    columns = {
        "deform": rng.normal(size=count),
        "nevents": rng.integers(0, 9, count),
        "area_um": rng.normal(size=(count, 2))[:, 0].copy(),
        "basinmap0": rng.integers(0, 9, count).astype(np.uint32),
        "frame": rng.integers(0, 9, count).astype(np.int32),
        "time": np.full(count, np.nan, np.float32),
    }
    with HDF5Writer(tmp_path / "a.rtdc") as writer:
        datasets = create_packed(writer, [(name, column.dtype, ()) for name, column in columns.items()])
        for dataset, column in zip(datasets, columns.values(), strict=True):
            assert dataset.chunk_items == 1000
            for number in range(-(-count // 1000)):
                part = column[number * 1000 : (number + 1) * 1000]
                dataset.write_chunk(number, pack_chunk(part, 5, items=1000), len(part))
            dataset.finish(count)
    with dcnum_write.HDF5Writer(tmp_path / "dcnum.rtdc", "w") as oracle:
        for name, column in columns.items():
            oracle.store_feature_chunk(name, column)
    with h5py.File(tmp_path / "a.rtdc") as h5, h5py.File(tmp_path / "dcnum.rtdc") as expected:
        assert list(h5["events"]) == list(expected["events"])
        for name in columns:
            ours, theirs = h5["events"][name], expected["events"][name]
            assert_same_layout(ours, theirs)
            assert np.array_equal(ours[:], theirs[:], equal_nan=True)
