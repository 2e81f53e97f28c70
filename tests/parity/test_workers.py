"""The same numbers and the same bytes with any number of workers, in any run, after any other measurement."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import subprocess
import sys

import h5py
import numpy as np
import pytest

from dcnumd.logic.job import Job, PipelineSettings
from dcnumd.logic.process import engine, process_measurement
from dcnumd.simulate.measurement import MeasurementSpec, write_measurement
from tests.support.parity import IN_THREADS, assert_equals_reference, dcnum_arguments
from tests.support.stored import stored_differences, stored_objects

pytestmark = pytest.mark.slow

LONG = MeasurementSpec(size=(40, 80), frames=2217, density=0.4, flicker=1.5, seed=12, chunk=70, compression="gzip")
"""Several slots and chunks, the last of both being shorter than the others."""
HELD = (1, 100, 233, 999, 1000, 1001, 2000, 2216)
"""Frames that repeat the one before: where batches, chunks and slots begin, and the last."""
OTHER = MeasurementSpec(size=(80, 320), frames=260, seed=4)

BACKGROUNDS = {
    "sparsemed": PipelineSettings(background_kwargs={"kernel_size": 50, "split_time": 0.1}),
    "rollmed": PipelineSettings(background_code="rollmed", background_kwargs={"kernel_size": 10, "batch_size": 2000}),
}
CASES = list(itertools.product(("drain", "tap"), BACKGROUNDS))


@pytest.fixture(scope="module")
def measurement(tmp_path_factory):
    """Return a long measurement, and one of another frame shape."""
    folder = tmp_path_factory.mktemp("measurements")
    long, other = folder / "long.rtdc", folder / "other.rtdc"
    write_measurement(long, LONG)
    write_measurement(other, OTHER)
    with h5py.File(long, "r+") as h5:
        images = h5["events/image"]
        assert len(images) % images.chunks[0]
        for frame in HELD:
            images[frame] = images[frame - 1]
    return long, other


@pytest.fixture(scope="module")
def process(measurement, tmp_path_factory):
    """Return a function that processes the long measurement with three workers, each case once."""
    parent = tmp_path_factory.mktemp("results")

    @functools.cache
    def run(strategy, background):
        path = parent / f"{strategy} {background}" / "long_dcn.rtdc"
        job = Job(measurement[0], path, BACKGROUNDS[background], basin_strategy=strategy, num_workers=3)
        return job, process_measurement(job)

    return run


@pytest.mark.parametrize(("strategy", "background"), CASES)
def test_long_measurement_equals_dcnum(strategy, background, measurement, process, oracle):
    """Three workers find dcnum's events in dcnum's order, and none in frames that were repeated."""
    job, result = process(strategy, background)
    # as deep in folders as ours, whose relative path to the measurement is compared
    path = result.path_out.with_name("dcnum.rtdc")
    assert_equals_reference(result, oracle.process(measurement[0], path, **dcnum_arguments(job), **IN_THREADS))
    with h5py.File(result.path_out, locking=False) as h5:
        assert not set(HELD) & set(h5["events/basinmap0"][:].tolist())


def test_any_number_of_workers_in_any_run_stores_the_same_bytes(process):
    """One, two, eight, or three workers once more: layout, filters, attributes and every stored chunk are the same."""
    for workers, case in itertools.product((1, 2, 8, 3), CASES):
        job, first = process(*case)
        path = first.path_out.parents[1] / f"{workers} {' '.join(case)}" / "long_dcn.rtdc"
        result = process_measurement(dataclasses.replace(job, path_out=path, num_workers=workers))
        assert len(set(result.worker_pids)) == workers
        assert (result.pphash, result.events) == (first.pphash, first.events)
        assert stored_differences(path, first.path_out) == []


def test_fresh_process_stores_the_same_bytes_as_a_used_one(measurement, tmp_path):
    """Workers, slots and buffers that have seen frames of another shape leave no trace in the next result."""
    long, other = measurement
    command = [sys.executable, "-m", "dcnumd", "process", "--no-report", long, "-o", tmp_path / "fresh"]
    options = ["--set", "output.basin_strategy=drain", "--set", "resources.num_workers=3"]
    subprocess.run([*command, *options], check=True, timeout=120, cwd=tmp_path)
    (tmp_path / "used").mkdir()
    engine.close()
    for path in (other, long):
        result = process_measurement(
            Job(path, tmp_path / "used" / f"{path.stem}_dcn.rtdc", basin_strategy="drain", num_workers=3)
        )
    assert stored_differences(result.path_out, tmp_path / "fresh" / "long_dcn.rtdc") == []


def test_comparison_of_stored_bytes_sees_changes(process, tmp_path):
    """One grey value, one more or one missing attribute is a difference; the logs of the run are none."""
    _, result = process("drain", "sparsemed")
    assert any(len(thing.get("stored chunks", ())) > 1 for thing in stored_objects(result.path_out).values())
    changed = tmp_path / "changed.rtdc"
    changed.write_bytes(result.path_out.read_bytes())
    with h5py.File(changed, "r+") as h5:
        for name in [name for name in h5["logs"] if name.startswith("dcnumd-")]:
            del h5["logs"][name]
    assert stored_differences(changed, result.path_out) == []
    with h5py.File(changed, "r+") as h5:
        h5["events/mask"][-1, 0, 0] ^= 255
        h5["events/deform"].attrs["note"] = np.float32(1)
        del h5.attrs["pipeline:dcnum hash"]
    differences = stored_differences(changed, result.path_out)
    assert sorted(line.split(": ")[0] for line in differences) == ["/", "events/deform", "events/mask"]
