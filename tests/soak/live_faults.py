"""Disturbs recordings that are processed while they grow, one fault for each; all must end as they would otherwise.

Disks are filled if this user may mount file systems.

Examples::

    python -m tests.soak.live_faults --faults 100 --seed 1
    python -m tests.soak.live_faults --faults 20 --only "results full" --only paused
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
from tests.support.places import MountedFolder, can_mount, mounted
from tests.support.recorder import RecorderProcess
from tests.support.web import TOKEN, ask, write_token

END_SECONDS = 180.0
"""Time within which a recording must have ended, one way or another [s]."""
STEP_SECONDS = 0.15
"""Time between two flushes [s]."""
DISK_MB = 128.0
"""Size of the disks that are filled [MiB]."""
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
    disks
        File systems of the folders of results and of the ledger, by name; empty if none can be mounted.
    """

    folder: pathlib.Path
    seed: int
    disks: dict[str, MountedFolder]
    daemon: Daemon | None = None
    wrong: list[str] = dataclasses.field(default_factory=list)
    events: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    number: int = 0
    heard: int = 0
    """Number of events of the daemon that were counted."""

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.watched, self.results, self.state = (self.folder / name for name in ("acquisition", "results", "state"))
        for folder in (self.watched, self.results, self.state):
            folder.mkdir(exist_ok=True)
        self.config = self.folder / "config.toml"
        self.token = write_token(self.folder / "token")

    def configure(self, spool_mb: int) -> None:
        """Write the config."""
        self.config.write_text(
            f"[watch]\nfolders = [{json.dumps(str(self.watched))}]\nsettle_seconds = 0.5\nrescan_seconds = 1.0\n"
            'interrupted = "process"\n'
            f"[output]\nfolder = {json.dumps(str(self.results))}\n"
            f"[state]\nfolder = {json.dumps(str(self.state))}\n"
            f'[web]\nlisten = "127.0.0.1:0"\ntoken_file = {json.dumps(str(self.token))}\n'
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
        """End the daemon if it still runs, and count what it has logged."""
        if self.daemon is not None:
            self.daemon.close()
            self.listen()
            self.wrong += self.daemon.faults
            self.daemon, self.heard = None, 0

    def listen(self) -> None:
        """Count what the daemon has logged since the last call, and note what tells of a bug."""
        assert self.daemon is not None
        events = self.daemon.events[self.heard :]
        self.heard += len(events)
        self.events.update(event["event"] for event in events)
        self.wrong += [json.dumps(event) for event in events if event.get("reason") == "internal"]

    def process(self, role: str) -> psutil.Process | None:
        """Return a process of the daemon by its role; None if it is not running."""
        assert self.daemon is not None
        pids = [event["pid"] for event in self.daemon.matching("worker.started", role=role)]
        with contextlib.suppress(psutil.NoSuchProcess, IndexError):
            return psutil.Process(pids[-1])
        return None

    def post(self, name: str) -> None:
        """Press a button of the live page."""
        assert self.daemon is not None
        address = self.daemon.wait_for("web.started")["address"]
        assert ask(address, f"/api/v1/{name}", "POST", {"Authorization": f"Bearer {TOKEN}"}).status == 200

    def rows(self) -> dict[str, tuple[str, str]]:
        """Return state and reason of each measurement in the ledger, by its path."""
        uri = f"{(self.state / 'ledger.sqlite').as_uri()}?mode=ro"
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
    at_end: Callable[[], None] = lambda: None
    """Called when the recorder has closed the file."""
    later: contextlib.ExitStack = dataclasses.field(default_factory=contextlib.ExitStack)
    """Ends a fault that lasts."""

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
        """Append frames to the file after its end."""

        def append() -> None:
            time.sleep(self.site.rng.random())
            append_frames(self.path)

        self.at_end = append

    def move_at_end(self) -> None:
        """Give it another name as soon as it is closed, as many recorders do."""
        self.at_end = self.move_file

    def move_after_end(self) -> None:
        """Give it another name when all is processed, and its settle time may be over."""

        def move() -> None:
            time.sleep(self.site.rng.random() * 2)
            self.move_file()

        self.at_end = move

    def pause(self) -> None:
        """Pause the processing for some time."""
        self.site.post("pause")
        self.later.callback(self.site.post, "resume")

    def fill_disk(self, name: str) -> None:
        """Fill a disk for some time."""
        self.later.callback(self.site.disks[name].fill().unlink)


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
    "moved at the end": Disturbed.move_at_end,
    "moved after the end": Disturbed.move_after_end,
    "paused": Disturbed.pause,
    "results full": lambda disturbed: disturbed.fill_disk("results"),
    "state full": lambda disturbed: disturbed.fill_disk("state"),
}
NEED_DISKS = {"results full", "state full"}
LASTING = NEED_DISKS | {"paused"}
"""Faults that end when the recording continues, or some time after its end."""


