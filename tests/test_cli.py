"""The command line: what it prints, and its exit codes."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
from typing import get_args

import h5py
import numpy as np
import pytest

from dcnumd import __version__
from dcnumd.cli import COMMANDS, cli, main
from dcnumd.commands.process_jobs import make_jobs
from dcnumd.config.values import Settings
from dcnumd.daemon.ledger.records import Content, State
from dcnumd.daemon.ledger.store import Ledger
from dcnumd.daemon.measurements.probe import Verdict, not_complete
from dcnumd.logic.stamp import Stamp
from tests.support.terminal import CONTROLS, Terminal


def dcnumd(*arguments, **keywords):
    """Run a command as a process of its own."""
    command = [sys.executable, "-m", "dcnumd", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, **keywords)


@pytest.fixture
def told(capsys):
    """Return a function that runs a command in this process; it returns exit code, output and errors."""

    def run(*arguments):
        code = main([*map(str, arguments)])
        return (code, *capsys.readouterr())

    return run


def write_measurement(path, frames=40, shape=(48, 96), seed=0):
    rng = np.random.default_rng(seed)
    images = rng.normal(180, 1.5, (frames, *shape))
    images[::2, 15:32, 30:47] -= 40
    with h5py.File(path, "w") as h5:
        h5["events/image"] = images.astype(np.uint8)
        h5["events/time"] = np.arange(frames) / 2000.0
        h5.attrs.update(
            {"experiment:event count": frames, "imaging:pixel size": 0.34, "imaging:frame rate": 2000.0}
            | {"experiment:date": "2026-01-02", "experiment:time": "03:04:05", "setup:identifier": "test"}
        )


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.toml"
    (tmp_path / "in").mkdir()
    path.write_text(
        "[watch]\nfolders = ['in']\n[state]\nfolder = 'state'\n[resources]\nnum_workers = 1\nmin_free_gb = 0.01\n"
    )
    return path


@pytest.fixture
def ledger(tmp_path):
    """Return a ledger with one measurement done, one failed and one waiting."""
    (tmp_path / "state").mkdir()
    with Ledger.open(tmp_path / "state") as opened:
        for name in ("done", "failed", "queued"):
            path = str(tmp_path / "in" / f"{name}.rtdc")
            entry = opened.add(path, Stamp(1, 2, 3, 4), f"job-{name}")
            opened.move(entry.id, State.SETTLING)
            entry = opened.identify(opened.get(entry.id), Content(1, "0" * 32, name), "13|ppid", "hash", frames=5)
            opened.move(entry.id, State.QUEUED)
            if name == "done":
                opened.move(entry.id, State.RUNNING)
                opened.finish(entry.id, f"{path}_dcn", events=2, seconds=0.1)
            elif name == "failed":
                opened.move(entry.id, State.FAILED, "no_images", "there are no images", attempts=1)
        yield opened


def test_version_and_help_come_at_once_and_load_nothing_heavy():
    """The overview lists each command without importing it."""
    script = (
        "import sys; from dcnumd.cli import main; code = main(['--help'])\n"
        "heavy = {'numpy', 'h5py', 'numba', 'rich', 'watchfiles', 'asyncio', 'structlog'} & set(sys.modules)\n"
        "print(code, sorted(heavy), file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stderr.strip() == "0 []"
    assert all(f"  {name} " in ended.stdout for name in COMMANDS)
    shown = dcnumd("--version")
    assert (shown.returncode, shown.stdout.split()[-1]) == (0, __version__)


def test_help_of_commands_loads_no_numerical_code():
    """It comes at once, too: reading, plotting and computing are imported when a command runs."""
    script = (
        "import sys; from dcnumd.cli import COMMANDS, main; codes = {main([name, '--help']) for name in COMMANDS}\n"
        "print(codes, sorted({'numpy', 'h5py', 'scipy', 'numba', 'matplotlib'} & set(sys.modules)), file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stderr.strip() == "{0} []"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_teaches_by_example(name, capsys):
    """Each command explains itself and ends with an example, which it would understand."""
    assert main([name, "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.rpartition("\n\n")[2].split())
    words = shlex.split(re.split(r"[|<>)]", shown.partition("Example: ")[2].rpartition("$(")[2])[0])
    assert shown.startswith("Example: ")
    assert words[:2] == ["dcnumd", name]
    group = cli.make_context("dcnumd", [name])
    command = cli.get_command(group, name)
    assert command.make_context(name, words[2:], parent=group).params.keys() == {
        parameter.name for parameter in command.params if parameter.name != "help"
    }


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["proces"], "No such command 'proces'"),
        (["process"], "Missing argument"),
        (["run", "-c", "missing.toml"], "missing.toml: no such config file (asked for by -c)"),
        (["run"], "no config file: looked for"),
        (["status", "--set", "watch.setle_seconds=3"], "did you mean watch.settle_seconds?"),
        (["process", "a.rtdc", "--set", "log.level=loud"], "log.level: got 'loud'"),
        (["process", "a.rtdc", "--frames", "some"], "expected 1000 (the first 1000)"),
        (["simulate", "new", "--size", "big"], "expected height x width in pixels, for example 80x320"),
    ],
)
def test_wrong_usage_exits_2_with_one_reason(arguments, complaint, capsys, monkeypatch, tmp_path):
    """Usage and config errors are told without a traceback."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DCNUMD_CONFIG", raising=False)
    assert main(arguments) == 2
    assert complaint in capsys.readouterr().err


