"""Completion in the shell, asked the way shells ask, and by a real bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from dcnumd.cli import COMMANDS, main
from tests.support.terminal import Terminal


@pytest.fixture
def completions(monkeypatch, capfd):
    """Return a function that gives what the program answers to a shell that completes the last of some words."""

    def ask(*words, kind="bash"):
        monkeypatch.setenv("_DCNUMD_COMPLETE", f"{kind}_complete")
        monkeypatch.setenv("COMP_WORDS", " ".join(("dcnumd", *words)))
        monkeypatch.setenv("COMP_CWORD", words[-1] if kind == "fish" else str(len(words)))
        with pytest.raises(SystemExit) as ended:
            main([])
        assert ended.value.code == 0
        answer, complaints = capfd.readouterr()
        assert not complaints
        return answer.splitlines()

    return ask


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Return a search path on which there is a `dcnumd`, as after its installation."""
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "dcnumd"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dcnumd "$@"\n')
    program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_commands_complete_without_being_imported():
    """The first word is completed from the table: at once, and even if a command cannot be imported."""
    code = (
        "import sys; from dcnumd.cli import main\n"
        "try: main([])\n"
        "finally: print(sorted({'structlog', 'rich', 'numpy', 'dcnumd.config.values'}"
        " & set(sys.modules)), file=sys.stderr)"
    )
    asked = {"_DCNUMD_COMPLETE": "bash_complete", "COMP_WORDS": "dcnumd ", "COMP_CWORD": "1"}
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env={**os.environ, **asked})
    assert ended.stdout.split() == [f"plain,{name}" for name in COMMANDS]
    assert ended.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("hi",), ["plain,history"]),
        (("--ver",), ["plain,--version"]),
        (("history", "--st"), ["plain,--state"]),
        (("history", "--state", ""), ["plain,done", "plain,failed", "plain,skipped"]),
        (("history", "--state", "f"), ["plain,failed"]),
        (("history", "--state", "done", "--light", "gr"), ["plain,green", "plain,grey"]),
        (("status", "--w"), ["plain,--watch"]),
        (("status", "-c", ""), ["file,"]),
        (("why", "M0"), ["file,M0"]),
        (("process", "a.rtdc", "M0"), ["file,M0"]),
        (("process", "-o", "res"), ["dir,res"]),
        (("completion", ""), ["plain,bash", "plain,zsh", "plain,fish"]),
    ],
)
def test_words_complete(completions, words, expected):
    """Commands, options and their values are named; for files and folders the shell is told so."""
    assert completions(*words) == expected


def test_zsh_and_fish_are_answered_in_their_way(completions):
    """They show what a command is for."""
    assert completions("hi", kind="zsh") == ["plain", "history", COMMANDS["history"][1]]
    assert completions("hi", kind="fish") == [f"plain,history\t{COMMANDS['history'][1]}"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_is_printed_with_its_installation_in_the_help(shell, capfd):
    """Each shell gets its own script, and --help says where to put it."""
    assert main(["completion", shell]) == 0
    script = capfd.readouterr().out
    assert f"_DCNUMD_COMPLETE={shell}_complete" in script
    if found := shutil.which(shell):
        subprocess.run([found, "-n"], input=script, text=True, timeout=60, check=True)
    assert main(["completion", "--help"]) == 0
    assert f"{shell}  " in capfd.readouterr().out
    assert main(["completion", "tcsh"]) == 2


@pytest.mark.slow
def test_bash_completes_a_line_that_is_typed(tmp_path, path):
    """A real bash with the script: Tab completes a command, an option, its value, and a file."""
    (tmp_path / "M001_data.rtdc").touch()
    with Terminal(
        ["bash", "--norc", "--noprofile", "-i"],
        columns=200,
        environment={"PATH": path, "PS1": "> ", "HOME": str(tmp_path), "INPUTRC": "/dev/null"},
    ) as bash:
        bash.press(f'cd {tmp_path}; eval "$(dcnumd completion bash)"; echo is "set"\n')
        bash.wait_for("is set")
        for typed, whole in (
            ("dcnumd hist\t--sta\tfail\t", "dcnumd history --state failed"),
            ("dcnumd why M0\t", "dcnumd why M001_data.rtdc"),
        ):
            # At the line's beginning: so that it is only shown. At its end: a sign that was not typed like that.
            bash.press(typed + "\x01echo \x05 'b''egun'\n")
            bash.wait_for("begun")
            assert f"{whole} begun" in bash.text
        bash.press("exit\n")
        assert bash.wait() == 0


def test_help_of_the_program_names_completion(capsys):
    """Who reads the overview finds it."""
    assert main(["--help"]) == 0
    assert "completion" in capsys.readouterr().out
