"""Measurements grow at any moment of their way, and each must end with the result of all its frames.

Example: ``python -m tests.soak.growth --files 300 --seed 1``
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import json
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

import h5py
import hdf5plugin  # noqa: F401 -- registers Zstandard
import numpy as np

from tests.soak.processes import Family
from tests.soak.results import differences, faults_of, temporary_files
from tests.support.daemon import Daemon, draw_measurement
from tests.support.faults import result_of

FRAMES = (16, 64)
"""Least and greatest number of frames of a measurement when it appears."""
GROWTH = (1, 40)
"""Least and greatest number of frames that are appended."""
MOMENT_SECONDS = 20.0
"""A moment that does not come is not waited for any longer [s]: an earlier one may have led elsewhere."""
START_SECONDS = 120.0
DONE_SECONDS = 180.0
CONFIG = """
[watch]
folders = [{watched}]
settle_seconds = 0.2
rescan_seconds = 1.0
[output]
basin_strategy = "drain"
[state]
folder = {state}
[resources]
num_workers = 1
min_free_gb = 0.01
nice = 0
[retry]
attempts = 1000
backoff_seconds = 0.01
[report]
enabled = false
"""


@dataclasses.dataclass
class Soak:
    """One run: the folder, the daemon, and what was seen of it."""

    folder: pathlib.Path
    rng: random.Random
    family: Family
    daemon: Daemon | None = None
    faults: list[str] = dataclasses.field(default_factory=list)
    moments: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    @property
    def watched(self) -> pathlib.Path:
        """The folder in which measurements appear."""
        return self.folder / "acquisition"

    def start(self) -> Daemon:
        """Start the daemon, which finds what the one before has left."""
        self.daemon = Daemon.start(self.folder / "config.toml", environment=self.family.environment)
        return self.daemon

    def end(self, number: int) -> None:
        """Stop the daemon by a signal; SIGKILL hits all processes."""
        assert self.daemon is not None
        if number == signal.SIGKILL:
            self.family.kill_all()
        else:
            self.daemon.process.send_signal(number)
            if (code := self.daemon.wait(START_SECONDS)) != 0:
                self.faults.append(f"exit code {code} after signal {number}")
        self.daemon.close()
        self.daemon = None


def append(path: pathlib.Path, frames: int) -> None:
    """Append frames, copies of earlier ones, as an instrument does."""
    with h5py.File(path, "a") as h5:
        count = int(h5.attrs["experiment:event count"])
        for name in ("image", "frame", "time"):
            dataset = h5["events"][name]
            dataset.resize(count + frames, axis=0)
            # of a pattern that differs from that of the frames before
            dataset[count:] = dataset[:][np.arange(frames) * 7 % count]
        h5["events/frame"][:] = np.arange(1, count + frames + 1)
        h5["events/time"][:] = np.arange(count + frames) / 2000.0
        h5.attrs["experiment:event count"] = count + frames


def frames_of(path: pathlib.Path) -> int:
    """Return the number of frames of a measurement."""
    with h5py.File(path, "r", locking=False) as h5:
        return int(h5.attrs["experiment:event count"])


def frames_made_of(path: pathlib.Path) -> int:
    """Return of how many frames a result is made; 0 while there is none."""
    try:
        with h5py.File(path, "r", locking=False) as h5:
            return int(h5["events"].attrs["dcnumd input frames"])
    except OSError:
        return 0


def wait_until(happened: Callable[[], object], seconds: float) -> bool:
    """Look often, as something outside of the daemon has to; return whether it happened."""
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


# Each moment waits for itself, has the measurement grow, and leaves a daemon that runs.


def while_settling(soak: Soak, path: pathlib.Path, grow: Callable[[], None]) -> None:
    """Before anybody looks into the file."""
    time.sleep(soak.rng.uniform(0.0, 0.3))
    grow()


def when_started(soak: Soak, path: pathlib.Path, grow: Callable[[], None]) -> None:
    """At any time of the job."""
    daemon = soak.daemon
    assert daemon is not None
    wait_until(lambda: daemon.matching("job.started", path=str(path)), MOMENT_SECONDS)
    time.sleep(soak.rng.uniform(0.0, 0.4))
    grow()


def when_published(soak: Soak, path: pathlib.Path, grow: Callable[[], None]) -> None:
    """As soon as the result has its name, before the daemon has heard of it."""
    wait_until(result_of(path).exists, MOMENT_SECONDS)
    grow()


def when_finished(soak: Soak, path: pathlib.Path, grow: Callable[[], None]) -> None:
    """When everything seems to be over."""
    daemon = soak.daemon
    assert daemon is not None
    wait_until(lambda: daemon.matching("job.finished", path=str(path)), MOMENT_SECONDS)
    grow()


def over_kill(soak: Soak, path: pathlib.Path, grow: Callable[[], None]) -> None:
    """While nothing runs, after everything was killed at publication."""
    _over_end(soak, path, grow, signal.SIGKILL)


def over_stop(soak: Soak, path: pathlib.Path, grow: Callable[[], None]) -> None:
    """While nothing runs, after an orderly end at publication."""
    _over_end(soak, path, grow, signal.SIGTERM)


def _over_end(soak: Soak, path: pathlib.Path, grow: Callable[[], None], number: int) -> None:
    wait_until(result_of(path).exists, MOMENT_SECONDS)
    time.sleep(soak.rng.choice((0.0, 0.0, soak.rng.uniform(0.0, 0.2))))
    soak.end(number)
    grow()
    soak.start().wait_for("daemon.ready", timeout=START_SECONDS)


def over_pause(soak: Soak, path: pathlib.Path, grow: Callable[[], None]) -> None:
    """While the daemon is stopped by a signal at publication, as a computer that sleeps."""
    daemon = soak.daemon
    assert daemon is not None
    wait_until(result_of(path).exists, MOMENT_SECONDS)
    daemon.process.send_signal(signal.SIGSTOP)
    grow()
    daemon.process.send_signal(signal.SIGCONT)


MOMENTS = (while_settling, when_started, when_published, when_finished, over_pause, over_kill, over_stop)
WEIGHTS = (3, 3, 3, 3, 2, 1, 1)


def run(folder: pathlib.Path, *, files: int, seed: int) -> list[str]:
    """Have `files` measurements grow, each at some moments of its way; return what went wrong."""
    soak = Soak(folder, random.Random(seed), Family())
    soak.watched.mkdir(parents=True)
    text = CONFIG.format(watched=json.dumps(str(soak.watched)), state=json.dumps(str(folder / "state")))
    (folder / "config.toml").write_text(text)
    paths = [soak.watched / f"M{number:03d}.rtdc" for number in range(files)]
    try:
        soak.start().wait_for("daemon.ready", timeout=START_SECONDS)
        for number, path in enumerate(paths):
            send_through(soak, path, number)
        soak.faults += finish(soak, paths)
        soak.end(signal.SIGTERM)
    finally:
        soak.family.kill_all()
        if soak.daemon is not None:
            soak.daemon.close()
    left = [f"left over: {path}" for path in temporary_files([soak.watched])]
    return [*soak.faults, *left, *compare(folder, paths)]


def send_through(soak: Soak, path: pathlib.Path, number: int) -> None:
    """Have a measurement appear, and grow at one or two moments."""
    hidden = path.with_name(f".{path.name}")
    draw_measurement(hidden, frames=soak.rng.randint(*FRAMES), seed=number, growable=True)
    hidden.rename(path)
    for moment in soak.rng.choices(MOMENTS, WEIGHTS, k=soak.rng.choice((1, 1, 2))):
        soak.moments[moment.__name__] += 1
        moment(soak, path, lambda: append(path, soak.rng.randint(*GROWTH)))
        assert soak.daemon is not None
        if soak.daemon.process.poll() is not None:
            soak.faults.append(f"the daemon has ended:\n{soak.daemon.log()}")
            soak.start().wait_for("daemon.ready", timeout=START_SECONDS)


def finish(soak: Soak, paths: Sequence[pathlib.Path]) -> list[str]:
    """Wait until each result is made of all frames; return which are not."""
    expected = {path: frames_of(path) for path in paths}

    def missing() -> list[str]:
        found = {path: frames_made_of(result_of(path)) for path in paths}
        return [
            f"{path.name} has {expected[path]} frames, its result is made of {found[path]}"
            for path in paths
            if found[path] != expected[path]
        ]

    wait_until(lambda: not missing(), DONE_SECONDS)
    faults = missing()
    assert soak.daemon is not None
    return [*faults, soak.daemon.log()] if faults else []


def compare(folder: pathlib.Path, paths: Sequence[pathlib.Path]) -> list[str]:
    """Hold all results against those that `dcnumd process` makes of the files as they are in the end."""
    again = folder / "again"
    command = [sys.executable, "-m", "dcnumd", "process", *map(str, paths), "-o", str(again)]
    options = ["--set", "output.basin_strategy=drain", "--set", "resources.num_workers=1"]
    made = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    if made.returncode:
        return [f"the measurements cannot be processed again: {made.stderr}"]
    faults = []
    for path in paths:
        result = result_of(path)
        wrong = faults_of(result) or differences(result, again / result.name)
        faults += [f"{result.name}: {fault}" for fault in wrong]
    return faults


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="keep the folder for a look at it")
    options = parser.parse_args(arguments)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="growth-"))
    begin = time.monotonic()
    faults = run(folder, files=options.files, seed=options.seed)
    sys.stdout.write(f"{options.files} files, seed {options.seed}: {time.monotonic() - begin:.0f} s\n")
    sys.stdout.write("\n".join(faults or ["all results are right"]) + "\n")
    if options.keep:
        sys.stdout.write(f"{folder}\n")
    else:
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
