"""Models in the workers of a pipeline: loaded before they are needed, kept from file to file, and what can go wrong."""

from __future__ import annotations

import os
import time

import pytest

from dcnumd.errors import ModelError, WorkerError
from dcnumd.logic import pipeline
from dcnumd.logic.calls import load_models
from dcnumd.logic.job import Job, PipelineSettings, SegmenterSpec
from dcnumd.logic.process import engine, process_measurement
from dcnumd.segm.segm_torch.segm_torch_mpo import SegmentTorchMPO
from dcnumd.simulate.measurement import MeasurementSpec, write_measurement
from tests.support import networks
from tests.support.models import G1, describe, needs_torch, save_1

pytestmark = [pytest.mark.slow, needs_torch]


class SegmentTorchNoted(SegmentTorchMPO):
    """Notes in a file which processes load the model in advance."""

    def warm_up(self):
        super().warm_up()
        with open(f"{self.kwargs['model_file']}.notes", "a") as file:  # noqa: PTH123 -- the shortest way
            print(os.getpid(), file=file)


class SegmentTorchFragile(SegmentTorchMPO):
    """Kills its process when it is to segment."""

    def mask_batch(self, *_):
        os.kill(os.getpid(), 9)


class SegmentTorchStuck(SegmentTorchMPO):
    """Never gets ready."""

    def warm_up(self):
        time.sleep(1000)


@pytest.fixture(scope="module")
def measurement(tmp_path_factory):
    path = tmp_path_factory.mktemp("measurement") / "M1.rtdc"
    write_measurement(path, MeasurementSpec(size=(80, 320), frames=60, density=0.6, seed=7))
    yield path
    engine.close()


def job_for(measurement, tmp_path, code, model, number=0):
    kwargs = {"kernel_size": 20, "split_time": 0.1}
    settings = PipelineSettings(
        background_kwargs=kwargs, segmenter_code=code, segmenter_kwargs={"model_file": str(model)}
    )
    return Job(measurement, tmp_path / f"{number}.rtdc", settings, num_workers=2)


def test_models_are_loaded_in_advance_and_kept(measurement, tmp_path, shared_model):
    model = shared_model(G1)
    jobs = [job_for(measurement, tmp_path, "torchnoted", model, number) for number in range(2)]
    other = PipelineSettings(
        fallback=SegmenterSpec("torchnoted", {"model_file": model.name}), model_folders=(model.parent,)
    )
    load_models(2, [jobs[0].settings, other, PipelineSettings()])
    results = [process_measurement(job) for job in jobs]
    assert results[0].worker_pids == results[1].worker_pids
    # each process, once for each pipeline with a model
    noted = sorted(model.with_name(f"{model.name}.notes").read_text().split())
    assert noted == sorted(map(str, 2 * results[0].worker_pids))
    assert results[0].events == results[1].events > 10


def test_faults_of_models_are_told_and_the_next_measurement_works(measurement, tmp_path, shared_model):
    model = shared_model(G1)
    with pytest.raises(WorkerError) as error:
        process_measurement(job_for(measurement, tmp_path, "torchfragile", model))
    assert error.value.reason == "worker_died"
    for broken in (networks.save_script(tmp_path, answer="nan"), networks.save_program(tmp_path, (64, 256))):
        with pytest.raises(WorkerError, match=broken.name) as error:
            process_measurement(job_for(measurement, tmp_path, "torchuni", broken))
        assert error.value.reason == "model_failed"
    empty = save_1(tmp_path, describe())
    load_models(2, [job_for(measurement, tmp_path, "torchmpo", empty).settings])
    with pytest.raises(ModelError, match="cannot load the network") as error:
        process_measurement(job_for(measurement, tmp_path, "torchmpo", empty))
    assert error.value.reason == "model_unsupported"
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".dcnm"] == []
    assert process_measurement(job_for(measurement, tmp_path, "torchmpo", model)).events > 10


def test_a_model_that_never_gets_ready_stops_no_other_measurement(measurement, tmp_path, shared_model, monkeypatch):
    """Loading in advance is given up; a job that needs the model has a limit of its own."""
    model = shared_model(G1)
    monkeypatch.setattr(pipeline, "LOAD_SECONDS", 0.5)
    stuck = job_for(measurement, tmp_path, "torchstuck", model).settings
    with pytest.raises(WorkerError, match=r"'torchstuck': loading its model: not finished after 0\.5 s") as error:
        engine.load(2, stuck)
    assert error.value.reason == "timeout"
    load_models(2, [stuck])
    assert process_measurement(job_for(measurement, tmp_path, "torchmpo", model)).events > 10
