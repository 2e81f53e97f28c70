"""Runs a command on a pseudoterminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from typing import Self

from tests.support.daemon import HANG_SECONDS

CONTROLS = re.compile(r"\x1b\][^\x1b\x07]*(?:\x1b\\|\x07)|\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]")
"""Control sequences, which a terminal executes instead of showing them."""


class Terminal:
    """Context manager for a running command whose input and output are a pseudoterminal.

    Parameters
    ----------
    command
        Program and arguments.
    columns, rows
        Size of the terminal.
    environment
        Environment variables to add to those of this process; None removes a variable.
    folder
        Current folder of the command; None for that of this process.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        columns: int = 80,
        rows: int = 24,
        environment: Mapping[str, str | None] | None = None,
        folder: pathlib.Path | None = None,
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        changes = {"TERM": "xterm-256color", "COLUMNS": None, "LINES": None, "NO_COLOR": None, **(environment or {})}
        wanted = {name: value for name, value in {**os.environ, **changes}.items() if value is not None}
        self.output = ""
        """The output, with control sequences."""
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=wanted,
            cwd=folder,
            start_new_session=True,
            preexec_fn=_control,  # noqa: PLW1509 -- it does one system call
        )
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._master)

    @property
    def text(self) -> str:
        """The output, without control sequences."""
        return CONTROLS.sub("", self.output).replace("\r\n", "\n")

    def press(self, keys: str) -> None:
        """Send keys to the command."""
        os.write(self._master, keys.encode())

    def wait_for(self, text: str, seconds: float = HANG_SECONDS) -> None:
        """Wait until the command prints a text; AssertionError if it does not."""
        begin = len(self.text)
        deadline = time.monotonic() + seconds
        while text not in self.text[max(begin - len(text), 0) :]:
            assert self._read(deadline), f"{text!r} is not in {self.text[begin:][-2000:]!r}"

    def wait(self, seconds: float = HANG_SECONDS) -> int:
        """Wait for the end of the command, and return its exit code."""
        deadline = time.monotonic() + seconds
        while self._read(deadline):
            pass
        return self.process.wait(max(deadline - time.monotonic(), 0.1))

    def _read(self, deadline: float) -> bool:
        """Wait for output, and append it; return False at the end of the command or after the deadline."""
        if not select.select([self._master], [], [], max(deadline - time.monotonic(), 0.0))[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:
            # Reading fails after the last process on the terminal has ended.
            return False
        self.output += data.decode("utf-8", "replace")
        return bool(data)


def _control() -> None:
    """Make the terminal on stdin the controlling terminal, from which Ctrl-C is received."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
