"""A segmenter that only one worker runs: the same results as with all of them."""

from __future__ import annotations

import os
import pathlib

import h5py
import numpy as np
import pytest

from dcnumd.errors import MethodError
from dcnumd.logic.job import Job, PipelineSettings
from dcnumd.logic.process import engine, process_measurement
from dcnumd.segm.segm_thresh import SegmentThresh
from dcnumd.segm.segmenter_sto import STOSegmenter
from dcnumd.simulate.measurement import MeasurementSpec, write_measurement

pytestmark = pytest.mark.slow


class SegmentAlone(STOSegmenter):
    """The threshold on whole chunks; it notes its process in a file."""

    requires_background_correction = True
    mask_default_kwargs = SegmentThresh.mask_default_kwargs

    @staticmethod
    def segment_algorithm(images, *, thresh: float = -6, notes: str = ""):
        if notes:
            with pathlib.Path(notes).open("a") as file:
                print(os.getpid(), len(images), file=file)
        return images < thresh


@pytest.fixture(scope="module")
def measurement(tmp_path_factory):
    path = tmp_path_factory.mktemp("measurement") / "M1.rtdc"
    write_measurement(path, MeasurementSpec(size=(40, 80), frames=2217, density=0.4, flicker=1.5, seed=12, chunk=70))
    with h5py.File(path, "r+") as h5:
        images = h5["events/image"]
        for frame in (1, 233, 999, 1000, 2216):
            images[frame] = images[frame - 1]
    yield path
    engine.close()


def events(path):
    """Return all data of the events of a result."""
    with h5py.File(path) as h5:
        assert len(h5["events/nevents"]) > 100
        return {name: dataset[:] for name, dataset in h5["events"].items()}


@pytest.mark.parametrize("background", ["sparsemed", "rollmed"])
def test_one_worker_segments_for_all(measurement, tmp_path, background):
    """One process gets all frames in whole chunks, and the results are those of the threshold segmenter."""
    kwargs = {"sparsemed": {"kernel_size": 50, "split_time": 0.1}, "rollmed": {"kernel_size": 10, "batch_size": 2000}}
    settings = PipelineSettings(background_code=background, background_kwargs=kwargs[background])
    usual = Job(measurement, tmp_path / "usual.rtdc", settings, basin_strategy="drain", num_workers=2)
    process_measurement(usual)
    for workers in (1, 3):
        notes = tmp_path / f"notes {workers}"
        job = Job(
            measurement,
            tmp_path / f"{workers}.rtdc",
            PipelineSettings(
                background_code=background,
                background_kwargs=kwargs[background],
                segmenter_code="alone",
                segmenter_kwargs={"notes": str(notes)},
            ),
            basin_strategy="drain",
            num_workers=workers,
        )
        result = process_measurement(job)
        told = [line.split() for line in notes.read_text().splitlines()]
        assert {pid for pid, _ in told} == {str(result.worker_pids[0])}
        assert sum(int(number) for _, number in told) == 2217
        assert len(told) == 3
        found, expected = events(job.path_out), events(usual.path_out)
        assert set(found) == set(expected)
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_a_single_process_is_asked_for():
    with pytest.raises(MethodError, match="in one process, but num_workers is 2"):
        SegmentAlone(num_workers=2)
    assert SegmentAlone().get_ppid() == "alone:t=-6^n=:cle=1^f=1^clo=2"
