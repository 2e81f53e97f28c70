"""The command `models`: what models are, for whom they are made, and whether this computer can run them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys

import pytest

from dcnumd.cli import main
from dcnumd.errors import ModelError
from dcnumd.segm.segm_torch import torch_setup, ways
from dcnumd.segm.segm_torch.segm_torch_uni import SegmentTorchUNI
from tests.support.models import G1, G2, describe, describe_2, save, save_1, save_2

RULES = [
    {"type": "meta", "key": "setup:chip region", "regexp": "^channel$", "reason": "not in the channel"},
    {"type": "logs", "key": "run", "allow-missing-key": True, "regexp": "fail", "regexp-negate": True, "reason": "bad"},
    {"type": "meta", "key": "setup:channel width", "value": 20.0, "reason": "wrong channel"},
    {"type": "meta", "key": "setup:medium", "reason": "no medium"},
]
WORDS = [
    "setup:chip region must match '^channel$'",
    "the log run, if it exists, must not match 'fail'",
    "setup:channel width must be 20 within 1 %",
    "setup:medium must exist",
]


def listed(capsys, *arguments, expected=0):
    """Return what the command prints as JSON."""
    assert main(["models", *map(str, arguments), "--json"]) == expected
    return json.loads(capsys.readouterr().out)


def test_model_tells_for_which_measurements_it_is_made(tmp_path, capsys):
    """All that the file says is there, for people and for programs; only torch may be missing to run it."""
    path = save_1(tmp_path, describe(validation=RULES))
    (told,) = listed(capsys, tmp_path)
    assert (told["path"], told["error"], told["version"]) == (str(path), "", 1)
    assert (told["name"], told["date"], told["frame_shape"]) == ("Model of a test", "2026-11-29", [64, 256])
    assert told["md5"].startswith(path.stem[-5:])
    assert [rule["words"] for rule in told["rules"]] == WORDS
    assert [(way["segmenter"], way["backend"], way["device"]) for way in told["ways"]] == [
        ("torchmpo", "torch.jit", "cpu"),
        ("torchsto", "torch.jit", "cuda"),
    ]
    assert main(["models", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    for text in (str(path), "Finds what is dark.", "of 64x256 pixels", f"{WORDS[0]} (not in the channel)"):
        assert text in shown


def test_models_of_the_config_are_listed_without_a_folder(tmp_path, capsys, monkeypatch):
    """Each folder of the config is listed; without one, the command asks for it."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_2(tmp_path / name, describe_2(name=name, wiring_options=[{"backend": "inductor", "device": "cpu"}]))
    config = tmp_path / "config.toml"
    config.write_text("[models]\nfolders = ['a', 'b']\n")
    told = listed(capsys, "-c", config)
    assert [model["name"] for model in told] == ["a", "b"]
    assert [(way["segmenter"], way["backend"]) for model in told for way in model["ways"]] == [
        ("torchuni", "inductor"),
        ("torchuni", "inductor"),
    ]
    config.write_text("")
    assert main(["models", "-c", str(config)]) == 2
    assert "name a folder, or set models.folders in the config" in capsys.readouterr().err
    assert main(["models", str(tmp_path / "missing")]) == 2
    assert "missing: cannot be listed: No such file or directory" in capsys.readouterr().err


def test_file_that_is_no_model_is_named(tmp_path, capsys):
    """Others are listed all the same; names and texts of files cannot affect the terminal."""
    sound = save_1(tmp_path, describe(name="\x1b[31mred", identifier="a"))
    bad = save(tmp_path, b"no model", "zzz\n")
    assert [model["path"] for model in listed(capsys, tmp_path, expected=1)] == [str(sound), str(bad)]
    assert main(["models", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert "begins with b'no m', expected b'PK" in shown
    assert "\\x1b[31mred" in shown
    assert "zzz\\n" in shown


@pytest.mark.parametrize(("torch", "usable"), [("2.9.0+cpu", True), ("2.1.0+cpu", False)])
def test_command_says_whether_this_computer_can_run_it(shared_model, tmp_path, torch, usable):
    """For that, torch is looked for and not imported."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise SystemExit('imported')")
    described = tmp_path / f"torch-{torch}.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {torch}\n")
    folder = shared_model(G1).parent
    assert shared_model(G2).parent == folder
    done = subprocess.run(
        [sys.executable, "-m", "dcnumd", "models", folder],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len([line for line in lines if line.split() == ["runs", "here", "yes" if usable else "no"]]) == 2
    assert any("torchsto: torch.jit on cuda (a build of torch with CUDA is needed" in line for line in lines) == usable
    assert any("must be a Rivercyte data file" in line for line in lines)


def test_ways_that_this_computer_lacks_something_for_are_told(tmp_path, capsys, monkeypatch):
    """What can be known without torch is told before any measurement fails; the config is checked likewise."""
    monkeypatch.setattr(ways, "lacking", lambda package: "" if package == "torch" else f"{package} is not installed")
    monkeypatch.setenv("CXX", str(tmp_path / "g++"))
    both = [("inductor", "cpu"), ("torch.jit", "cpu"), ("openvino", "cpu"), ("aot_eager", "mps"), ("aot_eager", "cpu")]
    options = [{"backend": backend, "device": device} for backend, device in both]
    paths = {
        kind: str(save_2(tmp_path, describe_2(model_file_format=kind, wiring_options=options)))
        for kind in ("ExportedProgram", "TorchScript")
    }
    problems = {model["path"]: [way["problem"] for way in model["ways"]] for model in listed(capsys, tmp_path)}
    no_script = "the network is an exported program, which the backend 'torch.jit' does not run"
    no_device = "the device is neither 'cpu' nor 'cuda', 'cuda:1' …"
    no_compiler = f"a compiler for C++ is needed, and '{tmp_path}/g++' is not installed"
    assert problems[paths["ExportedProgram"]] == [no_compiler, no_script, "openvino is not installed", no_device, ""]
    other = "the network is TorchScript, which only the backend 'torch.jit' runs"
    assert problems[paths["TorchScript"]] == [other, "", other, no_device, other]
    for path in paths.values():
        for option, problem in zip(options, problems[path], strict=True):
            expected = pytest.raises(ModelError, match=re.escape(problem)) if problem else contextlib.nullcontext()
            with expected:
                SegmentTorchUNI.check_values({"model_file": path} | option)
    monkeypatch.setenv("CXX", sys.executable)
    monkeypatch.setattr(torch_setup.sysconfig, "get_path", lambda _: str(tmp_path))
    assert torch_setup.missing_compiler().startswith("the header files of Python are needed")
    (tmp_path / "Python.h").touch()
    assert not torch_setup.missing_compiler()
