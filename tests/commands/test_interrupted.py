"""What commands say of recordings that were interrupted, and `process --interrupted`."""

from __future__ import annotations

import json
import pathlib

import h5py
import pytest

from dcnumd.cli import main
from dcnumd.daemon.ledger.records import Content, State
from dcnumd.daemon.ledger.store import Ledger
from dcnumd.logic.stamp import Stamp
from dcnumd.report.request import ReportRequest
from dcnumd.report.result_file import open_result
from dcnumd.simulate.measurement import MeasurementSpec
from tests.support.swmr import crashed_recording

SPEC = MeasurementSpec(size=(45, 100), frames=300, rate=400, density=1.0, seed=11)


@pytest.fixture
def crashed(tmp_path):
    """Return a recording with 250 frames that all features have, in a folder of its own."""
    path = tmp_path / "in" / "M001_data.rtdc"
    path.parent.mkdir()
    crashed_recording(path, SPEC, {"image": 250, "time": 270})
    return path


@pytest.fixture
def config(tmp_path, crashed):
    """Return a function that writes a config for the folder of the recording, and returns its path."""

    def write(policy="fail"):
        path = tmp_path / "config.toml"
        path.write_text(
            f"[watch]\nfolders = ['{crashed.parent}']\ninterrupted = '{policy}'\n[state]\nfolder = '{tmp_path}/state'\n"
            "[resources]\nnum_workers = 1\n"
        )
        return str(path)

    return write


def checked(capsys, *arguments):
    """Return the exit code of `check` for a file, and what it says of the file: as JSON, and as text."""
    code = main(["check", "--json", "--quick", *arguments])
    (told,) = json.loads(capsys.readouterr().out)["files"]
    assert main(["check", "--quick", *arguments]) == code
    return code, told, capsys.readouterr().out


def test_check_says_how_many_frames_there_are(crashed, config, capsys):
    """By default the file cannot be processed; it can if the daemon would do it."""
    code, told, shown = checked(capsys, "-c", config(), str(crashed))
    assert (code, told["reason"]) == (1, "open_for_writing")
    assert "is open for writing, or its recording was interrupted after 250 frames" in shown
    assert "--interrupted" in shown
    code, told, shown = checked(capsys, "-c", config("process"), str(crashed))
    assert (code, told["interrupted"], told["frames"], told["reason"]) == (0, True, 250, "")
    assert "was interrupted after 250 frames" in shown
    assert "13|hdf:p=0.2645^i=0|" in shown


def test_check_says_why_nothing_can_be_processed(crashed, config, capsys):
    """For example because there are no frames yet."""
    crashed_recording(crashed, SPEC, {"image": 0})
    code, told, shown = checked(capsys, "-c", config("process"), str(crashed))
    assert (code, told["reason"]) == (1, "no_frames")
    assert "no frames in events/image; the recording was interrupted" in shown


@pytest.mark.slow
def test_process_wants_to_be_told(crashed, config, tmp_path, capsys):
    """Without the option the file is refused, with it the result and its report say that it was interrupted."""
    arguments = ["process", str(crashed), "-o", str(tmp_path), "-c", config("process")]
    assert main(arguments) == 1
    assert "--interrupted processes the frames that all features have" in capsys.readouterr().err
    assert main([*arguments, "--interrupted"]) == 0
    shown = capsys.readouterr().out
    assert "interrupted recording, 250 frames" in shown
    assert "The recording was interrupted after 250 frames" in shown
    result = tmp_path / "M001_data_dcn.rtdc"
    with h5py.File(result) as h5:
        assert h5["events"].attrs["dcnumd input interrupted"]
        assert h5["events"].attrs["dcnumd input frames"] == 250
    with open_result(ReportRequest(path_result=result, path_report=tmp_path / "M001_data_dcn")) as data:
        assert data.interrupted_after == 250
        assert len(data.source_frames) == 250


def test_why_says_it(crashed, config, tmp_path, capsys):
    """With the number of frames, for people and for programs."""
    (tmp_path / "state").mkdir()
    with Ledger.open(pathlib.Path(tmp_path, "state")) as ledger:
        stamp = Stamp.at(str(crashed))
        entry = ledger.add(str(crashed), stamp, "job")
        content = Content(stamp.size, "md5", "identifier", "digest")
        entry = ledger.identify(entry, content, "ppid", "hash", frames=250, interrupted=1)
        ledger.move(entry.id, State.QUEUED)
    assert main(["why", str(crashed), "-c", config()]) == 0
    assert "The recording was interrupted after 250 frames." in capsys.readouterr().out
    assert main(["why", "--json", str(crashed), "-c", config()]) == 0
    (told,) = json.loads(capsys.readouterr().out)["entries"]
    assert (told["interrupted"], told["frames"]) == (1, 250)
