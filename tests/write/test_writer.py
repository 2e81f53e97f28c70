"""Files as dcnum writes them."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from dcnum import write as dcnum_write

from dcnumd.errors import ConfigError, ResultError
from dcnumd.write.writer import COMPRESSIONS, HDF5Writer, compression_level, dataset_keywords, get_best_nd_chunks


def layout(dataset):
    """Return everything about how a dataset is stored."""
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(number)[:3] for number in range(properties.get_nfilters())]
    attributes = {key: (type(value), value) for key, value in dataset.attrs.items()}
    return dataset.dtype, dataset.shape, dataset.chunks, dataset.maxshape, filters, attributes


def assert_same_files(path, oracle):
    """Both files have the same datasets with the same content and layout."""
    with h5py.File(path) as ours, h5py.File(oracle) as theirs:
        names, expected = [], []
        ours.visit(names.append)
        theirs.visit(expected.append)
        assert names == expected
        for name in names:
            if isinstance(theirs[name], h5py.Dataset):
                assert layout(ours[name]) == layout(theirs[name]), name
                assert np.array_equal(ours[name][()], theirs[name][()]), name
            assert dict(ours[name].attrs) == dict(theirs[name].attrs)


def fill(writer):
    """Write one of everything; works with dcnum's writer and ours."""
    writer.store_feature_chunk("deform", np.linspace(0, 1, 2500))
    writer.store_feature_chunk("deform", np.array([2.0]))
    writer.store_feature_chunk("frame", np.arange(4, dtype=np.int32))
    writer.store_feature_chunk("image", np.arange(3 * 80 * 320, dtype=np.uint8).reshape(3, 80, 320))
    writer.store_feature_chunk("mask", np.arange(3 * 4 * 5).reshape(3, 4, 5) % 3 == 0)
    writer.store_log("a log", ["first", "", "the third line"])
    writer.store_log("a log", ["again"], override=True)
    first, second = np.array([2, 1, 1], np.uint32), np.array([0, 0, 1])
    writer.store_basin(
        name="b", paths=["/a/b.rtdc", "b.rtdc"], features=["time", "frame"], mapping=first, identifier="id"
    )
    writer.store_basin(name="b", paths=["b.rtdc"], features=["image"], description="same mapping", mapping=first)
    writer.store_basin(name="b", paths=["b.rtdc"], features=["image"], description="same mapping", mapping=first)
    writer.store_basin(name="everything", paths=["c.rtdc"])
    writer.store_basin(
        name="background images",
        description="Pipeline identifier: x",
        internal_data={"image_bg": np.full((2, 400, 1010), 7, np.uint8)},
        mapping=second,
    )


@pytest.mark.parametrize("compression", ["zstd-5", "none"])
def test_writer_equals_dcnum(tmp_path, compression):
    """Features, logs and basins are stored exactly as dcnum stores them."""
    oracle_kwds = {"zstd-5": None, "none": {"compression": None, "fletcher32": True}}[compression]
    with dcnum_write.HDF5Writer(tmp_path / "dcnum.rtdc", "w", ds_kwds=oracle_kwds) as writer:
        fill(writer)
    with HDF5Writer(tmp_path / "ours.rtdc", "w", ds_kwds=dataset_keywords(compression)) as writer:
        fill(writer)
    assert_same_files(tmp_path / "ours.rtdc", tmp_path / "dcnum.rtdc")


@pytest.mark.parametrize("item_shape", [(), (3,), (80, 320), (45, 100), (100, 1010), (5000, 5000)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_chunks_equal_dcnum(tmp_path, item_shape, dtype):
    """Chunks have the size that dcnum gives them."""
    with dcnum_write.HDF5Writer(tmp_path / "dcnum.rtdc", "w") as writer:
        assert get_best_nd_chunks(item_shape, dtype) == writer.get_best_nd_chunks(item_shape, dtype)


def test_writer_appends_to_existing_file(tmp_path):
    """A file that is opened again is continued."""
    path = tmp_path / "a.rtdc"
    for values in ([1.0, 2.0], [3.0]):
        with HDF5Writer(path) as writer:
            writer.store_feature_chunk("deform", values)
    with h5py.File(path) as h5:
        assert h5["events/deform"][:].tolist() == [1, 2, 3]


def test_writer_leaves_open_file_open(tmp_path):
    """An HDF5 file that was handed over is not closed."""
    with h5py.File(tmp_path / "a.rtdc", "w") as h5:
        with HDF5Writer(h5) as writer:
            writer.store_feature_chunk("deform", [1.0])
        assert h5["events/deform"][0] == 1


def test_writer_refuses_other_item_shape(tmp_path):
    """Items of another shape are refused with both shapes."""
    with HDF5Writer(tmp_path / "a.rtdc") as writer:
        writer.store_feature_chunk("image", np.zeros((1, 8, 9), np.uint8))
        with pytest.raises(ResultError, match=r"\(8, 9\), got \(9, 8\)"):
            writer.store_feature_chunk("image", np.zeros((1, 9, 8), np.uint8))


def test_logs_take_any_text(tmp_path):
    """Logs keep characters beyond ASCII, and may be empty."""
    with HDF5Writer(tmp_path / "a.rtdc") as writer:
        writer.store_log("text", ["0.34 µm", "Zürich"])
        writer.store_log("empty", [])
        with pytest.raises(ResultError, match="already exists"):
            writer.store_log("text", [])
    with h5py.File(tmp_path / "a.rtdc") as h5:
        assert [line.decode() for line in h5["logs/text"]] == ["0.34 µm", "Zürich"]
        assert h5["logs/empty"].shape == (0,)


@pytest.mark.parametrize(
    "arguments", [{}, {"paths": ["a"], "internal_data": {"x": [1]}}, {"internal_data": {}, "features": ["x"]}]
)
def test_basin_is_either_file_or_internal(tmp_path, arguments):
    """A basin that is neither or both is refused."""
    with HDF5Writer(tmp_path / "a.rtdc") as writer, pytest.raises(ValueError, match="basin"):
        writer.store_basin(name="x", **arguments)


def test_internal_feature_is_stored_once(tmp_path):
    """A second internal basin with the same feature is refused instead of being mixed with the first."""
    data = {"image_bg": np.zeros((2, 8, 9), np.uint8)}
    with HDF5Writer(tmp_path / "a.rtdc") as writer:
        writer.store_basin(name="first", internal_data=data)
        with pytest.raises(ResultError, match="basin_events/image_bg already exists"):
            writer.store_basin(name="second", internal_data=data)


@pytest.mark.parametrize("compression", ["zstd-0", "zstd-10", "gzip", "zstd", ""])
def test_unknown_compression_is_refused(compression):
    """The error names the allowed settings."""
    with pytest.raises(ConfigError, match="allowed: none, zstd-1"):
        dataset_keywords(compression)


def test_compression_levels():
    """Levels follow from the names."""
    assert [compression_level(name) for name in COMPRESSIONS] == [None, *range(1, 10)]
