"""The command `check` with a model: how fast this computer segments, and for which measurements the model is."""

from __future__ import annotations

import json
import subprocess
import sys

import h5py
import pytest

from dcnumd.commands.check_pipeline import speed_in_words
from dcnumd.logic.speed import Speed
from tests.support.daemon import draw_measurement
from tests.support.models import G1, describe, needs_torch, save_1


def test_speed_is_compared_with_the_camera():
    """The camera is that of the file, or a usual one."""
    slow = speed_in_words(Speed(150.0, 2, (64, 256), 2000.0))
    assert slow.level == "note"
    assert slow.text == (
        "up to 150 frames/s with 2 workers and frames of 64x256 pixels; its camera with 2000 frames/s records 13.3 "
        "times as fast"
    )
    fast = speed_in_words(Speed(9000.0, 1, (64, 256)))
    assert fast.level == "ok"
    assert fast.text.endswith("with 1 worker and frames of 64x256 pixels; as fast as a usual camera with 3000 frames/s")


@needs_torch
@pytest.mark.slow
def test_model_is_run_and_compared_with_files(tmp_path, shared_model):
    """The speed is measured with frames for which the model is made, or with those of a file that it is made for."""
    model = shared_model(G1)
    config = tmp_path / "config.toml"
    config.write_text(
        f"[watch]\nfolders = ['{tmp_path}']\n[state]\nfolder = 'state'\n[resources]\nnum_workers = 3\n"
        f"[models]\nfolders = ['{model.parent}']\n"
        f"[pipeline.segmenter]\ncode = 'torchmpo'\nmodel_file = '{model.name}'\n"
    )

    def check(*arguments, expected=0):
        command = [sys.executable, "-m", "dcnumd", "check", "-c", config, "--json", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == expected, done.stderr
        return json.loads(done.stdout)

    told = check()
    assert f"|torchmpo:m={model.name}:cle=1^f=1^clo=0|" in told["ppid"]
    (speed,) = told["speeds"]
    assert speed["frames_per_second"] > 3
    assert (speed["processes"], speed["frame_shape"], speed["frame_rate"]) == (3, [64, 256], None)
    assert [finding["subject"] for finding in told["findings"]][-1] == "speed"
    (tmp_path / "bad").mkdir()
    other_model = ("--set", f"pipeline.segmenter.model_file={save_1(tmp_path / 'bad', describe())}")
    assert check("--quick", *other_model)["speeds"] == []
    bad = check(*other_model, expected=2)
    assert (bad["findings"][-1]["level"], bad["findings"][-1]["subject"]) == ("problem", "speed")
    paths = [tmp_path / f"{region}.rtdc" for region in ("channel", "reservoir")]
    for path in paths:
        draw_measurement(path)
        with h5py.File(path, "r+") as h5:
            h5.attrs["setup:chip region"] = path.stem
    made, other = check(*paths, expected=1)["files"]
    assert (made["segmenter"], made["reason"], made["speed"]["frame_rate"]) == ("torchmpo", "", 2000.0)
    assert (other["reason"], other["speed"]) == ("not_applicable", None)
    assert other["error"].endswith("only experiments in channel region supported")
    (other,) = check("--quick", "--set", "pipeline.segmenter.fallback=thresh", paths[1])["files"]
    assert (other["segmenter"], other["speed"]) == ("thresh", None)
    assert other["not_applicable"] == ["only experiments in channel region supported"]
