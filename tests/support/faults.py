"""Helpers of the tests of faults: long measurements, programs that write, and queries about a daemon's work."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import h5py
import hdf5plugin
import numpy as np
import psutil

from tests.soak.processes import cpu_seconds
from tests.support.daemon import HANG_SECONDS, Daemon, draw_measurement

JOB_SECONDS = HANG_SECONDS
LONG_FRAMES = 3000
"""Number of frames of a measurement whose processing takes some seconds."""


def result_of(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f"{path.stem}_dcn.rtdc")


def published(folder: pathlib.Path, name: str, **keywords) -> pathlib.Path:
    """Write a measurement under a hidden name and rename it, as a careful instrument does; return its path."""
    hidden = folder / ".writing"
    draw_measurement(hidden, **keywords)
    return hidden.rename(folder / name)


def draw_long(path: pathlib.Path, *, frames: int = LONG_FRAMES, cells: int = 6, seed: int = 0) -> None:
    """Write a small measurement whose processing takes some seconds: many cells on a uniform background."""
    rng = np.random.default_rng(seed)
    height, width = 80, 1000
    rows, columns = np.mgrid[:24, :24] - 12
    disc = np.where(np.hypot(rows, columns) < 9, 40 + rows + columns, 0).astype(np.uint8)
    # Longer measurements repeat these frames.
    images = np.full((min(frames, 1200), height, width), 180, np.uint8)
    for image in images:
        for left in rng.permutation(width // 30)[:cells] * 30:
            top = rng.integers(2, height - 26)
            image[top : top + 24, left : left + 24] -= disc
    with h5py.File(path, "w") as h5:
        keywords = {"chunks": (50, height, width), "maxshape": (None, height, width), **hdf5plugin.Zstd(clevel=1)}
        stack = h5.create_dataset("events/image", (frames, height, width), np.uint8, **keywords)
        for start in range(0, frames, len(images)):
            stack[start : start + len(images)] = images[: frames - start]
        h5.create_dataset("events/frame", data=np.arange(1, frames + 1, dtype=float), maxshape=(None,))
        h5.create_dataset("events/time", data=np.arange(frames) / 2000.0, maxshape=(None,))
        h5.attrs.update(
            {
                "experiment:date": "2026-01-02",
                "experiment:time": "03:04:05",
                "experiment:event count": frames,
                "experiment:run index": 1,
                "experiment:sample": f"many discs {seed}",
                "imaging:frame rate": 2000.0,
                "imaging:pixel size": 0.34,
                "imaging:roi size x": width,
                "imaging:roi size y": height,
                "setup:identifier": f"ZMD-LONG-{seed}",
                "setup:channel width": 20.0,
                "setup:chip region": "channel",
            }
        )


def shorten(path: pathlib.Path, frames: int) -> None:
    """Leave only the first frames of a measurement that `draw_long` has written."""
    with h5py.File(path, "a") as h5:
        for dataset in h5["events"].values():
            dataset.resize(frames, axis=0)
        h5.attrs["experiment:event count"] = frames


def workers_of(daemon: Daemon) -> list[psutil.Process]:
    """Return the workers of a daemon, which the fork server has forked."""
    family = psutil.Process(daemon.process.pid).children(recursive=True)
    servers = [process for process in family if "multiprocessing.forkserver" in " ".join(process.cmdline())]
    return [process for process in servers if process.parent() in servers]


def wait_until(condition: Callable[[], object], seconds: float = HANG_SECONDS, daemon: Daemon | None = None) -> None:
    """Poll until a condition holds; on timeout, fail with the log of the daemon."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain\n{daemon.log() if daemon else ''}"
        time.sleep(0.01)


def working(daemon: Daemon, path: pathlib.Path) -> None:
    """Wait until the workers of a job use the processor, or until it is over."""
    daemon.wait_for("job.started", path=str(path), timeout=JOB_SECONDS)
    wait_until(lambda: workers_of(daemon))
    before = {process.pid: cpu_seconds([process.pid]) for process in workers_of(daemon)}

    def busy() -> bool:
        return any(cpu_seconds([pid]) > used + 0.1 for pid, used in before.items())

    wait_until(lambda: busy() or daemon.matching("job.finished", path=str(path)))


def assert_done_once(daemon: Daemon, *paths: pathlib.Path) -> None:
    """Check that each measurement was finished once, at its first attempt."""
    for path in paths:
        assert len(daemon.matching("job.finished", path=str(path))) == 1
        assert not daemon.matching("job.failed", path=str(path))
        assert {event["attempt"] for event in daemon.matching("job.started", path=str(path))} == {1}


def frames_processed(daemon: Daemon, path: pathlib.Path) -> int:
    """Return the number of frames of the last result; 0 without a result."""
    finished = daemon.matching("job.finished", path=str(path))
    return finished[-1]["frames"] if finished else 0


def workers_busy(daemon: Daemon) -> bool:
    """Return whether the workers use the processor."""
    pids = [process.pid for process in workers_of(daemon)]
    before = cpu_seconds(pids)
    time.sleep(0.2)
    return cpu_seconds(pids) > before + 0.02


WRITER = """
import sys, h5py, numpy as np
print("ready", flush=True)
path = sys.argv[1]
rng = np.random.default_rng(3)
for line in sys.stdin:
    frames = rng.normal(180, 1.5, (16, *map(int, sys.argv[2:4])))
    frames[::2, 15:32, 30:47] -= 40
    try:
        # HDF5 locks the file by default; a reader's lock would make this fail
        with h5py.File(path, "a") as h5:
            image = h5["events/image"]
            count = len(image) + 16
            frame = np.arange(count - 16, count) + 1.0
            for name, values in (("image", frames.astype("u1")), ("frame", frame), ("time", frame / 2000)):
                h5["events"][name].resize(count, axis=0)
                h5["events"][name][-16:] = values
            h5.attrs["experiment:event count"] = count
        print(count, flush=True)
    except Exception as error:
        print(repr(error), flush=True)
"""


class Writer:
    """Another process that appends to a measurement, with the locks that HDF5 takes by default."""

    def __init__(self, path: pathlib.Path) -> None:
        with h5py.File(path, "r", locking=False) as h5:
            self.frames, *shape = h5["events/image"].shape
        command = [sys.executable, "-c", WRITER, str(path), *map(str, shape)]
        environment = {name: value for name, value in os.environ.items() if name != "HDF5_USE_FILE_LOCKING"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def append(self) -> None:
        """Append 16 frames, and fail if that does not succeed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline().strip()
        self.frames += 16
        assert answer == str(self.frames)

    def close(self) -> None:
        self._process.communicate(timeout=30)


def growing(path: pathlib.Path, frames: int = 64) -> Writer:
    """Write a measurement that can grow, and start its writer."""
    draw_measurement(path.with_name(".writing"), frames=frames)
    with h5py.File(path.with_name(".writing"), "a") as h5:
        for name, dataset in list(h5["events"].items()):
            values = dataset[:]
            del h5["events"][name]
            h5["events"].create_dataset(name, data=values, maxshape=(None, *values.shape[1:]))
    path.with_name(".writing").rename(path)
    return Writer(path)


class recording:  # noqa: N801 -- reads as a phrase
    """Context manager with a file that grows by 6 MB each second, in 100 steps, and is removed at the end."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._record, name="camera")
        self.began = threading.Event()

    def _record(self) -> None:
        with self._path.open("wb", buffering=0) as file:
            while not self._stop.wait(0.01):
                file.write(bytes(60_000))
                self.began.set()
        self._path.unlink()

    def __enter__(self) -> recording:
        self._thread.start()
        self.began.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