def test_status_without_ledger_says_so(config, capsys):
    """A daemon that never ran is a state, not an error."""
    assert main(["status", "-c", str(config)]) == 0
    assert "not running" in capsys.readouterr().out
    assert main(["status", "--json", "-c", str(config)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["daemon_pid"] is None
    assert set(shown["counts"].values()) == {0}
    assert not (config.parent / "state").exists()


def test_status_and_history_show_the_ledger(config, ledger, capsys):
    """What is done, waits or failed is listed with its reason, for people and for programs."""
    assert main(["status", "-c", str(config)]) == 0
    shown = capsys.readouterr().out
    assert "1 queued, 1 done, 1 failed" in shown
    assert "no_images: there are no images" in shown
    assert main(["history", "--json", "-c", str(config)]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert [entry["state"] for entry in entries] == ["failed", "done"]
    assert main(["history", "--failed", "-n", "1", "-c", str(config)]) == 0
    assert capsys.readouterr().out.count("\n") == 1


def test_why_tells_the_way_of_a_file(config, ledger, capsys, tmp_path):
    """Each step with its time; and for an unknown file, why nothing is known of it."""
    assert main(["why", str(tmp_path / "in" / "failed.rtdc"), "-c", str(config)]) == 0
    _, cause, *way = capsys.readouterr().out.splitlines()
    assert cause.strip().startswith("It contains no images. Record with images")
    assert [line.split()[1] for line in way] == ["seen", "settling", "queued", "failed"]
    done = tmp_path / "in" / "done.rtdc"
    assert main(["why", ledger.latest(str(done)).output, "-c", str(config)]) == 0
    explanation, line, *way = capsys.readouterr().out.splitlines()
    assert explanation.endswith(f"ignored: it is the result of {done}")
    assert f"{done}  " in line
    assert len(way) > 3
    assert main(["why", str(tmp_path / "in" / "x_dce.rtdc"), "-c", str(config)]) == 1
    assert "it has the name of a result of dcnum's predecessor" in capsys.readouterr().out
    assert main(["why", "/elsewhere/x.rtdc", "-c", str(config)]) == 1
    assert "in no watched folder" in capsys.readouterr().out


def test_retry_and_forget_change_the_ledger(config, ledger, capsys, tmp_path):
    """To retry makes a file new again, to forget removes it; both refuse what is not there, as a whole."""
    done, failed = (str(tmp_path / "in" / f"{name}.rtdc") for name in ("done", "failed"))
    assert main(["retry", done, failed, "-c", str(config)]) == 0
    assert (ledger.latest(done).state, ledger.latest(done).replace_output) == (State.SEEN, 1)
    assert (ledger.latest(failed).state, ledger.latest(failed).attempts) == (State.SEEN, 0)
    assert main(["forget", failed, "/unknown.rtdc", "-c", str(config)]) == 2
    assert ledger.latest(failed) is not None
    assert main(["forget", failed, "-c", str(config)]) == 0
    assert ledger.latest(failed) is None
    ledger.move(ledger.latest(str(tmp_path / "in" / "queued.rtdc")).id, State.RUNNING)
    assert main(["forget", str(tmp_path / "in" / "queued.rtdc"), "-c", str(config)]) == 2
    assert "is being processed now" in capsys.readouterr().err


def test_check_accepts_a_sound_config_and_shows_its_pipeline(config):
    """Folders, rights and space are looked at, and the pipeline ID that results is shown."""
    ended = dcnumd(
        "check", "--json", "-c", config, "--set", "pipeline.pixel_size=0.34", "--set", "pipeline.segmenter.thresh=-8"
    )
    assert ended.returncode == 0
    found = json.loads(ended.stdout)
    assert found["sound"] is True
    assert found["ppid"].startswith("13|hdf:p=0.34^i=0|sparsemed:")
    assert "|thresh:t=-8:" in found["ppid"]
    assert not (config.parent / "state").exists()


def test_check_notes_a_share_that_does_not_tell_its_space(config, monkeypatch, told):
    """A stale share keeps measurements waiting, and ends no command."""

    def stale(_):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(shutil, "disk_usage", stale)
    code, shown, _ = told("check", "-c", config)
    assert code == 0
    assert "Stale file handle; measurements wait" in shown


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("pipeline.segmenter.code=magic", "magic"),
        ("pipeline.segmenter.treshold=3", "treshold"),
        ("pipeline.background.code=none", "none"),
        ("pipeline.background.split_time=NaN", "split_time: got 'NaN'; a number is expected"),
        ("pipeline.background.split_time=0", "split_time is 0, expected more than 0 seconds"),
        ("pipeline.background.kernel_size=0", "kernel_size is 0, expected a whole number"),
        ("pipeline.segmenter.mask.closing_disk=-1", "closing_disk is -1, expected a whole number of pixels"),
        ("resources.cpus=[9999]", "cannot be used here"),
        ("resources.max_memory_mb=400", "MB of it beside the pipeline; resources.max_memory_mb is 400"),
        ("state.folder=/dev/null/x", "not a folder"),
    ],
)
def test_check_refuses_what_cannot_work(config, told, override, complaint):
    """A problem is named, and the exit code is 2."""
    code, shown, errors = told("check", "-c", config, "--set", override)
    assert code == 2
    assert complaint in next(line for line in shown.splitlines() if line.startswith("problem"))
    assert not errors


def test_check_notes_what_the_daemon_can_wait_for(config, told):
    """A full disk keeps measurements waiting, not the daemon from starting; memory is told, and where it is limited."""
    for override, subject, text in (
        ("resources.min_free_gb=1e9", "space", "measurements wait for more"),
        ("resources.max_memory_mb=900", "memory", "held below 900 MB"),
    ):
        code, shown, _ = told("check", "--json", "-c", config, "--set", override)
        assert code == 0
        findings = json.loads(shown)["findings"]
        (found,) = [finding for finding in findings if finding["subject"] == subject]
        assert found["level"] == "note"
        assert text in found["text"]


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("in", "is watched, too; results in it are not taken for measurements"),
        (".", "/in; results in it are not taken for measurements"),
        ("link", "is watched, too; results in it are not taken for measurements"),
        ("in/results", "/in; nothing in it is taken for a measurement"),
        ("out", ""),
    ],
)
def test_check_says_what_happens_where_results_go_to_a_watched_folder(config, told, output, text):
    """Whoever lets results go to where measurements come from reads that this is no mistake."""
    (config.parent / "link").symlink_to(config.parent / "in")
    folder = f"output.folder={os.path.normpath(config.parent / output)}"
    findings = json.loads(told("check", "--json", "-c", config, "--set", folder)[1])["findings"]
    texts = [finding["text"] for finding in findings if finding["subject"] == "output.folder"]
    assert len(texts) == bool(text)
    assert all(text in each for each in texts)


