"""How much memory all processes take: never more than what is said, and not far less."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import h5py
import numpy as np
import pytest

from benchmarks.memory import PeakMemory
from dcnumd.errors import WorkerError
from dcnumd.logic import memory
from dcnumd.logic.job import Job, PipelineSettings
from dcnumd.logic.process import engine, process_measurement
from dcnumd.simulate.measurement import MeasurementSpec, write_measurement

SCRIPT = """
import json, pathlib, sys
from dcnumd.logic.job import Job, PipelineSettings
from dcnumd.logic.process import process_measurement
folder, background, strategy, limit, *paths = sys.argv[1:]
for number, path in enumerate(paths):
    out = pathlib.Path(folder) / f"{number}.rtdc"
    settings = PipelineSettings(background_code=background)
    job = Job(pathlib.Path(path), out, settings, strategy, num_workers=2, max_memory_mb=int(limit))
    print(process_measurement(job).events, flush=True)
"""
MANY_WORKERS = 64


@pytest.fixture(scope="module", autouse=True)
def stop_workers():
    """End the engine's workers after the last test of this module."""
    yield
    engine.close()


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Return measurements with small and with large frames."""
    folder = tmp_path_factory.mktemp("recordings")
    specs = {
        "small": MeasurementSpec(size=(80, 320), frames=2500, density=1, seed=4),
        "long": MeasurementSpec(size=(80, 320), frames=6000, density=1, seed=4),
        "large": MeasurementSpec(size=(512, 1024), frames=250, density=1, seed=4),
    }
    for name, spec in specs.items():
        write_measurement(folder / f"{name}.rtdc", spec)
    return {name: (folder / f"{name}.rtdc", spec) for name, spec in specs.items()}


def measured_peak(folder, background, strategy, *paths, limit=0):
    """Process measurements in a process of its own; return the largest PSS of it and all below [bytes]."""
    folder.mkdir()
    command = [sys.executable, "-c", SCRIPT, folder, background, strategy, str(limit), *paths]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process, PeakMemory(process.pid) as peak:
        events = process.stdout.read().split()
        assert process.wait() == 0
    assert len(events) == len(paths)
    assert all(int(number) > 0 for number in events)
    return peak.peak_bytes


def expected(path, spec, background, strategy):
    """Return the bound for a measurement."""
    with h5py.File(path, locking=False) as h5:
        chunk, times = h5["events/image"].chunks[0], h5["events/time"][:]
    settings = PipelineSettings(background_code=background)
    work = memory.workload(settings, strategy, spec.size, spec.frames, chunk, float(np.ptp(times)))
    return memory.usually_needed(2, work)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "background", "strategy"),
    [
        ("small", "rollmed", "tap"),
        ("long", "sparsemed", "drain"),
        ("large", "sparsemed", "tap"),
        ("large", "rollmed", "drain"),
    ],
)
def test_memory_stays_below_the_bound_and_near_it(name, background, strategy, recordings, tmp_path):
    """For two shapes of frames and any length: at most what is computed, at least half of it."""
    path, spec = recordings[name]
    bound = expected(path, spec, background, strategy)
    peak = measured_peak(tmp_path / "out", background, strategy, path)
    assert bound / 2 <= peak <= bound, f"{peak >> 20} MiB of {bound >> 20}"


def test_memory_does_not_depend_on_the_length():
    """Ten times the frames: a few numbers and background images more, nothing else."""
    settings = PipelineSettings()
    works = [memory.expected_workload((80, 320), settings, seconds=seconds) for seconds in (60, 600)]
    bounds = [memory.usually_needed(2, work) for work in works]
    assert bounds[1] - bounds[0] < 540 * (3000 * memory.FRAME_BYTES + 4 * 80 * 320)


@pytest.mark.slow
def test_limit_is_kept(recordings, tmp_path):
    """Slots and staging become smaller, also those that were larger for the file before; the events are the same."""
    (small, spec), (large, _) = recordings["small"], recordings["large"]
    work = memory.workload(PipelineSettings(), "drain", spec.size, spec.frames, 40, 10.0)
    least = memory.needed(2, work, memory.Layout(memory.slot_count(2), 1, memory.FEW_UNITS))
    limit, bound = memory.in_mb(least) + 60, expected(small, spec, "sparsemed", "drain")
    assert limit * 10**6 < bound
    for name, paths, max_mb in (("free", [small], 0), ("limited", [small], limit), ("after", [large, small], 600)):
        peak = measured_peak(tmp_path / name, "sparsemed", "drain", *paths, limit=max_mb)
        least, most = (0, max_mb * 10**6) if max_mb else (bound / 2, bound)
        assert least <= peak <= most, f"{name}: {peak // 10**6} MB of {most // 10**6}"
    with (
        h5py.File(tmp_path / "free" / "0.rtdc", locking=False) as one,
        h5py.File(tmp_path / "limited" / "0.rtdc", locking=False) as other,
    ):
        for feature in one["events"]:
            np.testing.assert_array_equal(one["events"][feature][:], other["events"][feature][:], err_msg=feature)


@pytest.mark.slow
def test_limit_that_cannot_be_kept_is_told(recordings, tmp_path):
    """The job fails for good before it has taken any memory, and says what is needed; the next one works."""
    path, spec = recordings["large"]
    job = Job(path, tmp_path / "out.rtdc", num_workers=2, max_memory_mb=100)
    with pytest.raises(WorkerError, match=r"512x1024 pixels and 2 workers take at least \d+ MB") as caught:
        process_measurement(job)
    assert (caught.value.reason, caught.value.transient) == ("memory_limit", False)
    assert list(tmp_path.iterdir()) == []
    needed = int(str(caught.value).partition("at least ")[2].split()[0])
    assert process_measurement(dataclasses.replace(job, max_memory_mb=needed)).frames == spec.frames
    with_others = dataclasses.replace(job, path_out=tmp_path / "2.rtdc", other_memory_mb=50)
    with pytest.raises(WorkerError, match=rf"at least {needed + 50} MB of memory, 50 MB of it beside the pipeline"):
        process_measurement(dataclasses.replace(with_others, max_memory_mb=needed + 49))
    assert process_measurement(dataclasses.replace(with_others, max_memory_mb=needed + 50)).frames == spec.frames


@pytest.mark.parametrize("workers", [1, 2, MANY_WORKERS])
@pytest.mark.parametrize("shape", [(80, 320), (8192, 8192)])
def test_layout_fits_every_limit_that_is_enough(workers, shape):
    """From the least that is possible to more than enough: the layout is within the limit, and more is never worse."""
    work = memory.workload(PipelineSettings(background_code="rollmed"), "drain", shape, 10**6, 40, 600.0)
    usual = memory.usual_layout(workers, work)
    most = memory.needed(workers, work, usual)
    least = memory.needed(workers, work, memory.Layout(usual.slots, 1, memory.FEW_UNITS))
    frames = 0
    for limit in np.linspace(least, most, 12).astype(int).tolist():
        layout = memory.fitting_layout(workers, work, limit)
        assert memory.needed(workers, work, layout) <= limit
        assert layout.slot_frames >= 1
        assert layout.units >= memory.FEW_UNITS
        frames = max(frames, layout.slot_frames)
    assert memory.fitting_layout(workers, work, most) == usual
    with pytest.raises(WorkerError):
        memory.fitting_layout(workers, work, least - 1)


def test_estimate_needs_no_numerical_code():
    """The command `check` loads nothing for it."""
    script = "import sys, dcnumd.logic.memory; print(sorted({'numpy', 'h5py', 'numba'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
