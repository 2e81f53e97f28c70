"""The look into a file before it becomes a job."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import struct
import subprocess
import sys

import h5py
import hdf5plugin
import numpy as np
import pytest

from dcnumd import routing
from dcnumd.config.file import load_settings
from dcnumd.config.values import Settings
from dcnumd.daemon.measurements import probe
from dcnumd.daemon.measurements.probe import inspect_file
from dcnumd.errors import MeasurementError
from dcnumd.simulate.measurement import MeasurementSpec, write_measurement
from tests.support.models import describe, needs_torch, save_1


@pytest.fixture(params=["earliest", "v110", "latest"])
def libver(request):
    """HDF5 writes superblock version 0 or 3, by what it may use."""
    return request.param


def verdict(path):
    return inspect_file(routing.job_for(Settings(), path, "")).verdict


LAYOUTS = {
    "contiguous": {},
    "chunked": {"chunks": (8, 48, 96)},
    "gzip": {"chunks": (8, 48, 96), "compression": "gzip"},
    "zstd": {"chunks": (8, 48, 96), **hdf5plugin.Zstd()},
    "checksum": {"chunks": (8, 48, 96), "fletcher32": True},
    "zstd and checksum": {"chunks": (8, 48, 96), "fletcher32": True, **hdf5plugin.Zstd()},
    "small chunks": {"chunks": (1, 48, 96), "compression": "gzip", "shuffle": True},
}


@pytest.fixture(params=LAYOUTS)
def whole(request, tmp_path, measurement, libver):
    """Return a sound measurement with the frames in some layout, written last."""
    source, path = tmp_path / "source.h5", tmp_path / "whole.h5"
    measurement(source)
    with h5py.File(source) as old, h5py.File(path, "w", libver=libver) as new:
        new.attrs.update(old.attrs)
        for name in ("time", "frame"):
            new[f"events/{name}"] = old[f"events/{name}"][:]
        new.create_dataset("events/image", data=old["events/image"][:], **LAYOUTS[request.param])
    return path


def test_copy_that_took_its_space_first_is_blank(whole, tmp_path):
    """As long as the end of a copy is zeros it waits, although it has its size; with the last byte it is complete."""
    content = whole.read_bytes()
    path = tmp_path / "copy.rtdc"
    found = []
    for part in (0, 0.1, 0.3, 0.5, 0.7, 0.85):
        kept = int(len(content) * part)
        path.write_bytes(content[:kept] + bytes(len(content) - kept))
        found.append(verdict(path))
    assert set(found) == {"blank"}
    path.write_bytes(content)
    assert verdict(path) == "complete"


def test_hole_in_the_middle_is_blank(whole, tmp_path):
    """Tools that copy with several hands leave large holes anywhere."""
    content = bytearray(whole.read_bytes())
    with h5py.File(whole) as h5:
        image = h5["events/image"].id
        first = image.get_offset() if h5["events/image"].chunks is None else image.get_chunk_info(0).byte_offset
    hole = slice(first + (len(content) - first) // 3, first + (len(content) - first) * 2 // 3)
    content[hole] = bytes(hole.stop - hole.start)
    path = tmp_path / "copy.rtdc"
    path.write_bytes(content)
    with contextlib.suppress(MeasurementError):
        assert verdict(path) == "blank"


def test_dark_frames_are_not_blank(tmp_path, measurement):
    """Lost frames that a camera gives as zeros, and dark parts of frames, are no reason to wait."""
    path = tmp_path / "a.rtdc"
    for layout in LAYOUTS.values():
        measurement(path)
        with h5py.File(path, "a") as h5:
            images = h5["events/image"][:]
            images[[0, 20, 40, 59]] = 0
            images[:, :20] = 0
            del h5["events/image"]
            h5.create_dataset("events/image", data=images, **layout)
        assert verdict(path) == "complete"


def test_frames_that_were_never_written_are_blank(tmp_path, measurement):
    """HDF5 gives zeros for chunks that do not exist."""
    path = tmp_path / "a.rtdc"
    measurement(path)
    with h5py.File(path, "a") as h5:
        images = h5["events/image"][:]
        del h5["events/image"]
        image = h5.create_dataset("events/image", images.shape, "u1", chunks=(8, 48, 96))
        image[:50] = images[:50]
    assert verdict(path) == "blank"


@pytest.mark.parametrize(
    "name",
    [
        "fmt-hdf5_cytoshot_full-features_2023",
        "fmt-hdf5_cytoshot_full-features_2024",
        "fmt-hdf5_shapein_raw-with-variable-length-logs",
    ],
)
def test_real_measurements_are_complete(shared_data, name):
    """What instruments have recorded does not look as if it was cut off."""
    assert verdict(shared_data(name)) == "complete"


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd-5"])
@pytest.mark.parametrize("chunk", [0, 1, 7])
def test_simulated_measurements_are_complete(tmp_path, compression, chunk):
    """Nor do simulated ones."""
    path = tmp_path / "a.rtdc"
    spec = MeasurementSpec(frames=60, size=(48, 96), compression=compression, chunk=chunk)
    write_measurement(path, spec)
    assert verdict(path) == "complete"


def test_empty_file_is_waited_for(tmp_path):
    """A file without a byte is the beginning of one."""
    path = tmp_path / "a.rtdc"
    path.touch()
    assert verdict(path) == "truncated"


def test_absurd_length_of_a_text_takes_no_memory(tmp_path, measurement):
    """HDF5 makes room for a text before it looks whether there is one of that length; the look does not let it."""
    path = tmp_path / "a.rtdc"
    measurement(path)
    with h5py.File(path, "a") as h5:
        h5.attrs["setup:text"] = "x" * 1234
        h5["events/deform"] = np.ones(60)
    content = bytearray(path.read_bytes())
    # the last heap of texts is the one that this text is in
    place = content.index(struct.pack("<IQ", 1234, content.rindex(b"GCOL")))
    content[place : place + 4] = struct.pack("<I", 2**31 - 1)
    path.write_bytes(content)
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = peak_kib()
    # nothing is computed with it, so it is left out
    assert verdict(path) == "complete"
    assert peak_kib() - before < 500_000


def peak_kib():
    """Return the largest memory of this process so far [KiB]."""
    return int(pathlib.Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])


def test_endless_loop_in_hdf5_ends_the_process(tmp_path, measurement):
    """A heap of texts that was zeroed lets HDF5 turn in circles; the look ends itself, so that others go on."""
    path = tmp_path / "a.rtdc"
    measurement(path)
    with h5py.File(path, "a") as h5:
        h5.attrs["setup:text"] = "some text of variable length"
    content = bytearray(path.read_bytes())
    heap = content.index(b"GCOL")
    content[heap + 16 : heap + 4096] = bytes(4080)
    path.write_bytes(content)
    script = (
        "import pathlib, sys\n"
        "from dcnumd.daemon.measurements import probe\n"
        "from dcnumd.logic.job import Job\n"
        "probe.load()\n"
        "probe.CPU_SECONDS = 0.2\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "probe.inspect_file(Job(path, path.with_name('out.rtdc')))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], timeout=60, check=False)
    assert done.returncode == -signal.SIGVTALRM


def test_partial_copy_is_truncated(tmp_path, measurement, libver):
    """A copy that is two thirds there is shorter than its superblock says."""
    whole, part = tmp_path / "whole.h5", tmp_path / "part.rtdc"
    with h5py.File(whole, "w", libver=libver) as h5:
        h5["events/image"] = np.ones((50, 40, 60), "u1")
    part.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    assert verdict(part) == "truncated"


def test_complete_measurement_is_known_by_content_and_pipeline(tmp_path, measurement):
    """A sound file has an identity, and a pipeline that follows from the settings."""
    first, second = tmp_path / "a.rtdc", tmp_path / "b.rtdc"
    measurement(first, seed=1)
    measurement(second, seed=2)
    found = [inspect_file(routing.job_for(Settings(), path, "")) for path in (first, first, second)]
    assert [one.verdict for one in found] == ["complete"] * 3
    assert found[0] == found[1]
    assert found[0].content != found[2].content
    assert found[0].pphash == found[2].pphash
    assert (found[0].frames, found[0].content.size) == (60, first.stat().st_size)


@pytest.mark.parametrize("content", [b"no", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(200), b"x" * 5000])
def test_what_is_not_hdf5_is_refused_with_a_reason(tmp_path, content):
    """Garbage, also when it begins like HDF5, ends as a foreseen fault that names the file."""
    path = tmp_path / "a.rtdc"
    path.write_bytes(content)
    with pytest.raises(MeasurementError, match=r"a\.rtdc") as failure:
        verdict(path)
    assert failure.value.reason != "error"


@pytest.mark.parametrize(
    ("make", "reason"), [(os.mkfifo, "unreadable"), (os.mkdir, "unreadable"), (lambda _: None, "vanished")]
)
def test_what_is_no_file_is_a_foreseen_fault(tmp_path, make, reason):
    """A pipe, which nobody writes to, or a folder under a measurement's name is not waited for; nor what is gone."""
    path = tmp_path / "a.rtdc"
    make(path)
    with pytest.raises(MeasurementError) as failure:
        verdict(path)
    assert (failure.value.reason, failure.value.transient) == (reason, False)
    assert not list(tmp_path.glob("a.rtdc/*"))


@needs_torch
def test_model_is_compared_without_the_limits_for_the_file(tmp_path, measurement, monkeypatch):
    """A model may be larger than the memory that a measurement may take; a search in its rules needs a process."""
    monkeypatch.setattr(probe, "INSPECTION_BYTES", 2**25)
    rule = {"type": "meta", "key": "setup:chip region", "regexp": "^channel$", "reason": "not in the channel"}
    model = save_1(tmp_path, describe(validation=[rule]), **{"net/weights": bytes(2**26)})
    settings = load_settings(None, ["pipeline.segmenter.code=torchmpo", f"pipeline.segmenter.model_file={model}"])
    path = tmp_path / "a.rtdc"
    measurement(path)
    for region in ("channel", "reservoir"):
        with h5py.File(path, "r+") as h5:
            h5.attrs["setup:chip region"] = region
        with contextlib.nullcontext() if region == "channel" else pytest.raises(MeasurementError) as refused:
            assert inspect_file(routing.job_for(settings, path, "")).verdict == "complete"
    assert (refused.value.reason, refused.value.transient) == ("not_applicable", False)
    refusal = "the segmenter 'torchmpo' is not made for this measurement: not in the channel"
    assert refused.value.message == f"{path}: {refusal}"
