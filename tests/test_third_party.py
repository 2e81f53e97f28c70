"""Segmenters and backgrounds of installed packages are used by name from a configuration."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest

from dcnumd.simulate.measurement import MeasurementSpec, write_measurement

MODULE = '''
import numpy as np

from dcnumd.feat.feat_background.base import Background
from dcnumd.segm.segm_thresh import SegmentThresh
from dcnumd.segm.segmenter import SegmenterNotApplicableError
from dcnumd.segm.segmenter_mpo import MPOSegmenter


class SegmentBand(MPOSegmenter):
    """All that deviates from the background, on either side."""

    requires_background_correction = True
    mask_postprocessing = True
    mask_default_kwargs = {"closing_disk": 1}

    @staticmethod
    def segment_algorithm(image, *, low: float = -6, high=90):
        return (image < low) | (image > high)


class SegmentReservoir(SegmentThresh):
    """For recordings in the reservoir only."""

    @classmethod
    def validate_applicability(cls, segmenter_kwargs, meta=None, logs=None):
        if meta["setup:chip region"] != "reservoir":
            raise SegmenterNotApplicableError(cls, ["not in the reservoir"])
        return True


class BackgroundFirst(Background):
    """The first frame is the background of all frames."""

    def check_user_kwargs(self, *, brighter: int = 0):
        pass

    def process_approach(self):
        image = self.input_data[0] + np.uint8(self.kwargs["brighter"])
        for _ in range(self.image_count):
            self.writer.store_feature_chunk("image_bg", image[np.newaxis])
'''
ENTRY_POINTS = """
[dcnumd.segmenters]
band = third_party:SegmentBand
reservoir = third_party:SegmentReservoir

[dcnumd.backgrounds]
first = third_party:BackgroundFirst
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Lay out a package in a folder of its own, as pip does; return an environment in which it is found."""
    site = tmp_path_factory.mktemp("site")
    described = site / "third_party-1.0.dist-info"
    described.mkdir()
    (site / "third_party.py").write_text(MODULE)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text(ENTRY_POINTS)
    return {**os.environ, "PYTHONPATH": str(site)}


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Return a simulated measurement."""
    path = tmp_path_factory.mktemp("recording") / "M001_data.rtdc"
    write_measurement(path, MeasurementSpec(size=(45, 100), frames=240, density=1.5, seed=8))
    return path


def dcnumd(*arguments, environment, expected=0):
    """Run a command; return its output."""
    command = [sys.executable, "-m", "dcnumd", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == expected, done.stderr
    return done.stdout, done.stderr


def test_installed_methods_are_used_by_name(installed, recording, tmp_path):
    """A plain Python segmenter of another package runs in the workers, under its own identifier; so does a background.

    The background's images are written, and each event has the one of its frame.
    """
    config = tmp_path / "config.toml"
    config.write_text(
        '[pipeline.segmenter]\ncode = "band"\nhigh = 60\n[pipeline.segmenter.mask]\nfill_holes = false\n'
        '[pipeline.background]\ncode = "first"\nbrighter = 3\n'
    )
    output, _ = dcnumd(
        "process", "--no-report", recording, "-o", tmp_path, "-c", config, "--json", environment=installed
    )
    assert json.loads(output)["outcome"] == "done"
    with (
        h5py.File(tmp_path / "M001_data_dcn.rtdc", locking=False) as h5,
        h5py.File(recording, locking=False) as source,
    ):
        assert h5.attrs["pipeline:dcnum segmenter"] == "band:l=-6^h=60:cle=1^f=0^clo=1"
        assert h5.attrs["experiment:event count"] > 100
        assert h5.attrs["pipeline:dcnum background"] == "first:b=3"
        np.testing.assert_array_equal(h5["events/image_bg"][7], source["events/image"][0] + np.uint8(3))


def test_foreign_segmenter_that_does_the_same_gives_the_same_events(installed, recording, tmp_path):
    """The way through plain Python and the fused kernel meet in the same events."""
    for name, settings in (
        ("band", ["--set", "pipeline.segmenter.code=band", "--set", "pipeline.segmenter.high=9999"]),
        ("thresh", ["--set", "pipeline.segmenter.mask.closing_disk=1"]),
    ):
        dcnumd("process", "--no-report", recording, "-o", tmp_path / name, *settings, environment=installed)
    with (
        h5py.File(tmp_path / "band" / "M001_data_dcn.rtdc", locking=False) as ours,
        h5py.File(tmp_path / "thresh" / "M001_data_dcn.rtdc", locking=False) as expected,
    ):
        for name in expected["events"]:
            np.testing.assert_array_equal(ours["events"][name][:], expected["events"][name][:], err_msg=name)


def test_segmenter_that_is_not_installed_is_refused_with_a_list(recording, tmp_path):
    """One line names what there is; the exit code is that of a wrong configuration, and nothing is written."""
    arguments = ("process", "--no-report", recording, "-o", tmp_path, "--set", "pipeline.segmenter.code=band")
    _, error = dcnumd(*arguments, environment=dict(os.environ), expected=2)
    assert "unknown segmenter 'band', available are thresh" in error
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_daemon_refuses_what_a_segmenter_is_not_made_for_until_the_settings_change(installed, recording, tmp_path):
    """The refusal stays, with its reasons; another config has the measurement processed by another segmenter."""
    (tmp_path / "in").mkdir()
    path = shutil.copy(recording, tmp_path / "in")
    base = (
        f"[watch]\nfolders = ['{tmp_path}/in']\nsettle_seconds = 0.1\n[state]\nfolder = '{tmp_path}/state'\n"
        "[report]\nenabled = false\n[log]\nformat = 'json'\n[resources]\nnum_workers = 1\n"
        "[pipeline.segmenter]\ncode = 'reservoir'\n"
    )
    config = tmp_path / "config.toml"

    def run(more="", expected=0):
        config.write_text(base + more)
        _, told = dcnumd("run", "--once", "-c", config, environment=installed, expected=expected)
        return {event["event"]: event for event in map(json.loads, told.splitlines())}

    refused = run(expected=1)["job.failed"]
    assert (refused["reason"], refused["will_retry"]) == ("not_applicable", False)
    assert refused["error"].endswith(
        f"{path}: the segmenter 'reservoir' is not made for this measurement: not in the reservoir"
    )
    why, _ = dcnumd("why", "-c", config, path, environment=installed)
    assert "The segmenter is not made for it. The details say why" in why
    assert "not in the reservoir" in why
    assert not {"file.detected", "job.failed"} & set(run())
    told = run("fallback = 'thresh'\n")
    assert (told["file.settled"]["fallback"], told["file.settled"]["not_applicable"]) == (
        "thresh",
        ["not in the reservoir"],
    )
    assert "|thresh:t=-6:" in told["job.finished"]["ppid"]
    shown, _ = dcnumd("check", "-c", config, path, environment=installed)
    assert "thresh:t=-6:cle=1^f=1^clo=2 where reservoir is not made for the measurement" in shown
    assert f"{path}: segmented by thresh instead (not in the reservoir): 13|" in shown
    _, noted = dcnumd("process", "--no-report", path, "-o", tmp_path, "-c", config, environment=installed)
    assert f"Note: {path}: segmented by thresh instead (not in the reservoir)" in noted.splitlines()