def disturb(site: Site, fault: str) -> None:
    """Record a measurement with one fault at a random moment, and check what becomes of it."""
    site.number += 1
    frames = site.rng.randint(1500, 6000)
    spec = MeasurementSpec(size=(48, 100), frames=frames, rate=1000, seed=site.number, density=0.8, chunk=20)
    path = site.watched / f"M{site.number:03d}_data.rtdc"
    steps = [*range(400, frames, 400), frames]
    begin = site.rng.randrange(len(steps))
    end = site.rng.randint(begin, len(steps))
    with RecorderProcess(path, spec) as recorder:
        disturbed = Disturbed(site, path, spec, recorder)
        with disturbed.later:
            for number, stop in enumerate(steps):
                recorder.record(stop)
                time.sleep(STEP_SECONDS * site.rng.random() * 2)
                if number == begin:
                    FAULTS[fault](disturbed)
                    if not recorder.alive:
                        break
                elif number == end:
                    disturbed.later.close()
            if recorder.alive:
                recorder.finish()
                disturbed.at_end()
            if fault in LASTING and end == len(steps):
                time.sleep(3 * site.rng.random())
    site.wrong += [f"{fault}, {path.name}: {problem}" for problem in check(site, disturbed.path)]
    site.configure(spool_mb=100)
    if fault == "spool full":
        assert site.daemon is not None
        site.daemon.process.send_signal(signal.SIGHUP)
    for file in (*site.watched.iterdir(), *site.results.iterdir()):
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
    result = site.results / f"{path.stem}_dcn.rtdc"
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
    while (left := left_over(site)) and time.monotonic() < deadline:
        time.sleep(0.1)
    yield from (f"left over: {one}" for one in left)


def left_over(site: Site) -> list[pathlib.Path]:
    """Return what should not be there any more; it may take a moment until it is removed."""
    return [*(site.state / "live").glob("*"), *temporary_files([site.watched, site.results])]


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


def faults(rng: random.Random, kinds: Sequence[str], number: int) -> Iterator[str]:
    """Yield kinds of faults: all in random order, again and again, so that each occurs equally often."""
    left: list[str] = []
    for _ in range(number):
        left = left or rng.sample(kinds, len(kinds))
        yield left.pop()


def run(folder: pathlib.Path, seed: int, number: int, kinds: Sequence[str]) -> list[str]:
    """Disturb a number of recordings, tell of each, and return what went wrong."""
    counts: collections.Counter[str] = collections.Counter()
    begin = time.monotonic()
    with contextlib.ExitStack() as stack:
        names = ("results", "state") if can_mount() else ()
        disks = {name: stack.enter_context(mounted(folder / name, DISK_MB)) for name in names}
        kinds = [kind for kind in kinds if disks or kind not in NEED_DISKS]
        site = Site(folder, seed, disks)
        site.configure(spool_mb=100)
        stack.callback(site.collect)
        site.start()
        for place, fault in enumerate(faults(site.rng, kinds, number)):
            counts[fault] += 1
            before = len(site.wrong)
            disturb(site, fault)
            site.listen()
            good = "as expected" if len(site.wrong) == before else "WRONG"
            tell(f"{place}: {fault}: {good}; {time.monotonic() - begin:.0f} s", *site.wrong[before:])
    events = {name: count for name, count in site.events.items() if name.startswith(("live.", "job."))}
    tell(f"{dict(counts)}\n{events}")
    return site.wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Disturb a number of recordings; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.live_faults", description=__doc__)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", choices=list(FAULTS), help="a kind of fault; may be repeated")
    options = parser.parse_args(arguments)
    # so that no disk stays mounted
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="live-faults-"))
    try:
        wrong = run(folder, options.seed, options.faults, options.only or list(FAULTS))
    finally:
        shutil.rmtree(folder)
    tell(f"{len(wrong)} wrong")
    return 1 if wrong else 0


def tell(*lines: str) -> None:
    """Write lines."""
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
