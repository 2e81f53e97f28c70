"""Runs a real daemon as a process, follows its log, and writes small measurements for it."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

import h5py
import numpy as np
import pytest

from tests.support.events import fault_of

Event = dict[str, Any]

HANG_SECONDS = 240.0
"""Time after which something that a test waits for counts as hanging, even on a busy computer [s]."""
START_SECONDS = HANG_SECONDS
STOP_SECONDS = 60.0
WORDS_SECONDS = 10.0
DISTINCT_FRAMES = 400
heard_of: list[Daemon] = []
"""All daemons of the current test, whose logs are shown if it fails."""


@dataclasses.dataclass
class Daemon:
    """A running ``dcnumd run``, and all events that it has logged."""

    process: subprocess.Popen[str]
    events: list[Event] = dataclasses.field(default_factory=list)
    heard: threading.Condition = dataclasses.field(default_factory=threading.Condition)
    ended: bool = False
    faults: list[str] = dataclasses.field(default_factory=list)
    """Log lines that violate the schema of the events, each with the reason."""
    _named: dict[str, list[Event]] = dataclasses.field(default_factory=dict)
    _listener: threading.Thread | None = None

    def __post_init__(self) -> None:
        heard_of.append(self)

    @classmethod
    def start(
        cls,
        config: pathlib.Path,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        enter: Sequence[str] = (),
    ) -> Self:
        """Start a daemon and follow its log; see `follow`."""
        return cls.follow("run", "-c", os.fspath(config), *arguments, environment=environment, enter=enter)

    @classmethod
    def follow(cls, *arguments: str, environment: Mapping[str, str] | None = None, enter: Sequence[str] = ()) -> Self:
        """Start a command that logs as a daemon does, and follow its log.

        Parameters
        ----------
        *arguments
            Arguments of ``dcnumd``.
        environment
            Variables that are added to the environment of this process.
        enter
            Beginning of a command that is executed on another host.
        """
        command = [*enter, sys.executable, "-m", "dcnumd", *arguments]
        # With the fault handler, SIGABRT makes a hanging daemon print where it hangs.
        variables = {**os.environ, "PYTHONFAULTHANDLER": "1", **(environment or {})}
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace", env=variables)
        daemon = cls(process)
        daemon._listener = threading.Thread(target=daemon.listen, name="daemon log")
        daemon._listener.start()
        return daemon

    def listen(self) -> None:
        """Read the log until the process closes it."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            fault = None
            try:
                event = json.loads(line)
            except ValueError:
                # Output of Python when a process ends, or half a line of a killed process.
                event = {"event": "not json", "line": line}
            else:
                fault = fault_of(event)
            with self.heard:
                self.faults += [f"{fault}, in the line {line}"] if fault else []
                self.events.append(event)
                self._named.setdefault(event["event"], []).append(event)
                self.heard.notify_all()
        with self.heard:
            self.ended = True
            self.heard.notify_all()

    def matching(self, name: str, **fields: object) -> list[Event]:
        """Return the events with this name and these fields."""
        named = list(self._named.get(name, ()))
        return [event for event in named if all(event.get(key) == value for key, value in fields.items())]

    def wait_for(self, name: str, *, count: int = 1, timeout: float = HANG_SECONDS, **fields: object) -> Event:
        """Wait until an event was logged `count` times, and return the last one."""
        deadline = time.monotonic() + timeout
        with self.heard:
            while len(found := self.matching(name, **fields)) < count:
                self.check_events()
                left = deadline - time.monotonic()
                if self.ended or left <= 0:
                    how = "ended" if self.ended else "timeout"
                    raise AssertionError(f"no {count} x {name} {fields} ({how}):\n{self.log()}")
                self.heard.wait(left)
        return found[-1]

    def check_events(self) -> None:
        """Fail if a line of the log violates the schema of the events."""
        assert not self.faults, "\n".join(self.faults)

    def log(self, lines: int = 400) -> str:
        """Return the last lines of the log, and the number of events of each name."""
        counts = collections.Counter(event["event"] for event in self.events)
        return "\n".join([*(json.dumps(event) for event in self.events[-lines:]), str(dict(counts))])

    def stop(self, number: int = signal.SIGTERM, timeout: float = STOP_SECONDS) -> int:
        """Send a signal, wait for the end of the daemon, and return its exit code."""
        self.process.send_signal(number)
        return self.wait(timeout)

    def wait(self, timeout: float = HANG_SECONDS) -> int:
        """Wait for the end of the daemon, and return its exit code."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still there after {timeout} s:\n{self.last_words()}")
        with self.heard:
            self.heard.wait_for(lambda: self.ended, timeout)
        self.check_events()
        return code

    def last_words(self) -> str:
        """Kill a hanging daemon, and return its log, which ends with the traceback of where it hung."""
        waiting = pathlib.Path(f"/proc/{self.process.pid}/wchan").read_text()
        self.process.send_signal(signal.SIGABRT)
        with self.heard:
            self.heard.wait_for(lambda: self.ended, WORDS_SECONDS)
        return f"{self.log()}\nIt waited in the kernel for {waiting}."

    def close(self) -> None:
        """Kill the daemon if it still runs, read the rest of its log, and check all events."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        assert self._listener is not None
        assert self.process.stderr is not None
        self._listener.join()
        self.process.stderr.close()
        self.check_events()


def forget_ended() -> None:
    """Remove ended daemons, which are those of earlier tests, from `heard_of`."""
    heard_of[:] = [daemon for daemon in heard_of if not daemon.ended]


def draw_measurement(
    path: pathlib.Path, *, frames: int = 60, shape: tuple[int, int] = (48, 96), seed: int = 0, growable: bool = False
) -> None:
    """Write a small, reproducible measurement with dark discs on a noisy background.

    Measurements with more than `DISTINCT_FRAMES` frames repeat these, because drawing frames takes longer than
    processing them.
    """
    rng = np.random.default_rng(seed)
    height, width = shape
    images = rng.normal(180, 1.5, (min(frames, DISTINCT_FRAMES), height, width))
    rows, columns = np.mgrid[:height, :width]
    for image in images[::2]:
        row, column = rng.uniform(16, height - 16), rng.uniform(16, width - 16)
        distance = np.hypot(rows - row, columns - column)
        image[distance < 9] -= 40
    with h5py.File(path, "w") as h5:
        events = h5.create_group("events")
        limit = None if growable else frames
        chunks = min(frames, 32)
        stack = np.resize(images.astype(np.uint8), (frames, height, width))
        events.create_dataset("image", data=stack, chunks=(chunks, height, width), maxshape=(limit, height, width))
        for name, values in (("frame", np.arange(1.0, frames + 1)), ("time", np.arange(frames) / 2000.0)):
            events.create_dataset(name, data=values, chunks=(chunks,), maxshape=(limit,))
        h5.attrs.update(
            {
                "experiment:date": "2026-01-02",
                "experiment:time": "03:04:05",
                "experiment:event count": frames,
                "experiment:run index": 1,
                "experiment:sample": f"discs {seed}",
                "imaging:frame rate": 2000.0,
                "imaging:pixel size": 0.34,
                "imaging:roi size x": width,
                "imaging:roi size y": height,
                "setup:identifier": f"ZMD-TEST-{seed}",
                "setup:channel width": 20.0,
                "setup:chip region": "channel",
                "setup:flow rate": 0.04,
                "setup:medium": "CellCarrierB",
            }
        )
