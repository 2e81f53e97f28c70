"""The process that workers are forked from, and whom it belongs to."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

SCRIPT = """
    import os, sys
    from dcnumd.processes.fork_server import context, start_fork_server
    from dcnumd.shared_memory.block import SharedBlock

    class Gate:
        # who takes it out of its pickle waits until somebody opens the other end
        def __reduce__(self):
            return os.open, (sys.argv[1], os.O_RDONLY)

    class Fault:
        def __reduce__(self):
            return os.open, (sys.argv[1] + " is missing", os.O_RDONLY)

    if __name__ == "__main__":
        start_fork_server()
        process = context.Process(target=print, args=(Gate(), {argument}))
        process.start()
        print(process.pid, flush=True)
        process.join()
"""

INTERRUPTED = """
    import os, signal
    from dcnumd.processes.fork_server import context, start_fork_server

    if __name__ == "__main__":
        signal.signal(signal.SIGINT, lambda *_: print("interrupted", flush=True))
        start_fork_server()
        os.killpg(0, signal.SIGINT)
        process = context.Process(target=print, args=("worker",))
        process.start()
        process.join()
"""


@pytest.fixture
def start(tmp_path):
    """Return a function that has a worker start with an argument, at which it stops before it takes it."""
    os.mkfifo(tmp_path / "gate")
    script = tmp_path / "starter.py"

    def start(argument):
        script.write_text(textwrap.dedent(SCRIPT).replace("{argument}", argument))
        process = subprocess.Popen(
            [sys.executable, script, tmp_path / "gate"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.fspath(pathlib.Path(__file__).parents[1])},
        )
        assert process.stdout is not None
        assert int(process.stdout.readline())
        return process

    return start


def open_gate(tmp_path):
    with (tmp_path / "gate").open("w"):
        pass


@pytest.mark.slow
def test_worker_whose_owner_was_killed_says_nothing(start, tmp_path):
    """SIGKILL to the owner while a worker begins: what is missing then is nobody's fault, and no traceback is shown."""
    with start("SharedBlock(4096)") as owner:
        owner.kill()
        owner.wait()
        open_gate(tmp_path)
        # the last one to close it is the worker
        assert owner.stderr.read() == ""


@pytest.mark.slow
def test_worker_that_cannot_begin_says_why(start, tmp_path):
    """While its owner is there, a fault is a fault."""
    with start("Fault()") as owner:
        open_gate(tmp_path)
        assert "FileNotFoundError" in owner.stderr.read()
        assert owner.wait() == 0


def test_interrupt_from_the_terminal_does_not_end_a_server_that_is_starting(tmp_path):
    """Ctrl-C reaches all processes of the terminal; only the owner of the server reacts to it."""
    script = tmp_path / "starter.py"
    script.write_text(textwrap.dedent(INTERRUPTED))
    found = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.fspath(pathlib.Path(__file__).parents[1])},
        start_new_session=True,
        check=False,
    )
    assert (found.stdout.split(), found.stderr, found.returncode) == (["interrupted", "worker"], "", 0)
