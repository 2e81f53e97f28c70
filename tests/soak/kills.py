"""Kills the daemon, its children or all at once, at random moments, and holds the results against undisturbed ones.

Example: ``python -m tests.soak.kills --kills 200 --seed 1``
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import itertools
import json
import pathlib
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

from tests.soak.processes import Family, Process
from tests.soak.results import Observer, differences, temporary_files
from tests.support.daemon import Daemon, draw_measurement

SHAPES = ((48, 96), (80, 320), (60, 150), (100, 250), (40, 80))
FRAMES = (1, 5, 40, 120, 60, 400, 20, 900, 250, 3000)
STRATEGIES = ("tap", "drain")
TARGETS = ("daemon", "pipeline", "worker", "fork server", "probe", "any", "all")
MOMENTS = ("at once", "anytime", "started", "temporary", "result")
"""When to kill: some time after the last kill, or as soon as one of these is seen and then a little later."""
START_SECONDS = 120.0
FINISH_SECONDS = 120.0
HALF_BORN = ("in spawn_main", "in _main", "EOFError: Ran out of input")
"""What Python itself says in a process whose parent was killed between starting it and telling it what to do."""


@dataclasses.dataclass
class Soak:
    """One run: folders, the daemon, and what was seen of it."""

    folder: pathlib.Path
    rng: random.Random
    family: Family
    observer: Observer = dataclasses.field(init=False)
    daemon: Daemon | None = None
    events: list[dict[str, object]] = dataclasses.field(default_factory=list)
    kills: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    faults: list[str] = dataclasses.field(default_factory=list)
    named_memory: set[pathlib.Path] = dataclasses.field(default_factory=set)
    """Whatever any of the processes has shared by a name."""

    @property
    def watched(self) -> list[pathlib.Path]:
        """The folders in which measurements appear."""
        return [self.folder / "acquisition" / strategy for strategy in STRATEGIES]

    def start(self) -> None:
        """Start the daemon, which may find the leftovers of the one before."""
        self.daemon = Daemon.start(self.folder / "config.toml", environment=self.family.environment)

    def collect(self) -> None:
        """Keep what the daemon has logged, and let go of it."""
        if self.daemon is not None:
            self.daemon.close()
            self.events += self.daemon.events
            self.daemon = None

    def wait(self, moment: str) -> None:
        """Wait for the moment of the next kill, but not for ever: there may be nothing left to do."""
        assert self.daemon is not None
        deadline = time.monotonic() + self.rng.uniform(1.0, 2.5)
        before = {"started": len(self.daemon.matching("job.started")), "result": self.results()}
        while moment not in {"at once", "anytime"} and time.monotonic() < deadline:
            if moment == "started" and len(self.daemon.matching("job.started")) > before["started"]:
                break
            if moment == "temporary" and temporary_files(self.result_folders):
                break
            if moment == "result" and self.results() > before["result"]:
                break
            time.sleep(0.002)
        if moment == "anytime":
            time.sleep(self.rng.uniform(0.0, 2.5))
        elif moment != "at once":
            time.sleep(self.rng.uniform(0.0, 0.3) * self.rng.random())

    def results(self) -> int:
        """Return how many results can be seen."""
        return sum(1 for folder in self.result_folders for _ in folder.rglob("*_dcn.rtdc"))

    @property
    def result_folders(self) -> list[pathlib.Path]:
        """Where results appear."""
        return [*self.watched, self.folder / "results"]

    def kill(self, target: str) -> list[str]:
        """Kill some of the processes; return what they did."""
        assert self.daemon is not None
        victims = self.victims(target)
        self.rng.shuffle(victims)
        killed = [victim for victim in victims if victim.kill()]
        if self.daemon.process.pid in {victim.pid for victim in killed}:
            self.daemon.process.wait(START_SECONDS)
        return [victim.role for victim in killed]

    def victims(self, target: str) -> list[Process]:
        """Return the processes to kill."""
        assert self.daemon is not None
        processes = self.family.processes()
        probes = {event["pid"] for event in self.daemon.matching("worker.started", role="probe")}
        names = {process: process.role for process in processes}
        for process in processes:
            if process.role == "child":
                names[process] = "probe" if process.pid in probes else "pipeline"
        if target == "all":
            return processes
        chosen = processes if target == "any" else [process for process in processes if names[process] == target]
        return [self.rng.choice(chosen)] if chosen else []


def run(folder: pathlib.Path, *, files: int, kills: int, seed: int) -> list[str]:
    """Process `files` measurements undisturbed and then with `kills` kills; return what went wrong."""
    soak = prepare(folder, files, seed)
    store = sorted((folder / "store").iterdir())
    undisturbed(soak, store)
    try:
        disturb(soak, store, kills)
        finish(soak, store)
    finally:
        soak.family.kill_all()
        soak.collect()
    soak.observer.look("at the end")
    return [
        *soak.faults,
        *soak.observer.faults,
        *compare(soak, store),
        *count_jobs(soak, store),
        *(f"left over: {path}" for path in temporary_files(soak.result_folders)),
        *(f"left over in the folder for temporary files: {path}" for path in (folder / "tmp").rglob("*")),
        *(f"left over in shared memory: {path}" for path in soak.named_memory if path.exists()),
    ]


def prepare(folder: pathlib.Path, files: int, seed: int) -> Soak:
    """Draw the measurements and write the config."""
    for name in ("store", "tmp", "results", "reference", *(f"acquisition/{strategy}" for strategy in STRATEGIES)):
        (folder / name).mkdir(parents=True)
    for number in range(files):
        frames, shape = FRAMES[number % len(FRAMES)], SHAPES[number // 2 % len(SHAPES)]
        draw_measurement(folder / "store" / f"M{number:03d}_data.rtdc", frames=frames, shape=shape, seed=number)
    text = [
        f"[state]\nfolder = {json.dumps(str(folder / 'state'))}",
        "[resources]\nnum_workers = 2\nmin_free_gb = 0.01\nnice = 0",
        # Each killed process costs the file an attempt; here they are killed far more often than in real life.
        "[retry]\nattempts = 1000\nbackoff_seconds = 0.01",
    ]
    for strategy in STRATEGIES:
        watched, results = (json.dumps(str(place / strategy)) for place in (folder / "acquisition", folder / "results"))
        text += [
            f"[[watch]]\nfolders = [{watched}]\nsettle_seconds = 0.2\nrescan_seconds = 1.0",
            f'output.basin_strategy = "{strategy}"',
            # one way each: beside the measurement, and in a folder of their own
            f"output.folder = {results}" if strategy == "drain" else "",
        ]
    (folder / "config.toml").write_text("\n".join(text))
    soak = Soak(folder, random.Random(seed), Family({"TMPDIR": str(folder / "tmp")}))
    soak.observer = Observer(soak.result_folders)
    return soak


def undisturbed(soak: Soak, store: Sequence[pathlib.Path]) -> None:
    """Have all measurements processed in peace, in the very place, and put the results away."""
    for number, path in enumerate(store):
        path.rename(published(soak, number, path))
    settings = [f"state.folder={json.dumps(str(soak.folder / 'reference' / 'state'))}", "report.enabled=false"]
    sets = itertools.chain.from_iterable(("--set", setting) for setting in settings)
    daemon = Daemon.start(soak.folder / "config.toml", "--once", *sets)
    try:
        code = daemon.wait(START_SECONDS + FINISH_SECONDS)
        assert code == 0, f"exit code {code} of an undisturbed run:\n{daemon.log()}"
    finally:
        daemon.close()
    for number, path in enumerate(store):
        place = published(soak, number, path)
        result_of(soak, place).rename(soak.folder / "reference" / f"{path.stem}_dcn.rtdc")
        place.rename(path)


def published(soak: Soak, number: int, path: pathlib.Path) -> pathlib.Path:
    """Return where a stored measurement is put for the daemon."""
    return soak.watched[number % len(STRATEGIES)] / path.name


def result_of(soak: Soak, place: pathlib.Path) -> pathlib.Path:
    """Return the result of a published measurement."""
    name = f"{place.stem}_dcn.rtdc"
    return soak.folder / "results" / "drain" / name if place.parent.name == "drain" else place.with_name(name)


def disturb(soak: Soak, store: Sequence[pathlib.Path], kills: int) -> None:
    """Publish the measurements one by one while processes are killed."""
    waiting = list(enumerate(store))
    soak.start()
    while soak.kills.total() < kills:
        done = soak.kills.total() / kills
        while waiting and 1 - len(waiting) / len(store) <= done:
            number, path = waiting.pop(0)
            path.rename(published(soak, number, path))
        moment, target = soak.rng.choice(MOMENTS), soak.rng.choice(TARGETS)
        soak.wait(moment)
        soak.named_memory |= soak.family.named_memory()
        if killed := soak.kill(target):
            soak.kills[f"{target}, {moment}"] += 1
        when = f"after kill {soak.kills.total()} ({target}, {moment})"
        soak.observer.look(when)
        assert soak.daemon is not None
        if soak.daemon.process.poll() is not None:
            if "daemon" not in killed:
                soak.faults.append(f"the daemon has ended {when}")
            if soak.rng.random() < 0.3 and (left := soak.family.wait_until_gone(10.0)):
                soak.faults.append(f"processes outlive the daemon: {left}")
            soak.collect()
            soak.start()


def finish(soak: Soak, store: Sequence[pathlib.Path]) -> None:
    """Wait until everything is processed, and stop the daemon."""
    assert soak.daemon is not None
    deadline = time.monotonic() + START_SECONDS + FINISH_SECONDS
    while (states := ledger_states(soak)) != {"done": len(store)} and time.monotonic() < deadline:
        if soak.daemon.process.poll() is not None:
            soak.faults.append(f"the daemon has ended:\n{soak.daemon.log()}")
            return
        time.sleep(0.1)
    if states != {"done": len(store)}:
        soak.faults.append(f"not everything is done: {states}\n{soak.daemon.log()}")
    # Everything may have been done before the last start, and a program that only begins heeds no signal yet.
    soak.daemon.wait_for("daemon.ready", timeout=START_SECONDS)
    if (code := soak.daemon.stop()) != 0:
        soak.faults.append(f"exit code {code}")
    if left := soak.family.wait_until_gone(5.0):
        soak.faults.append(f"processes outlive the daemon: {left}")


def ledger_states(soak: Soak) -> dict[str, int]:
    """Return how many measurements are in each state, as the ledger tells."""
    uri = f"{(soak.folder / 'state' / 'ledger.sqlite').as_uri()}?mode=ro"
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(uri, uri=True)) as ledger:
        return dict(ledger.execute("SELECT state, count(*) FROM measurements GROUP BY state"))
    return {}


def compare(soak: Soak, store: Sequence[pathlib.Path]) -> Iterator[str]:
    """Yield where results differ from those of the undisturbed run."""
    for number, path in enumerate(store):
        ours = result_of(soak, published(soak, number, path))
        if not ours.exists():
            yield f"{ours.name} is missing"
            continue
        for difference in differences(ours, soak.folder / "reference" / ours.name):
            yield f"{ours.name}: {difference}"


def count_jobs(soak: Soak, store: Sequence[pathlib.Path]) -> Iterator[str]:
    """Yield which measurements were finished more than once, or failed for good."""
    finished = collections.Counter(event["path"] for event in soak.events if event["event"] == "job.finished")
    yield from (f"{path} was finished {number} times" for path, number in finished.items() if number > 1)
    known = {str(published(soak, number, path)) for number, path in enumerate(store)}
    yield from (f"{path} was finished, but nobody published it" for path in finished.keys() - known)
    for event in soak.events:
        if event["event"] == "job.failed" and not event["will_retry"]:
            yield f"failed for good: {json.dumps(event)}"
        elif event["event"] == "daemon.stopped" and event["level"] != "info":
            yield f"said in the log: {json.dumps(event)}"
    for strange, events in itertools.groupby(soak.events, lambda event: event["event"] == "not json"):
        words = "".join(event["line"] for event in events) if strange else ""
        if words and not all(part in words for part in HALF_BORN):
            yield f"said in the log: {words}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="keep the folder for a look at it")
    options = parser.parse_args(arguments)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="kills-"))
    begin = time.monotonic()
    faults = run(folder, files=options.files, kills=options.kills, seed=options.seed)
    seconds = time.monotonic() - begin
    sys.stdout.write(f"{options.kills} kills, {options.files} files, seed {options.seed}: {seconds:.0f} s\n")
    sys.stdout.write("\n".join(faults or ["nothing went wrong"]) + "\n")
    if options.keep:
        sys.stdout.write(f"{folder}\n")
    else:
        shutil.rmtree(folder)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
