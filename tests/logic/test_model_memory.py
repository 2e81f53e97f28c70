"""How much memory workers take for models: never more than is said, and not far less."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.memory import PeakMemory
from dcnumd.logic import memory
from dcnumd.logic.job import PipelineSettings, SegmenterSpec
from dcnumd.segm.segm_torch import model_memory
from dcnumd.simulate.measurement import MeasurementSpec, write_measurement
from tests.support import networks
from tests.support.models import G1, G2, describe_2, needs_compiler, needs_openvino, needs_torch, save_2

SCRIPT = """
import json, pathlib, sys
from dcnumd.logic.job import Job, PipelineSettings
from dcnumd.logic.process import engine, process_measurement
path, out, code, kwargs = sys.argv[1:]
background = {"kernel_size": 20, "split_time": 0.1}
settings = PipelineSettings(segmenter_code=code, segmenter_kwargs=json.loads(kwargs), background_kwargs=background)
result = process_measurement(Job(pathlib.Path(path), pathlib.Path(out), settings, "drain", num_workers=2))
lines = [pathlib.Path(f"/proc/{pid}/status").read_text() for pid in result.worker_pids]
print(json.dumps([int(line.partition("VmHWM:")[2].split()[0]) * 1024 for line in lines]))
engine.close()
"""


@pytest.fixture
def choose(tmp_path, shared_model):
    """Return a function that returns code and keywords of a segmenter for the name of a model and a backend."""

    def chosen(model, backend):
        if model in {G1, G2}:
            return "torchmpo", {"model_file": str(shared_model(model))}
        return "torchuni", {"model_file": str(networks.save_program(tmp_path)), "backend": backend, "device": "cpu"}

    return chosen


@needs_torch
@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "backend", "size"),
    [
        (G1, None, (80, 320)),
        (G2, None, (256, 400)),
        pytest.param("program", "inductor", (80, 320), marks=needs_compiler),
        pytest.param("program", "openvino", (80, 320), marks=needs_openvino),
    ],
    ids=str,
)
def test_memory_of_workers_stays_below_the_bound_and_near_it(tmp_path, choose, model, backend, size):
    """Each worker by itself, and all processes together."""
    path = tmp_path / "M1.rtdc"
    spec = MeasurementSpec(size=size, frames=60, density=0.6, seed=7)
    write_measurement(path, spec)
    code, kwargs = choose(model, backend)
    command = [sys.executable, "-c", SCRIPT, path, tmp_path / "out.rtdc", code, json.dumps(kwargs)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process,
        PeakMemory(process.pid) as peak,
    ):
        workers = json.loads(process.stdout.read())
        assert process.wait() == 0
    settings = PipelineSettings(segmenter_code=code, segmenter_kwargs=kwargs)
    work = memory.workload(settings, "drain", size, spec.frames, 20, 1.0)
    bound = memory.WORKER_BYTES + sum(work.models)
    assert len(workers) == 2
    for worker in workers:
        assert bound / 1.5 <= worker <= bound, f"{worker >> 20} MiB of {bound >> 20}"
    bound = memory.usually_needed(2, work)
    assert bound / 2 <= peak.peak_bytes <= bound, f"{peak.peak_bytes >> 20} MiB of {bound >> 20}"


def test_memory_is_that_of_the_model_that_takes_most(tmp_path, shared_model):
    """Of the segmenter and its fallback; frames of a batch are computed together, those of version 1 one by one."""

    def needs(settings, shape=(80, 320)):
        return memory.expected_workload(shape, settings).models

    def uni(model, **kwargs):
        return PipelineSettings(segmenter_code="torchuni", segmenter_kwargs={"model_file": str(model), **kwargs})

    assert needs(PipelineSettings()) == model_memory.NO_MODEL
    one = {"model_file": f"{G1}.dcnm"}
    folders = (shared_model(G1).parent,)
    mpo = needs(PipelineSettings(segmenter_code="torchmpo", segmenter_kwargs=one, model_folders=folders))
    fallback = PipelineSettings(fallback=SegmenterSpec("torchmpo", one), model_folders=folders)
    assert needs(fallback) == mpo
    large = needs(fallback, (256, 400))
    assert large.worker_bytes - mpo.worker_bytes == pytest.approx(303 * (256 * 400 - 80 * 320), rel=0.01)
    program = {"model_file_format": "ExportedProgram", "wiring_options": [{"backend": "torch.eager", "device": "cpu"}]}
    eager, many = (needs(uni(save_2(tmp_path, describe_2(batch_size=size, **program)))) for size in (0, 100))
    compiled = needs(uni(save_2(tmp_path, describe_2(**program)), backend="inductor", device="cpu"))
    assert mpo < eager < many
    assert compiled.worker_bytes - eager.worker_bytes == pytest.approx(model_memory.COMPILER_BYTES, rel=0.01)
    # a model that is missing is no reason to promise little
    assert needs(uni(tmp_path / "gone_00000.dcnm")).worker_bytes > eager.worker_bytes
