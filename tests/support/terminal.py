"""A command on a terminal of its own, as a person has it before them."""

from __future__ import annotations

import contextlib
import fcntl
import os
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
"""What a terminal carries out instead of showing it."""


class Terminal:
    """A running command whose input and output are a terminal; a context manager.

    Parameters
    ----------
    command
        Program and arguments.
    columns, rows
        Size of the terminal.
    environment
        Comes on top of this process's own; what is None is taken out of it.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        columns: int = 80,
        rows: int = 24,
        environment: Mapping[str, str | None] | None = None,
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        changes = {"TERM": "xterm-256color", "COLUMNS": None, "LINES": None, "NO_COLOR": None, **(environment or {})}
        wanted = {name: value for name, value in {**os.environ, **changes}.items() if value is not None}
        self.output = ""
        """Everything that was printed, with the terminal's commands."""
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=wanted,
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
        """What was printed, without the terminal's commands."""
        return CONTROLS.sub("", self.output).replace("\r\n", "\n")

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._master, keys.encode())

    def wait_for(self, text: str, seconds: float = HANG_SECONDS) -> None:
        """Wait until something is printed that was not there before; AssertionError if it does not come."""
        begin = len(self.text)
        deadline = time.monotonic() + seconds
        while text not in self.text[max(begin - len(text), 0) :]:
            assert self._read(deadline), f"{text!r} is not in {self.text[begin:][-2000:]!r}"

    def wait(self, seconds: float = HANG_SECONDS) -> int:
        """Wait until the command has ended; return its exit code."""
        deadline = time.monotonic() + seconds
        while self._read(deadline):
            pass
        return self.process.wait(max(deadline - time.monotonic(), 0.1))

    def _read(self, deadline: float) -> bool:
        """Wait for output; return False at the end of the command or of the time."""
        if not select.select([self._master], [], [], max(deadline - time.monotonic(), 0.0))[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:
            # That is how the end of the last process on a terminal looks.
            return False
        self.output += data.decode("utf-8", "replace")
        return bool(data)


def _control() -> None:
    """Make the terminal on stdin the one that Ctrl-C comes from."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