def test_check_tells_whether_the_kernels_are_compiled(config, monkeypatch, told, tmp_path):
    """A facility engineer sees whether the first start will take longer, and where compiled code is kept."""
    for cache, level in ((None, "ok"), (str(tmp_path / "empty"), "note")):
        if cache:
            monkeypatch.setenv("NUMBA_CACHE_DIR", cache)
        findings = json.loads(told("check", "--json", "-c", config)[1])["findings"]
        (kernels,) = [finding for finding in findings if finding["subject"] == "kernels"]
        assert kernels["level"] == level
        assert not cache or cache in kernels["text"]


def test_check_only_warns_of_a_missing_folder(config, told):
    """A share that is mounted later must not keep the service from starting."""
    folders = ("--set", "watch.folders=['/missing/share']", "--set", f"output.folder={config.parent}/out")
    code, shown, _ = told("check", "-c", config, *folders)
    assert (code, "does not exist; it is watched when it appears" in shown) == (0, True)


@pytest.mark.parametrize(
    ("overrides", "subject", "text"),
    [
        (["pipeline.segmenter.thresh=6"], "thresh", "6 selects all pixels that are not clearly brighter"),
        (
            ["report.pairs=['area_um:deformm']"],
            "report.pairs",
            "deformm is not a feature that dcnumd computes; did you",
        ),
        (
            ["report.pairs=['bright_avg:deform']", "pipeline.features.brightness=false"],
            "report.pairs",
            "bright_avg is not computed because pipeline.features.brightness is false",
        ),
        (["report.pairs=['bright_avg:deform']"], "report.pairs", ""),
    ],
)
def test_check_warns_of_probable_mistakes(config, told, overrides, subject, text):
    """What works, but gives results that nobody wants, is a warning and not a problem."""
    options = [part for override in overrides for part in ("--set", override)]
    code, shown, _ = told("check", "--json", "-c", config, *options)
    found = [finding for finding in json.loads(shown)["findings"] if finding["subject"] == subject]
    assert code == 0
    assert len(found) == bool(text)
    assert all(text in finding["text"] and finding["level"] == "warning" for finding in found)


