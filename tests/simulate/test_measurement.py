"""Simulated measurements are files as an instrument writes them."""

from __future__ import annotations

import hashlib
import json
import pathlib
import queue
import threading
import time

import dclab
import h5py
import hdf5plugin  # noqa: F401 -- registers Zstandard
import numpy as np
import pytest
from dclab.rtdc_dataset.check import IntegrityChecker

from dcnumd.errors import ResultError
from dcnumd.simulate.measurement import MeasurementSpec, write_measurement
from dcnumd.simulate.truth import find_cells, read_truth


def datasets(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Return all datasets of a file."""
    content = {}
    with h5py.File(path, "r") as h5:
        h5.visititems(lambda name, item: content.update({name: item[()]}) if hasattr(item, "dtype") else None)
    return content


def test_same_specification_gives_the_same_file(tmp_path):
    """Two files of one specification are equal byte for byte; another seed differs."""
    digests = []
    for index, seed in enumerate((7, 7, 8)):
        path = tmp_path / f"{index}.rtdc"
        write_measurement(path, MeasurementSpec(frames=300, seed=seed))
        digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
    assert digests[0] == digests[1] != digests[2]


def test_realtime_writes_the_same_content(tmp_path):
    """A recording in real time holds the same datasets and attributes as one written at once."""
    spec = MeasurementSpec(size=(45, 100), frames=1500, rate=5000, seed=3)
    write_measurement(tmp_path / "slow.rtdc", spec, realtime=True)
    write_measurement(tmp_path / "quick.rtdc", spec)
    slow, quick = datasets(tmp_path / "slow.rtdc"), datasets(tmp_path / "quick.rtdc")
    assert slow.keys() == quick.keys()
    for name, values in quick.items():
        assert np.array_equal(slow[name], values), name
    with h5py.File(tmp_path / "slow.rtdc") as one, h5py.File(tmp_path / "quick.rtdc") as two:
        assert dict(one.attrs) == dict(two.attrs)


def test_realtime_file_grows_and_takes_its_time(tmp_path):
    """While the camera runs the file grows in place; it opens when it is closed, after frames/rate seconds."""
    path = tmp_path / "M001_data.rtdc"
    spec = MeasurementSpec(frames=1400, rate=1400, seed=1)
    sizes: queue.Queue[tuple[int, int]] = queue.Queue()
    started = time.monotonic()
    thread = threading.Thread(
        target=write_measurement,
        args=(path, spec),
        kwargs={"realtime": True, "on_progress": lambda done: sizes.put((done, path.stat().st_size))},
    )
    thread.start()
    observed = [sizes.get(timeout=30)]
    while observed[-1][0] < spec.frames:
        observed.append(sizes.get(timeout=30))
    thread.join()
    assert time.monotonic() - started >= spec.duration
    growth = [size for _, size in observed]
    assert len(growth) >= 3
    assert growth == sorted(growth)
    assert growth[0] < growth[-1] <= path.stat().st_size
    with h5py.File(path, "r") as h5:
        assert len(h5["events/image"]) == h5.attrs["experiment:event count"] == 1400


def test_at_once_the_name_appears_when_the_file_is_whole(tmp_path):
    """While a measurement is written at once nothing has its name."""
    path = tmp_path / "M001_data.rtdc"
    seen = []
    write_measurement(path, MeasurementSpec(frames=2500), on_progress=lambda _: seen.append(path.exists()))
    assert len(seen) >= 2
    assert not any(seen)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_interrupted_writing_leaves_nothing(tmp_path):
    """When the operator interrupts, no partial file stays behind."""

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_measurement(tmp_path / "M001_data.rtdc", MeasurementSpec(frames=500), on_progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_existing_file_is_kept(tmp_path):
    """A file of the same name is not overwritten."""
    path = tmp_path / "M001_data.rtdc"
    path.write_bytes(b"precious")
    with pytest.raises(ResultError, match="exists already"):
        write_measurement(path, MeasurementSpec(frames=10))
    assert path.read_bytes() == b"precious"


def test_missing_folder_is_named(tmp_path):
    """A folder that does not exist is a fault of one line."""
    with pytest.raises(ResultError, match=r"M001_data\.rtdc: cannot be written"):
        write_measurement(tmp_path / "missing" / "M001_data.rtdc", MeasurementSpec(frames=10))


@pytest.mark.parametrize("size", [(80, 320), (80, 400), (100, 1010), (45, 100)])
def test_dclab_opens_and_finds_nothing_wrong(tmp_path, size):
    """A dclab dataset gives frames, scalars, logs and metadata; its check finds no violation and no alert."""
    path = tmp_path / "M001_data.rtdc"
    spec = MeasurementSpec(size=size, frames=120, run_identifier="simulated-run")
    write_measurement(path, spec)
    with dclab.new_dataset(path) as dataset:
        assert len(dataset) == 120
        assert dataset["image"][5].shape == size
        assert np.allclose(np.diff(dataset["time"]), 1 / spec.rate)
        assert dataset.config["setup"]["identifier"] == spec.identifier
        assert dataset.config["experiment"]["run identifier"] == "simulated-run"
        assert any("Device name" in line for line in dataset.logs["cytoshot-acquisition"])
        assert dataset.tables["cytoshot_monitor"]["brightness"][0] > 100
    with IntegrityChecker(path) as checker:
        assert [cue.msg for cue in checker.check() if cue.level != "info"] == []


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd-1", "zstd-9"])
def test_compression_and_chunks(tmp_path, compression):
    """The image dataset has the filter and chunks that were asked for; the content is the same."""
    path = tmp_path / "M001_data.rtdc"
    spec = MeasurementSpec(size=(45, 100), frames=70, compression=compression, chunk=32, fletcher32=False, seed=2)
    write_measurement(path, spec)
    write_measurement(tmp_path / "other.rtdc", MeasurementSpec(size=(45, 100), frames=70, seed=2))
    with h5py.File(path, "r") as h5, h5py.File(tmp_path / "other.rtdc", "r") as other:
        image = h5["events/image"]
        filters = image.id.get_create_plist()
        found = [filters.get_filter(index)[0] for index in range(filters.get_nfilters())]
        assert found == {"none": [], "gzip": [h5py.h5z.FILTER_DEFLATE]}.get(compression, [32015])
        assert image.chunks == (32, 45, 100)
        assert not image.fletcher32
        assert other["events/image"].fletcher32
        assert np.array_equal(image[:], other["events/image"][:])


@pytest.mark.parametrize("frames", [0, 1])
def test_hardly_any_frames(tmp_path, frames):
    """A recording without or with a single frame is a valid file."""
    path = tmp_path / "M001_data.rtdc"
    recording = write_measurement(path, MeasurementSpec(frames=frames), truth=tmp_path / "truth.json")
    assert recording.frames == frames
    with h5py.File(path, "r") as h5:
        assert h5["events/image"].shape == (frames, 80, 320)
        assert h5.attrs["experiment:event count"] == frames


def test_truth_holds_every_cell_and_the_specification(tmp_path):
    """The truth reads back as the cells that were drawn, in order of frames."""
    spec = MeasurementSpec(frames=300, density=1.0, seed=5)
    recording = write_measurement(tmp_path / "M001_data.rtdc", spec, truth=tmp_path / "truth.json")
    cells = read_truth(tmp_path / "truth.json")
    assert len(cells) == recording.cells > 200
    assert [cell.frame for cell in cells] == sorted(cell.frame for cell in cells)
    described = json.loads((tmp_path / "truth.json").read_text())["measurement"]
    assert described["seed"] == 5
    assert described["size"] == [80, 320]


def test_find_cells_matches_by_frame_and_place(tmp_path):
    """A cell counts as found when an event of the same frame lies within the tolerance."""
    write_measurement(tmp_path / "M.rtdc", MeasurementSpec(frames=100, seed=5), truth=tmp_path / "truth.json")
    cells = read_truth(tmp_path / "truth.json")[:10]
    frame = np.array([cell.frame for cell in cells])[::-1]
    x, y = (np.array([getattr(cell, axis) for cell in cells])[::-1] for axis in "xy")
    assert find_cells(cells, frame, x + 0.9, y - 0.9).all()
    assert not find_cells(cells, frame, x + 1.1, y, tolerance=1.0).any()
    assert not find_cells(cells, frame + 1000, x, y).any()
    assert not find_cells(cells, [], [], []).any()
