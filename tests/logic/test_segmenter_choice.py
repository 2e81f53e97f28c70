"""A segmenter is used only for measurements that it is made for; another one may be named for the rest."""

from __future__ import annotations

import dataclasses
import pickle

import h5py
import numpy as np
import pytest

from dcnumd.errors import MeasurementError, MethodError
from dcnumd.logic.inspect import inspect_measurement
from dcnumd.logic.job import Job, PipelineSettings, SegmenterSpec
from dcnumd.logic.plan import configured_ids, open_plan
from dcnumd.logic.process import engine, process_measurement
from dcnumd.read.hdf5_data import HDF5Data
from dcnumd.report.processing import read_run
from dcnumd.segm.segm_thresh import SegmentThresh
from dcnumd.segm.segmenter import SegmenterNotApplicableError
from tests.support.daemon import draw_measurement

REASONS = ["only recordings in the reservoir", "must not be compressed"]
REFUSAL = f"the segmenter 'reservoir' is not made for this measurement: {'; '.join(REASONS)}"


class SegmentReservoir(SegmentThresh):
    """A segmenter that is made for few measurements."""

    @classmethod
    def validate_applicability(cls, segmenter_kwargs, meta=None, logs=None):  # noqa: ARG003 -- the interface
        wrong = [meta["setup:chip region"] != "reservoir", logs.get("dclab-compress") == ["compressed"]]
        if reasons := [reason for reason, holds in zip(REASONS, wrong, strict=True) if holds]:
            raise SegmenterNotApplicableError(cls, reasons)
        return True


class SegmentTrained(SegmentThresh):
    """A segmenter with a file, which has other defaults than a config can contain."""

    file_keywords = ("model_file",)

    @staticmethod
    def segment_algorithm(image, *, model_file: str | None = None, backend: str | None = None, speed: str = "fast"):
        return image < len(f"{model_file}{backend}{speed}")


@pytest.fixture(scope="module", autouse=True)
def stop_workers():
    """End the engine's workers after the last test of this module."""
    yield
    engine.close()


@pytest.fixture
def job(tmp_path):
    """Return a job for a measurement for which the segmenter is not made, for two reasons."""
    draw_measurement(tmp_path / "M.rtdc")
    with h5py.File(tmp_path / "M.rtdc", "r+") as h5:
        h5.attrs["setup:chip region"] = "channel"
        h5["logs/dclab-compress"] = np.array([b"compressed"])
    settings = PipelineSettings(segmenter_code="reservoir")
    return Job(tmp_path / "M.rtdc", tmp_path / "M_dcn.rtdc", settings, num_workers=1)


def with_fallback(job, *fallback):
    """Return the job with another segmenter for what its own is not made for."""
    return dataclasses.replace(job, settings=dataclasses.replace(job.settings, fallback=SegmenterSpec(*fallback)))


def test_other_measurements_are_refused_with_all_reasons(job):
    """Before anything is computed, and without another attempt."""
    with pytest.raises(MeasurementError) as caught:
        inspect_measurement(job)
    assert caught.value.reason == "not_applicable"
    assert not caught.value.transient
    assert caught.value.message == f"{job.path_in}: {REFUSAL}"
    with h5py.File(job.path_in, "r+") as h5:
        h5.attrs["setup:chip region"] = "reservoir"
        del h5["logs/dclab-compress"]
    found = inspect_measurement(job)
    assert "|reservoir:t=-6:" in found.ppid
    assert (found.segmenter, found.not_applicable) == ("reservoir", ())


def test_fallback_gives_its_own_result_and_says_so(job):
    """The result is that of the other segmenter, under its pipeline ID; its report names the reasons."""
    kwargs = {"thresh": -8}
    found = inspect_measurement(with_fallback(job, "thresh", kwargs))
    assert (found.segmenter, list(found.not_applicable)) == ("thresh", REASONS)
    result = process_measurement(with_fallback(job, "thresh", kwargs))
    plain = PipelineSettings(segmenter_kwargs=kwargs)
    expected = process_measurement(dataclasses.replace(job, settings=plain, path_out=job.path_in.with_stem("plain")))
    assert result.events > 0
    assert (found.ppid, result.ppid, result.events) == (expected.ppid, expected.ppid, expected.events)
    with HDF5Data(result.path_out) as data:
        assert f"{REFUSAL}; 'thresh' is used instead" in read_run(data.logs).processing.warnings


def test_fallback_may_not_be_made_for_it_either(job):
    """Then the measurement is refused as without one."""
    with pytest.raises(MeasurementError, match="'reservoir' is not made for this measurement") as caught:
        inspect_measurement(with_fallback(job, "reservoir"))
    assert caught.value.reason == "not_applicable"


def test_fallback_is_checked_like_any_segmenter():
    """A mistake in its section is found before the first measurement needs it."""
    settings = PipelineSettings(fallback=SegmenterSpec("thresh", {"tresh": 3}))
    with pytest.raises(MethodError, match=r"pipeline\.segmenter\.fallback\.tresh: unknown key; did you mean"):
        configured_ids(settings)
    settings = PipelineSettings(fallback=SegmenterSpec("thresh", {}, {"closing_disk": -1}))
    with pytest.raises(MethodError, match="closing_disk is -1"):
        configured_ids(settings)


def test_refusal_crosses_the_border_of_a_process():
    """A method of another package may raise it anywhere."""
    error = pickle.loads(pickle.dumps(SegmenterNotApplicableError(SegmentReservoir, REASONS)))  # noqa: S301 -- our own
    assert (error.message, error.reasons_list, error.reason) == (REFUSAL, REASONS, "not_applicable")


@pytest.mark.parametrize("written", ["net_0a1b2.dcnm", "{folder}/net_0a1b2.dcnm"])
def test_model_is_found_by_its_name(job, tmp_path, written):
    """The pipeline ID contains its name only, wherever it is; the job gets its path."""
    (tmp_path / "models").mkdir()
    model = tmp_path / "models" / "net_0a1b2.dcnm"
    settings = PipelineSettings(
        segmenter_code="trained",
        segmenter_kwargs={"model_file": written.format(folder=model.parent), "backend": "", "speed": ""},
        model_folders=(tmp_path, model.parent),
    )
    with pytest.raises(MethodError, match=r"model file '.*net_0a1b2\.dcnm' is not there nor in ") as caught:
        configured_ids(settings)
    assert caught.value.reason == "model_missing"
    model.write_bytes(b"")
    expected = "trained:m=net_0a1b2.dcnm^b=None^s=:cle=1^f=1^clo=2"
    assert configured_ids(settings)["segmenter"] == expected
    with open_plan(dataclasses.replace(job, settings=settings)) as plan:
        assert plan.pipeline_id.segmenter == expected
        assert plan.job.settings.segmenter_kwargs == {"model_file": str(model), "speed": ""}
        engaged = plan.segmenter(**plan.job.settings.segmenter_kwargs)
        assert engaged.get_ppid() == expected
