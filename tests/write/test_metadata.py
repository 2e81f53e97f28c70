"""What results take over from their input."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from dcnum import __version__ as dcnum_version
from dcnum import write as dcnum_write

from dcnumd.read.hdf5_data import HDF5Data
from dcnumd.write.metadata import SOFTWARE, copy_logs, copy_metadata, copy_tables

DCNUM = f"dcnum {dcnum_version}"


@pytest.fixture
def source(tmp_path):
    """Return an open file with attributes, logs and tables of every kind."""
    with h5py.File(tmp_path / "source.rtdc", "w") as h5:
        h5.attrs["a:bytes"] = np.bytes_("text")
        h5.attrs["a:text"] = "text µ"
        h5.attrs["a:number"] = np.int32(3)
        h5.attrs["a:flag"] = np.bool_(True)
        h5.attrs["a:array"] = np.array([1.5, 2.5])
        h5.attrs["a:there"] = "source"
        h5["logs/fixed"] = np.array([b"one", b"three"])
        h5["logs/fixed"].attrs["origin"] = "camera"
        h5.create_dataset("logs/variable", data=["one", "", "three"], dtype=h5py.string_dtype())
        h5.create_dataset("logs/empty", shape=(0,), dtype=h5py.string_dtype())
        h5["tables/flow"] = np.array([(1, 0.5)], dtype=[("frame", "i4"), ("flow", "f8")])
        h5["tables/flow"].attrs["unit"] = "µl/s"
        for number, software in enumerate(["Recorder 1.2", "", DCNUM, SOFTWARE, f"Recorder 1.2 | {SOFTWARE}"]):
            h5[f"logs/by {number}"] = np.array([b"line"])
            h5[f"tables/by {number}"] = np.array([(1,)], dtype=[("frame", "i4")])
            for group in ("logs", "tables"):
                h5[f"{group}/by {number}"].attrs["software"] = software
        yield h5


def test_copies_equal_dcnum(source, tmp_path):
    """Attributes, logs and tables arrive as in dcnum; attributes that are there stay."""
    with h5py.File(tmp_path / "ours.rtdc", "w") as ours, h5py.File(tmp_path / "dcnum.rtdc", "w") as theirs:
        for target in (ours, theirs):
            target.attrs["a:there"] = "target"
        copy_metadata(HDF5Data(source), ours)
        copy_logs(HDF5Data(source), ours)
        copy_tables(HDF5Data(source), ours)
        dcnum_write.copy_metadata(source, theirs)
        assert ours.attrs.keys() == theirs.attrs.keys()
        for key, value in theirs.attrs.items():
            assert type(ours.attrs[key]) is type(value)
            assert np.array_equal(ours.attrs[key], value)
        for group in ("logs", "tables"):
            assert list(ours[group]) == list(theirs[group])
            for name, dataset in theirs[group].items():
                copy = ours[group][name]
                assert (copy.dtype, copy.shape, copy.chunks, copy.maxshape) == (
                    dataset.dtype,
                    dataset.shape,
                    dataset.chunks,
                    dataset.maxshape,
                )
                assert np.array_equal(copy[:], dataset[:])
                assert copy.attrs.keys() == dataset.attrs.keys()
                assert copy.attrs["software"] == dataset.attrs["software"].removesuffix(DCNUM) + SOFTWARE


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (np.bytes_("Recorder 1.2"), f"Recorder 1.2 | {SOFTWARE}"),
        (np.array([b"Recorder 1.2"]), f"Recorder 1.2 | {SOFTWARE}"),
        (b"Recorder \xff", f"Recorder \N{REPLACEMENT CHARACTER} | {SOFTWARE}"),
        (2, f"2 | {SOFTWARE}"),
        (h5py.Empty("S1"), SOFTWARE),
        (np.array([], "S1"), SOFTWARE),
    ],
    ids=str,
)
def test_software_that_dcnum_does_not_copy(stored, expected, tmp_path):
    """Where dcnum ends with an error, the text counts; an attribute without a value says nothing."""
    with h5py.File(tmp_path / "source.rtdc", "w") as source, h5py.File(tmp_path / "ours.rtdc", "w") as ours:
        source["tables/flow"] = np.ones(3)
        source["tables/flow"].attrs["software"] = stored
        copy_tables(HDF5Data(source), ours)
        assert ours["tables/flow"].attrs["software"] == expected


def test_logs_keep_their_bytes(tmp_path):
    """Logs in another encoding, fixed or variable, are passed on as they are; existing ones stay."""
    lines = ["µm".encode("latin-1"), b"second"]
    with h5py.File(tmp_path / "source.rtdc", "w") as source, h5py.File(tmp_path / "ours.rtdc", "w") as ours:
        source["logs/fixed"] = np.array(lines)
        source.create_dataset("logs/variable", data=lines, dtype=h5py.string_dtype("ascii"))
        source["logs/there"] = np.array([b"source"])
        ours["logs/there"] = np.array([b"target"])
        copy_logs(HDF5Data(source), ours)
        assert ours["logs/fixed"][:].tolist() == ours["logs/variable"][:].tolist() == lines
        assert ours["logs/there"][:].tolist() == [b"target"]


def test_nothing_to_copy(tmp_path):
    """A file without logs and tables adds no groups."""
    with h5py.File(tmp_path / "source.rtdc", "w") as source, h5py.File(tmp_path / "ours.rtdc", "w") as ours:
        for copy in (copy_metadata, copy_logs, copy_tables):
            copy(HDF5Data(source), ours)
        assert list(ours) == []
