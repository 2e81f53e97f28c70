"""Models are found on the workers, which may have them elsewhere."""

from __future__ import annotations

import pathlib

import pytest

from dcnumd.config.path_map import PathMap
from dcnumd.daemon.cluster.places import job_there
from dcnumd.logic.job import Job, PipelineSettings, SegmenterSpec
from tests.support.faults import published, result_of

METHOD = """
import pathlib
from dcnumd.segm.segmenter_mpo import MPOSegmenter

class SegmentFromFile(MPOSegmenter):
    requires_background_correction = True
    file_keywords = ("model_file",)

    @staticmethod
    def segment_algorithm(image, *, model_file=""):
        return image < float(pathlib.Path(model_file).read_text())
"""


@pytest.fixture
def method(tmp_path, monkeypatch):
    """Install a segmenter with a model for all processes that are started."""
    site = tmp_path / "site"
    about = site / "from_file-1.0.dist-info"
    about.mkdir(parents=True)
    (site / "from_file.py").write_text(METHOD)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: from-file\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[dcnumd.segmenters]\nfromfile = from_file:SegmentFromFile\n")
    monkeypatch.setenv("PYTHONPATH", str(site))


def test_paths_of_models_are_those_of_the_workers():
    """Only what the map covers is replaced; names without a folder stay names."""
    fallback = SegmenterSpec("b", {"model_file": "/srv/models/b.dcnm", "size": 3})
    kept = {"model_file": "a.dcnm", "other": "/opt/models/a.dcnm"}
    settings = PipelineSettings(
        segmenter_code="a",
        segmenter_kwargs=kept,
        fallback=fallback,
        model_folders=(pathlib.Path("/srv/models"), pathlib.Path("/opt/models")),
    )
    job = Job(pathlib.Path("/srv/in/M1.rtdc"), pathlib.Path("/srv/in/M1_dcn.rtdc"), settings)
    there = job_there(PathMap.of({"/srv": "/mnt"}), job).settings
    assert there.segmenter_kwargs == kept
    assert there.fallback == SegmenterSpec("b", {"model_file": "/mnt/models/b.dcnm", "size": 3})
    assert there.model_folders == (pathlib.Path("/mnt/models"), pathlib.Path("/opt/models"))
    assert job_there(PathMap.of({}), job).settings == settings


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.usefixtures("method")
def test_a_worker_uses_its_own_models(cluster, start_daemon, write_config, watched_folder, tmp_path):
    """A model that it does not have costs an attempt, and the message names the worker."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "six.txt").write_text("-6")
    (tmp_path / "there").mkdir()
    pipeline = (
        f'[pipeline.segmenter]\ncode = "fromfile"\nmodel_file = "six.txt"\n[models]\nfolders = ["{tmp_path}/here"]\n'
    )
    paths = {str(watched_folder): str(watched_folder), f"{tmp_path}/here": f"{tmp_path}/nowhere"}
    worker = cluster.start_worker("models", f'models.folders=["{tmp_path}/there"]')
    daemon = start_daemon("--set", "retry.attempts=9", config=write_config(cluster.config(paths=paths) + pipeline))
    path = published(watched_folder, "M1.rtdc")
    failed = daemon.wait_for("job.failed", path=str(path))
    assert (failed["reason"], failed["will_retry"]) == ("model_missing", True)
    assert "on the worker" in failed["error"]
    (tmp_path / "there" / "six.txt").write_text("-6")
    daemon.wait_for("job.finished", path=str(path))
    assert result_of(path).exists()
    assert worker.stop() == 0
