"""A real daemon as a process of its own, heard through its log; and small measurements for it."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import h5py
import numpy as np
import pytest

Event = dict[str, Any]

START_SECONDS = 120.0
"""The first child that is started compiles kernels, if their cache is empty."""


@dataclasses.dataclass
class Daemon:
    """A running ``dcnumd run`` and every event that it logged so far."""

    process: subprocess.Popen[str]
    events: list[Event] = dataclasses.field(default_factory=list)
    heard: threading.Condition = dataclasses.field(default_factory=threading.Condition)
    ended: bool = False

    def listen(self) -> None:
        """Collect the log until the process closes it."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                event = json.loads(line)
            except ValueError:
                event = {"event": "not json", "line": line}
            with self.heard:
                self.events.append(event)
                self.heard.notify_all()
        with self.heard:
            self.ended = True
            self.heard.notify_all()

    def matching(self, name: str, **fields: object) -> list[Event]:
        """Return the events of this name with these fields."""
        return [
            event
            for event in list(self.events)
            if event["event"] == name and all(event.get(key) == value for key, value in fields.items())
        ]

    def wait_for(self, name: str, *, count: int = 1, timeout: float = 60.0, **fields: object) -> Event:
        """Wait until an event was logged `count` times and return the last of them."""
        deadline = time.monotonic() + timeout
        with self.heard:
            while len(found := self.matching(name, **fields)) < count:
                left = deadline - time.monotonic()
                if self.ended or left <= 0:
                    log = "\n".join(json.dumps(event) for event in self.events)
                    pytest.fail(f"no {count} x {name} {fields} ({'ended' if self.ended else 'timeout'}):\n{log}")
                self.heard.wait(left)
        return found[-1]

    def stop(self, number: int = signal.SIGTERM, timeout: float = 10.0) -> int:
        """Send a signal and wait for the end; return the exit code."""
        self.process.send_signal(number)
        return self.wait(timeout)

    def wait(self, timeout: float = 60.0) -> int:
        """Wait for the end and return the exit code."""
        code = self.process.wait(timeout)
        with self.heard:
            self.heard.wait_for(lambda: self.ended, timeout)
        return code


@pytest.fixture
def state_folder(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "state"


@pytest.fixture
def watched_folder(tmp_path: pathlib.Path) -> pathlib.Path:
    folder = tmp_path / "acquisition"
    folder.mkdir()
    return folder


@pytest.fixture
def write_config(
    tmp_path: pathlib.Path, watched_folder: pathlib.Path, state_folder: pathlib.Path
) -> Callable[..., pathlib.Path]:
    """Return a function that writes a config for quick tests and returns its path."""

    def write(extra: str = "", *, settle: float = 0.3, rescan: float = 30.0) -> pathlib.Path:
        path = tmp_path / "config.toml"
        path.write_text(
            f"[watch]\nfolders = [{json.dumps(str(watched_folder))}]\n"
            f"settle_seconds = {settle}\nrescan_seconds = {rescan}\n"
            f"[state]\nfolder = {json.dumps(str(state_folder))}\n"
            "[resources]\nnum_workers = 1\nmin_free_gb = 0.01\n"
            "[retry]\nbackoff_seconds = 0.2\n" + extra
        )
        return path

    return write


@pytest.fixture
def start_daemon(write_config: Callable[..., pathlib.Path]) -> Iterator[Callable[..., Daemon]]:
    """Return a function that starts a daemon; what is still running at the end is killed."""
    running: list[tuple[Daemon, threading.Thread]] = []

    def start(*arguments: str, config: pathlib.Path | None = None, ready: bool = True) -> Daemon:
        command = [sys.executable, "-m", "dcnumd", "run", "-c", os.fspath(config or write_config()), *arguments]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        daemon = Daemon(process)
        listener = threading.Thread(target=daemon.listen)
        listener.start()
        running.append((daemon, listener))
        if ready:
            daemon.wait_for("daemon.ready", timeout=START_SECONDS)
        return daemon

    yield start
    for daemon, listener in running:
        if daemon.process.poll() is None:
            daemon.process.kill()
        daemon.process.wait()
        listener.join()
        assert daemon.process.stderr is not None
        daemon.process.stderr.close()


def draw_measurement(path: pathlib.Path, *, frames: int = 60, shape: tuple[int, int] = (48, 96), seed: int = 0) -> None:
    """Write a small measurement with dark discs on a noisy background; not square, reproducible."""
    rng = np.random.default_rng(seed)
    height, width = shape
    images = rng.normal(180, 1.5, (frames, height, width))
    rows, columns = np.mgrid[:height, :width]
    for image in images[::2]:
        row, column = rng.uniform(16, height - 16), rng.uniform(16, width - 16)
        distance = np.hypot(rows - row, columns - column)
        image[distance < 9] -= 40
    with h5py.File(path, "w") as h5:
        events = h5.create_group("events")
        events.create_dataset("image", data=images.astype(np.uint8), chunks=(min(frames, 32), height, width))
        events["frame"] = np.arange(1, frames + 1, dtype=float)
        events["time"] = np.arange(frames) / 2000.0
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


@pytest.fixture
def measurement() -> Callable[..., None]:
    """Return the function that writes a small measurement."""
    return draw_measurement