@pytest.mark.slow
def test_check_says_of_a_file_whether_it_can_be_processed(config, told):
    """The outcome is that of the daemon; a file that cannot be processed is no mistake in the config."""
    good, bad = (config.parent / "in" / name for name in ("good.rtdc", "bad.rtdc"))
    write_measurement(good)
    bad.write_bytes(b"no")
    assert told("check", "-c", config, good)[0] == 0
    code, shown, _ = told("check", "-c", config, "--json", good, bad, config.parent / "none.rtdc")
    assert code == 1
    first, second, third = json.loads(shown)["files"]
    assert (first["path"], first["segmenter"], first["reason"]) == (str(good), "thresh", "")
    assert first["ppid"].startswith("13|hdf:p=0.34^i=0|sparsemed:")
    assert (second["reason"], third["reason"]) == ("not_hdf5", "vanished")
    code, shown, _ = told("check", "-c", config, "--set", "pipeline.segmenter.code=magic", bad)
    assert code == 2
    assert f"{bad}: " in shown.splitlines()[-1]


@pytest.mark.slow
def test_process_works_without_config_on_relative_paths(tmp_path):
    """Good files are processed, bad ones reported with the cure; the exit code says that not all worked."""
    for name, frames in (("Größe 1.rtdc", 40), ("good.rtdc", 200)):
        write_measurement(tmp_path / name, frames)
    (tmp_path / "bad.rtdc").write_bytes(b"no measurement")
    # as by a copy that broke off, and took its whole size first
    content = (tmp_path / "good.rtdc").read_bytes()
    cut = len(content) * 2 // 3
    (tmp_path / "half.rtdc").write_bytes(content[:cut] + bytes(len(content) - cut))
    names = ("Größe 1.rtdc", "bad.rtdc", "missing.rtdc", "half.rtdc", "good.rtdc")
    environment = {key: value for key, value in os.environ.items() if key != "DCNUMD_CONFIG"}
    ended = dcnumd("process", *names, "-o", "out", "--json", cwd=tmp_path, env=environment)
    assert ended.returncode == 1, ended.stderr
    results = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [result["outcome"] for result in results] == ["done", "failed", "failed", "failed", "done"]
    assert results[0]["path_out"] == str(tmp_path / "out" / "Größe 1_dcn.rtdc")
    reports = [f"{name}_dcn.{kind}" for name in ("Größe 1", "good") for kind in ("html", "json")]
    assert [pathlib.Path(path).name for result in results for path in result.get("report", [])] == reports
    assert [result["light"] for result in results] == ["yellow", None, None, None, "yellow"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        [*reports, "Größe 1_dcn.rtdc", "good_dcn.rtdc"]
    )
    errors = [line for line in ended.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 3
    assert str(tmp_path / "bad.rtdc") in errors[0]
    assert results[3]["reason"] == "incomplete"
    assert "half.rtdc: has frames that are all zero" in results[3]["error"]
    assert "copy it again" in results[3]["error"]
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_process_on_a_terminal_shows_progress_in_a_line_of_its_own(tmp_path):
    """Nothing is written into the line of the progress, also where the terminal's encoding is ASCII."""
    write_measurement(tmp_path / "M1.rtdc", 40)
    (tmp_path / "M2\x1b[31m\a\n.rtdc").write_bytes(b"no measurement")
    command = [sys.executable, "-m", "dcnumd", "process", str(tmp_path)]
    with Terminal(command, columns=300, environment={"LC_ALL": "C", "PYTHONUTF8": "0"}) as terminal:
        assert terminal.wait() == 1
    written = [CONTROLS.sub("", part) for part in re.split(r"\r|\n|\x1b\[2K", terminal.output)]
    assert any(part.startswith("[1/2] M1.rtdc") for part in written)
    assert "\x1b[31m" not in terminal.output
    assert "\a" not in terminal.output
    assert any(r"M2\x1b[31m\x07\n.rtdc" in part for part in written)
    starts = ("M1.rtdc: 40 frames", "Error: ", "  yellow: ", "1 done, 0 skipped, 1 failed")
    for start in starts:
        told = [part for part in written if start in part]
        assert [part.removeprefix(f"{tmp_path}/").startswith(start) for part in told] == [True]


@pytest.mark.parametrize("verdict", [one for one in get_args(Verdict) if one != "complete"])
def test_process_has_words_for_each_verdict(verdict):
    """Whatever a look at a file finds."""
    problem, reason = not_complete(verdict)
    assert problem
    assert reason


@pytest.mark.slow
def test_process_of_selected_frames_with_overrides(tmp_path, monkeypatch, told):
    """--frames selects, --set overrides, existing results are skipped and said to be; a report that fails is told."""
    write_measurement(tmp_path / "M.rtdc")
    overrides = ("--set", "pipeline.segmenter.thresh=-8", "--set", "log.level=error")
    command = ("process", "M.rtdc", "--frames", "0:30:2", *overrides)
    (tmp_path / "taken").touch()
    ended = dcnumd(*command, "--set", "report.folder=taken", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "15 frames" in ended.stdout
    assert f"Warning: {tmp_path}/M_dcn.rtdc has no report: {tmp_path}/taken" in ended.stderr
    with h5py.File(tmp_path / "M_dcn.rtdc") as h5:
        assert h5.attrs["pipeline:dcnum mapping"] == "0-30-2"
        assert h5.attrs["pipeline:dcnum segmenter"].startswith("thresh:t=-8:")
    monkeypatch.chdir(tmp_path)
    code, shown, _ = told(*command)
    assert (code, "skipped" in shown) == (0, True)


def test_process_refuses_two_files_with_one_result(tmp_path, monkeypatch, told):
    """Nothing overwrites the result of its neighbour."""
    monkeypatch.chdir(tmp_path)
    code, _, errors = told("process", "a/M.rtdc", "b/M.rtdc", "-o", "out")
    assert code == 2
    assert "would both become" in errors


def test_a_file_named_twice_is_one_job(tmp_path):
    """However it is called, as by patterns that overlap."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "M.rtdc").touch()
    (tmp_path / "link").symlink_to("data")
    names = [tmp_path / name for name in ("data/M.rtdc", "data/../data/M.rtdc", "data/N.rtdc", "data/M.rtdc")]
    jobs = make_jobs(Settings(), tuple(names), None, None)
    assert [job.path_in.name for job in jobs] == ["M.rtdc", "N.rtdc"]
    (job,) = make_jobs(Settings(), (names[0], tmp_path / "link" / "M.rtdc"), tmp_path / "out", None)
    assert job.path_in == names[0]


def test_process_takes_folders(tmp_path, capsys, monkeypatch):
    """The measurements in a folder are processed, not its results, and their tree is repeated in the output folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("data/M1.rtdc", "data/deep/M2.rtdc", "data/M1_dcn.rtdc", "data/notes.txt", "data/.M3.rtdc", "M4.rtdc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "M1_dcn.rtdc").touch()
    arguments = ["process", "M4.rtdc", "data", "-o", "out", "--dry-run"]
    assert main([*arguments, "--recursive"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}/M4.rtdc -> {tmp_path}/out/M4_dcn.rtdc",
        f"{tmp_path}/data/M1.rtdc -> {tmp_path}/out/M1_dcn.rtdc (exists)",
        f"{tmp_path}/data/deep/M2.rtdc -> {tmp_path}/out/deep/M2_dcn.rtdc",
    ]
    assert main([*arguments, "--json"]) == 0
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(pathlib.Path(job["path_in"]).name, job["exists"]) for job in shown] == [
        ("M4.rtdc", False), ("M1.rtdc", True),
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["M1_dcn.rtdc"]


def test_process_of_a_folder_without_measurements_is_wrong_usage(tmp_path, capsys):
    """A folder above the right one is named, with what would help."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "M_dcn.rtdc").touch()
    assert main(["process", str(tmp_path)]) == 2
    assert f"{tmp_path}: there are no measurements directly in it; --recursive" in capsys.readouterr().err
    assert main(["process", str(tmp_path), "-r"]) == 2
    assert "no measurements in it or below it" in capsys.readouterr().err


@pytest.mark.slow
def test_process_stopped_by_ctrl_c_leaves_no_result(tmp_path):
    """The first Ctrl-C, which reaches all processes, ends the running file; the last lines say what was not done."""
    write_measurement(tmp_path / "M0.rtdc", frames=400, shape=(80, 320))
    for number in range(1, 30):
        (tmp_path / f"M{number}.rtdc").hardlink_to(tmp_path / "M0.rtdc")
    (tmp_path / "bad.rtdc").write_bytes(b"no measurement")
    names = ["bad.rtdc", *(f"M{number}.rtdc" for number in range(30))]
    command = [sys.executable, "-m", "dcnumd", "process", "--no-report", *names]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as process:
        first = process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in errors
    done = [line.split(": ")[0] for line in (first + rest).splitlines()]
    results = sorted(path.name for path in tmp_path.iterdir() if "_dcn" in path.name)
    # There are no reports among them.
    assert results == sorted(f"{pathlib.Path(name).stem}_dcn.rtdc" for name in done)
    assert len(results) < 30
    (counted,) = (line for line in errors.splitlines() if re.match(r"\d+ done", line))
    counts = {end: int(number) for number, end in (part.split(" ", 1) for part in counted.split(", "))}
    assert (counts["done"], counts["skipped"]) == (len(done), 0)
    # The signal may have come between two files.
    assert counts["failed"] == 1
    assert errors.count("Stopped: ") == counts.get("not finished", 0) <= 1
    assert sum(counts.values()) == 31
    assert f"  not_hdf5         {tmp_path}/bad.rtdc" in errors.splitlines()


@pytest.mark.slow
def test_daemon_with_an_unknown_segmenter_does_not_start(tmp_path):
    """A method that does not exist ends `run` at once with exit code 2 and one line that names file and method."""
    config = tmp_path / "config.toml"
    config.write_text(
        f'[watch]\nfolders = ["{tmp_path}"]\n[state]\nfolder = "{tmp_path / "state"}"\n'
        '[pipeline.segmenter]\ncode = "tresh"\n'
    )
    ended = dcnumd("run", "-c", config)
    assert ended.returncode == 2
    assert f"{config}: pipeline: unknown segmenter 'tresh', available are thresh" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("proces", "process"), ("Status", "status"), ("installservice", "install-service"), ("frobnicate", None)],
)
def test_command_that_is_misspelt_is_suggested(typed, meant, capsys):
    """A command that does not exist ends with exit code 2, and names the one that is spelt alike, if there is one."""
    assert main([typed]) == 2
    told = capsys.readouterr().err
    assert f"No such command {typed!r}" in told
    assert told.rstrip().endswith(f"did you mean {meant}?" if meant else ".")
