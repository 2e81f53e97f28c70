"""After the warm-up nothing is compiled any more."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dcnumd.kernels import cache as kernel_cache

STRICT = """
import os, pathlib
from dcnumd.kernels import cache

# every process of the test fails when it would have to compile
cache.check(pathlib.Path(os.environ["KERNELS_OF_TEST"]))
"""
PROCESS = """
import pathlib, sys
from dcnumd.feat.feat_background.bg_sparse_median import BackgroundSparseMed
from dcnumd.logic.job import Job, PipelineSettings
from dcnumd.logic.process import process_measurement
from dcnumd.simulate.measurement import MeasurementSpec, write_measurement

if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    write_measurement(folder / "M1.rtdc", MeasurementSpec(size=(45, 100), frames=240, seed=3))
    write_measurement(folder / "M2.rtdc", MeasurementSpec(size=(45, 100), frames=240, seed=4))
    with BackgroundSparseMed(folder / "M2.rtdc", folder / "M2.rtdc") as background:
        background.process()
    nothing = {"brightness": False, "haralick": False, "volume": False}
    runs = [
        ("M1", "drain", PipelineSettings()),
        ("M1", "tap", PipelineSettings(feature_kwargs=nothing)),
        ("M1", "drain", PipelineSettings(background_code="rollmed", feature_kwargs={**nothing, "brightness": True})),
        ("M1", "tap", PipelineSettings(background_kwargs={"offset_correction": False})),
        ("M2", "drain", PipelineSettings(background_code="copy")),
    ]
    for number, (name, strategy, settings) in enumerate(runs):
        job = Job(folder / f"{name}.rtdc", folder / f"{number}.rtdc", settings, strategy, num_workers=2)
        print(process_measurement(job).events > 0)
"""


@pytest.fixture
def environment(tmp_path):
    """Return the environment of processes that cannot compile."""
    folder = kernel_cache.ensure_compiled(print)
    (tmp_path / "sitecustomize.py").write_text(STRICT)
    return {**os.environ, "PYTHONPATH": str(tmp_path), "KERNELS_OF_TEST": str(folder)}


def run(arguments, environment):
    """Run Python and return the words that it prints."""
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "sitecustomize" not in done.stderr, "Python goes on without it"
    return done.stdout.split()


@pytest.mark.slow
def test_measurements_need_no_kernel_that_is_not_kept(environment, tmp_path):
    """Whatever the background, the features and the strategy: all that the pipeline calls is compiled ahead."""
    script = tmp_path / "process.py"
    script.write_text(PROCESS)
    assert run([str(script), str(tmp_path)], environment) == ["True"] * 5


def test_preload_has_all_that_workers_need(environment):
    """What workers are forked from has imported their code and loaded the kernels."""
    code = "import sys, dcnumd.logic.preload; from dcnumd.feat.kernels_events import extract\n"
    code += "print('dcnumd.logic.tasks' in sys.modules, len(extract.signatures))"
    assert run(["-c", code], environment) == ["True", "1"]


def test_preload_never_fails(environment, tmp_path):
    """An error in the warm-up is left to the workers."""
    environment["KERNELS_OF_TEST"] = str(tmp_path / "missing")
    assert run(["-c", "import dcnumd.logic.preload; print('imported')"], environment) == ["imported"]
