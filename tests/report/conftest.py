"""Simulated measurements, processed and measured."""

from __future__ import annotations

import h5py
import pytest

from dcnumd.config.values import ReportLimits
from dcnumd.logic.job import Job, PipelineSettings
from dcnumd.logic.process import engine, process_measurement
from dcnumd.report.figures import measure
from dcnumd.report.request import ReportRequest
from dcnumd.report.result_file import open_result
from dcnumd.simulate.measurement import write_measurement
from dcnumd.simulate.spec import MeasurementSpec


@pytest.fixture(scope="module")
def simulate(tmp_path_factory):
    """Return a function that simulates and processes a measurement, and returns the path of its result.

    `stored` are further features that the instrument stores in the measurement.
    """
    folder = tmp_path_factory.mktemp("simulated")
    made = {}

    def make(name="usual", *, strategy="tap", settings=None, stored=None, **spec):
        key = f"{name}-{strategy}"
        if key not in made:
            path = folder / f"{key}.rtdc"
            write_measurement(path, MeasurementSpec(**{"frames": 600, "rate": 600, "seed": 5, **spec}))
            with h5py.File(path, "a") as h5:
                for feature, values in (stored or {}).items():
                    h5["events"][feature] = values
            result = folder / f"{key}_dcn.rtdc"
            settings = PipelineSettings(**(settings or {}))
            process_measurement(Job(path, result, settings, num_workers=1, basin_strategy=strategy))
            made[key] = result
        return made[key]

    yield make
    engine.close()


@pytest.fixture(scope="session")
def figures_of():
    """Return a function that measures a result."""

    def figures(path, limits=None, **request):
        with open_result(ReportRequest(path, path.with_suffix(""), **request)) as data:
            return measure(data, limits or ReportLimits())

    return figures
