"""The command that writes simulated measurements."""

from __future__ import annotations

import json

import h5py

from dcnumd.cli import main


def test_simulate_writes_numbered_measurements_with_truth(tmp_path):
    """Two measurements have the recorder's names, different cells, and their truth beside them."""
    arguments = [str(tmp_path / "new" / "folder"), "--count", "2", "--frames", "60", "--truth", "--size", "45x100"]
    assert main(["simulate", *arguments]) == 0
    names = sorted(path.name for path in (tmp_path / "new" / "folder").iterdir())
    assert names == ["M001_data.rtdc", "M001_data_truth.json", "M002_data.rtdc", "M002_data_truth.json"]
    with (
        h5py.File(tmp_path / "new/folder/M001_data.rtdc") as one,
        h5py.File(tmp_path / "new/folder/M002_data.rtdc") as two,
    ):
        assert (one["events/image"][:] != two["events/image"][:]).any()
        assert two.attrs["experiment:run index"] == 2
        assert one.attrs["experiment:time"] != two.attrs["experiment:time"]


def test_simulate_goes_on_numbering(tmp_path, capsys):
    """Measurements that are there are kept; the next one gets the next number."""
    for _ in range(2):
        assert main(["simulate", str(tmp_path), "--frames", "20", "--size", "45x100", "--json"]) == 0
    first, written = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first["path"].endswith("M001_data.rtdc")
    assert written["path"].endswith("M002_data.rtdc")
    assert written["frames"] == 20


def test_simulate_refuses_a_wrong_setting_in_one_line(tmp_path, capsys):
    """A value out of range ends with exit code 2 and one line."""
    assert main(["simulate", str(tmp_path), "--kinds", "worm"]) == 2
    output = capsys.readouterr().err
    assert output.count("\n") == 1
    assert "expected some of bead, cell, doublet, border" in output


def test_simulate_refuses_to_record_nothing(tmp_path, capsys):
    """A measurement without frames would only be an error of what reads it."""
    assert main(["simulate", str(tmp_path / "new"), "--frames", "0"]) == 2
    assert "'--frames': 0 is not in the range" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_demo_refuses_a_folder_with_content(tmp_path, capsys):
    """The demonstration does not mix with other files."""
    (tmp_path / "thesis.txt").write_text("important")
    assert main(["demo", "--keep", str(tmp_path)]) == 2
    output = capsys.readouterr().err
    assert "is not empty" in output
