"""Recordings in SWMR mode can be read while they grow, and a crash leaves what was flushed."""

from __future__ import annotations

import json
import pathlib
import shutil
import signal
import subprocess
import sys

import dclab
import h5py
import numpy as np
import pytest

from dcnumd.cli import main
from dcnumd.errors import ResultError
from dcnumd.read.superblock import HEAD_BYTES, read_superblock
from dcnumd.simulate.measurement import MeasurementSpec, write_measurement
from dcnumd.simulate.swmr import SwmrRecorder, record_in_swmr_mode
from dcnumd.simulate.truth import read_truth
from tests.support.faults import wait_until
from tests.support.swmr import DclabRecorder

SPEC = MeasurementSpec(size=(45, 100), frames=1500, rate=3000, seed=3)


def contents(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Return all datasets and the root attributes of a file."""
    found: dict[str, np.ndarray] = {}
    with h5py.File(path, "r") as h5:
        h5.visititems(lambda name, item: found.update({name: item[()]}) if hasattr(item, "dtype") else None)
        return found, dict(h5.attrs)


def is_open_for_writing(path: pathlib.Path) -> bool:
    """Return what the superblock says."""
    with path.open("rb") as file:
        superblock = read_superblock(file.read(HEAD_BYTES))
    assert superblock is not None
    return superblock.open_for_writing


def seen_by_another_process(path: pathlib.Path) -> dict[str, int]:
    """Return the lengths of the features as a reader in SWMR mode finds them; HDF5 shares files inside a process."""
    script = (
        "import h5py, hdf5plugin, json, sys\n"
        "with h5py.File(sys.argv[1], swmr=True, locking=False) as h5:\n"
        "    lengths = {name: len(item) for name, item in h5['events'].items()}\n"
        "    [item[-3:] for item in h5['events'].values() if len(item)]\n"
        "print(json.dumps(lengths))\n"
    )
    run = subprocess.run([sys.executable, "-c", script, path], check=True, capture_output=True, timeout=120)
    return dict(json.loads(run.stdout))


def test_the_file_has_the_content_of_one_that_is_written_at_once(tmp_path):
    """Datasets, attributes and logs do not depend on how a measurement is recorded, and the end clears the flags."""
    recording = record_in_swmr_mode(tmp_path / "swmr.rtdc", SPEC, flush_seconds=0.1, truth=tmp_path / "truth.json")
    write_measurement(tmp_path / "quick.rtdc", SPEC)
    (swmr, swmr_attributes), (quick, quick_attributes) = (
        contents(tmp_path / name) for name in ("swmr.rtdc", "quick.rtdc")
    )
    assert swmr.keys() == quick.keys()
    for name, values in quick.items():
        assert values.dtype == swmr[name].dtype, name
        assert np.array_equal(swmr[name], values), name
    assert swmr_attributes == quick_attributes
    assert not is_open_for_writing(tmp_path / "swmr.rtdc")
    assert recording.seconds >= SPEC.duration
    assert len(recording.flush_seconds) == 4
    assert 0 < max(recording.flush_seconds) < recording.seconds
    assert 0 < recording.late_seconds < recording.seconds
    assert len(read_truth(tmp_path / "truth.json")) == recording.cells


def test_readers_see_what_was_flushed(tmp_path):
    """Another process finds all frames after a flush; between the flushes of two features, their lengths disagree."""
    path = tmp_path / "M001_data.rtdc"
    with SwmrRecorder(path, SPEC) as recorder:
        assert is_open_for_writing(path)
        assert set(seen_by_another_process(path).values()) == {0}
        recorder.append(700)
        recorder.flush()
        assert seen_by_another_process(path) == dict.fromkeys(recorder.features, 700)
        recorder.append(1000)
        recorder.flush("time", "frame")
        seen = seen_by_another_process(path)
        assert (seen["time"], seen["frame"], seen["temp"], seen["image"]) == (1000, 1000, 700, 700)
        recorder.append(1500)
        recorder.flush()
        with dclab.new_dataset(shutil.copy(path, tmp_path / "copy.rtdc")) as dataset:
            assert len(dataset["image"]) == len(dataset["time"]) == 1500


def test_a_copy_during_the_recording_is_the_file_of_a_crash(tmp_path):
    """The copy has the flags, and the frames up to the last flush; the number of events is still unknown."""
    crashed = tmp_path / "crashed.rtdc"
    with SwmrRecorder(tmp_path / "M001_data.rtdc", SPEC) as recorder:
        recorder.append(300)
        recorder.flush()
        recorder.append(400, "time")
        recorder.flush("time")
        assert recorder.lengths == {"frame": 300, "pressure": 300, "temp": 300, "time": 400, "image": 300}
        shutil.copy(recorder.h5.filename, crashed)
    assert is_open_for_writing(crashed)
    with pytest.raises(OSError, match="already open for write"):
        h5py.File(crashed)
    with h5py.File(crashed, swmr=True, locking=False) as h5:
        assert len(h5["events/time"]) == 400
        assert len(h5["events/image"]) == 300
        assert h5.attrs["experiment:event count"] == 0


def test_an_exception_closes_the_file_without_an_end(tmp_path):
    """Recording that the operator interrupts can be opened, but the number of events is missing."""
    path = tmp_path / "M001_data.rtdc"
    recorder = SwmrRecorder(path, SPEC)
    recorder.append(300)
    recorder.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    with h5py.File(path) as h5:
        assert len(h5["events/image"]) == 300
        assert h5.attrs["experiment:event count"] == 0


def test_an_existing_file_is_kept(tmp_path):
    """A file of the same name is not overwritten."""
    path = tmp_path / "M001_data.rtdc"
    path.write_bytes(b"precious")
    with pytest.raises(ResultError, match="exists already"):
        record_in_swmr_mode(path, SPEC, flush_seconds=1)
    assert path.read_bytes() == b"precious"


@pytest.mark.parametrize("options", [["--swmr"], ["--swmr", "--crash-after", "0.4"], ["--realtime"]])
def test_a_file_that_is_moved_while_it_is_recorded_is_one_error(options, tmp_path):
    """What was recorded is in the file that was moved; the command says so in one line."""
    command = [sys.executable, "-m", "dcnumd", "simulate", tmp_path, "--size", "45x100", "--frames", "1500"]
    with subprocess.Popen([*command, "--rate", "3000", *options], stderr=subprocess.PIPE, text=True) as process:
        path, moved = tmp_path / "M001_data.rtdc", tmp_path / "moved.rtdc"
        wait_until(path.exists)
        path.rename(moved)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors == f"Error: {path}: was moved or removed while it was written (No such file or directory)\n"
    assert moved.exists()


def test_crash_after_leaves_the_last_of_several_files_open(tmp_path):
    """The recorder is killed; what it wrote is told before, with the truth; the first measurement is whole."""
    command = [sys.executable, "-m", "dcnumd", "simulate", tmp_path, "--count", "2", "--size", "45x100"]
    options = ["--frames", "3000", "--rate", "3000", "--swmr", "--flush", "0.3", "--crash-after", "0.5", "--truth"]
    run = subprocess.run([*command, *options, "--json"], check=False, capture_output=True, timeout=120)
    assert run.returncode == -signal.SIGKILL, run.stderr
    whole, crashed = (json.loads(line) for line in run.stdout.splitlines())
    assert (whole["frames"], crashed["frames"]) == (3000, 1500)
    assert not is_open_for_writing(pathlib.Path(whole["path"]))
    path = pathlib.Path(crashed["path"])
    assert is_open_for_writing(path)
    with h5py.File(path, swmr=True, locking=False) as h5:
        assert len(h5["events/time"]) == 1500
        assert len(h5["events/image"]) == 900
    assert len(read_truth(path.with_name("M002_data_truth.json"))) == crashed["cells"]


def test_crash_after_needs_a_recording_in_swmr_mode(tmp_path, capsys):
    """Otherwise it is refused in one line."""
    assert main(["simulate", str(tmp_path), "--crash-after", "1"]) == 2
    assert "--crash-after needs --swmr" in capsys.readouterr().err


def test_dclab_records_and_reads_in_swmr_mode(tmp_path):
    """The second instrument of the tests, dclab's writer, makes files of the same kind."""
    path = tmp_path / "M001_data.rtdc"
    with DclabRecorder(path, SPEC, first=100) as recorder:
        assert is_open_for_writing(path)
        recorder.append(600)
        recorder.append(700, "time")
        seen = seen_by_another_process(path)
        assert (seen["time"], seen["image"]) == (700, 600)
        copied = shutil.copy(path, tmp_path / "copy.rtdc")
        with pytest.warns(UserWarning, match="sizes .* not identical"), dclab.new_dataset(copied) as dataset:
            assert len(dataset["image"]) == 600
        recorder.append(700)
    assert not is_open_for_writing(path)
    with dclab.new_dataset(path) as dataset:
        assert len(dataset) == dataset.config["experiment"]["event count"] == 700
        assert np.array_equal(dataset["time"], np.arange(700) / SPEC.rate)
