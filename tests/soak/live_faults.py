"""Disturbs recordings that are processed while they grow, one fault for each; all must end as they would otherwise.

Example: ``python -m tests.soak.live_faults --faults 100 --seed 1``
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

import h5py
import psutil

from dcnumd.errors import DcnumdError
from dcnumd.logic.job import Job, PipelineSettings
from dcnumd.logic.process import process_measurement
from dcnumd.simulate.measurement import write_measurement
from dcnumd.simulate.spec import MeasurementSpec
from tests.soak.results import differences, temporary_files
from tests.support.daemon import Daemon
from tests.support.recorder import RecorderProcess

END_SECONDS = 180.0
"""Time within which a recording must have ended, one way or another [s]."""
STEP_SECONDS = 0.15
"""Time between two flushes [s]."""
BACKGROUND = {"kernel_size": 50, "split_time": 0.2}


@dataclasses.dataclass
class Site:
    """A daemon, its folder, and what went wrong so far.

    Parameters
    ----------
    folder
        An empty folder for everything.
    seed
        Decides which faults happen when.
    """

    folder: pathlib.Path
    seed: int
    daemon: Daemon | None = None
    wrong: list[str] = dataclasses.field(default_factory=list)
    events: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    number: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.watched = self.folder / "acquisition"
        self.watched.mkdir()
        self.config = self.folder / "config.toml"

    def configure(self, spool_mb: int) -> None:
        """Write the config."""
        self.config.write_text(
            f"[watch]\nfolders = [{json.dumps(str(self.watched))}]\nsettle_seconds = 0.5\nrescan_seconds = 1.0\n"
            'interrupted = "process"\n'
            f"[state]\nfolder = {json.dumps(str(self.folder / 'state'))}\n"
            "[resources]\nnum_workers = 2\nmin_free_gb = 0.01\nnice = 0\n[report]\nenabled = false\n"
            f"[live]\nenabled = true\nspool_mb = {spool_mb}\n"
            "[pipeline.background]\nkernel_size = 50\nsplit_time = 0.2\n"
            "[retry]\nattempts = 20\nbackoff_seconds = 0.1\n"
        )

    def start(self) -> None:
        """Start the daemon, in place of one that was killed."""
        self.collect()
        self.daemon = Daemon.start(self.config)
        self.daemon.wait_for("daemon.ready")

    def collect(self) -> None:
        """Count what the daemon has logged, and end it if it still runs."""
        if self.daemon is not None:
            self.daemon.close()
            self.wrong += self.daemon.faults
            self.events.update(event["event"] for event in self.daemon.events)
            self.wrong += [json.dumps(event) for event in self.daemon.events if event.get("reason") == "internal"]
            self.daemon = None

    def process(self, role: str) -> psutil.Process | None:
        """Return a process of the daemon by its role; None if it is not running."""
        assert self.daemon is not None
        pids = [event["pid"] for event in self.daemon.matching("worker.started", role=role)]
        with contextlib.suppress(psutil.NoSuchProcess, IndexError):
            return psutil.Process(pids[-1])
        return None

    def rows(self) -> dict[str, tuple[str, str]]:
        """Return state and reason of each measurement in the ledger, by its path."""
        uri = f"{(self.folder / 'state' / 'ledger.sqlite').as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as ledger:
            found = ledger.execute("SELECT path, state, reason FROM measurements ORDER BY id")
            return {path: (state, reason) for path, state, reason in found}


@dataclasses.dataclass
class Disturbed:
    """One recording and what becomes of it."""

    site: Site
    path: pathlib.Path
    spec: MeasurementSpec
    recorder: RecorderProcess

    def kill_recorder(self) -> None:
        """Kill the recorder."""
        self.recorder.crash()

    def replace_file(self) -> None:
        """Put another, complete measurement in its place."""
        other = self.site.folder / "other.rtdc"
        write_measurement(other, dataclasses.replace(self.spec, seed=self.spec.seed + 1000, frames=1500))
        other.replace(self.path)

    def move_file(self) -> None:
        """Give it another name while it grows."""
        moved = self.path.with_name(f"moved_{self.path.name}")
        self.path.rename(moved)
        self.path = moved

    def truncate_file(self) -> None:
        """Cut it after its recorder was killed."""
        self.recorder.crash()
        os.truncate(self.path, self.path.stat().st_size * 2 // 3)

    def remove_file(self) -> None:
        """Remove it while it grows."""
        self.path.unlink()

    def kill_daemon(self) -> None:
        """Kill the daemon with all its processes, and start it again."""
        assert self.site.daemon is not None
        self.site.daemon.process.kill()
        self.site.daemon.wait()
        self.site.start()

    def kill_live_process(self) -> None:
        """Kill the process that reads recordings."""
        if (process := self.site.process("live")) is not None:
            process.kill()

    def kill_worker(self) -> None:
        """Kill one of its workers."""
        if (process := self.site.process("live")) is None:
            return
        with contextlib.suppress(psutil.Error):
            below = [child for child in process.children(recursive=True) if not child.children()]
            if below:
                self.site.rng.choice(below).kill()

    def suspend_live_process(self) -> None:
        """Suspend the process that reads recordings for a second."""
        if (process := self.site.process("live")) is not None:
            process.suspend()
            time.sleep(1.0)
            with contextlib.suppress(psutil.Error):
                process.resume()

    def read_config_again(self) -> None:
        """Have the daemon read its config again."""
        assert self.site.daemon is not None
        self.site.daemon.process.send_signal(signal.SIGHUP)

    def fill_spool(self) -> None:
        """Allow the spool hardly any room, which a new daemon learns."""
        self.site.configure(spool_mb=1)
        self.kill_daemon()

    def append_later(self) -> None:
        """Append frames to the file after its end, see `main`."""


FAULTS: dict[str, Callable[[Disturbed], None]] = {
    "nothing": lambda _: None,
    "recorder killed": Disturbed.kill_recorder,
    "file replaced": Disturbed.replace_file,
    "file moved": Disturbed.move_file,
    "file truncated": Disturbed.truncate_file,
    "file removed": Disturbed.remove_file,
    "daemon killed": Disturbed.kill_daemon,
    "live process killed": Disturbed.kill_live_process,
    "worker killed": Disturbed.kill_worker,
    "live process suspended": Disturbed.suspend_live_process,
    "config read again": Disturbed.read_config_again,
    "spool full": Disturbed.fill_spool,
    "appended after the end": Disturbed.append_later,
}


def disturb(site: Site, fault: str) -> None:
    """Record a measurement with one fault at a random moment, and check what becomes of it."""
    site.number += 1
    frames = site.rng.randint(1500, 6000)
    spec = MeasurementSpec(size=(48, 100), frames=frames, rate=1000, seed=site.number, density=0.8, chunk=20)
    path = site.watched / f"M{site.number:03d}_data.rtdc"
    steps = [*range(400, frames, 400), frames]
    moment = site.rng.randrange(len(steps))
    with RecorderProcess(path, spec) as recorder:
        disturbed = Disturbed(site, path, spec, recorder)
        for number, stop in enumerate(steps):
            recorder.record(stop)
            time.sleep(STEP_SECONDS * site.rng.random() * 2)
            if number == moment:
                FAULTS[fault](disturbed)
                if not recorder.alive:
                    break
        if recorder.alive:
            recorder.finish()
    if fault == "appended after the end":
        time.sleep(site.rng.random())
        append_frames(path)
    site.wrong += [f"{fault}, {path.name}: {problem}" for problem in check(site, disturbed.path)]
    site.configure(spool_mb=100)
    if fault == "spool full":
        assert site.daemon is not None
        site.daemon.process.send_signal(signal.SIGHUP)
    for file in site.watched.iterdir():
        file.unlink()


def append_frames(path: pathlib.Path) -> None:
    """Append frames to a finished recording."""
    with h5py.File(path, "r+", libver=("v110", "v110")) as h5:
        count = len(h5["events/image"])
        for dataset in h5["events"].values():
            last = dataset[-300:]
            dataset.resize(count + 300, axis=0)
            dataset[count:] = last + (last[-1] - last[0] if dataset.ndim == 1 else 0)
        h5.attrs["experiment:event count"] = count + 300


def check(site: Site, path: pathlib.Path) -> Iterator[str]:
    """Wait until the measurement has ended, and yield what is wrong."""
    result = path.with_name(f"{path.stem}_dcn.rtdc")
    reference = site.folder / "reference.rtdc"
    reference.unlink(missing_ok=True)
    expected = "" if path.exists() else "vanished"
    if not expected:
        job = Job(path, reference, PipelineSettings(background_kwargs=BACKGROUND), num_workers=2, interrupted=True)
        try:
            process_measurement(job)
        except DcnumdError as error:
            expected = error.reason
    deadline = time.monotonic() + END_SECONDS
    while (problem := trouble(site, path, result, reference, expected)) and time.monotonic() < deadline:
        time.sleep(0.1)
    if problem:
        assert site.daemon is not None
        row = site.rows().get(str(path))
        yield f"{problem}; ledger {row}, expected {expected or 'a result'}\n{site.daemon.log(60)}"
        return
    while (left := list((site.folder / "state" / "live").glob("*"))) and time.monotonic() < deadline:
        time.sleep(0.1)
    yield from (f"left over: {one}" for one in [*left, *temporary_files([site.watched])])


def trouble(site: Site, path: pathlib.Path, result: pathlib.Path, reference: pathlib.Path, expected: str) -> str:
    """Return what is not as expected yet; empty if all is."""
    state, _ = site.rows().get(str(path), ("", ""))
    if expected == "vanished":
        return "there is a result" if result.exists() else ""
    if expected:
        return "" if state == "failed" and not result.exists() else f"it is {state}"
    if state != "done" or not result.exists():
        return f"it is {state}"
    found = [
        difference
        for difference in differences(result, reference)
        if not difference.startswith(("basins/", "@experiment:run identifier"))
    ]
    return f"differs: {found[:5]}" if found else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Disturb a number of recordings; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.live_faults", description=__doc__)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="live-faults-"))
    site = Site(folder, options.seed)
    site.configure(spool_mb=100)
    counts: collections.Counter[str] = collections.Counter()
    begin = time.monotonic()
    site.start()
    try:
        for number in range(options.faults):
            fault = site.rng.choice(list(FAULTS))
            counts[fault] += 1
            before = len(site.wrong)
            disturb(site, fault)
            good = "as expected" if len(site.wrong) == before else "WRONG"
            tell(f"{number}: {fault}: {good}; {time.monotonic() - begin:.0f} s")
    finally:
        site.collect()
    events = {name: number for name, number in site.events.items() if name.startswith(("live.", "job."))}
    tell(f"{dict(counts)}\n{events}", *site.wrong, f"{len(site.wrong)} wrong")
    shutil.rmtree(folder)
    return 1 if site.wrong else 0


def tell(*lines: str) -> None:
    """Write lines."""
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
