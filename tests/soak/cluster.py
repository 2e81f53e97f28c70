"""Disturbs a daemon and its Dask cluster at random, and compares the results with those of an undisturbed local run.

Instrument, server and a further worker are computers of their own in network namespaces; needs root.

Example: ``python -m tests.soak.cluster --faults 50 --files 30 --seed 1``
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import json
import pathlib
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

import psutil

from dcnumd.cli import main as dcnumd
from tests.soak import cluster_faults
from tests.soak.processes import Family
from tests.soak.results import Observer, differences, temporary_files
from tests.support.cluster import HURRIED, DaskCluster
from tests.support.daemon import START_SECONDS, Daemon, draw_measurement
from tests.support.faults import draw_long, result_of
from tests.support.hosts import Network

FINISH_SECONDS = 300.0
"""Time within which everything must be done after the last fault [s]."""
LOST = ("worker_lost", "worker_killed", "worker_path", "memory_limit", "result_unseen")
"""Reasons for which a job may fail here."""


class Site:
    """Three computers, and what runs on them.

    Parameters
    ----------
    folder
        An empty folder for everything.
    seed
        Decides which faults happen when.
    stack
        What ends all processes.
    """

    def __init__(self, folder: pathlib.Path, seed: int, stack: contextlib.ExitStack) -> None:
        self.folder = folder
        self.rng = random.Random(seed)
        self.watched, self.share, self.temporary = folder / "acquisition", folder / "mnt", folder / "tmp"
        for place in (self.watched, self.share, self.temporary, folder / "store", folder / "reference"):
            place.mkdir()
        # Dask's own folder is left to Dask.
        folders = {"TMPDIR": str(self.temporary), "DASK_TEMPORARY_DIRECTORY": str(folder / "dask")}
        self.family = Family({**folders, **HURRIED})
        self.observer = Observer([self.watched])
        self.faults: list[str] = []
        self.counts: collections.Counter[str] = collections.Counter()
        self.events: list[dict[str, object]] = []
        self.network = Network(stack)
        self.instrument, server, node = (self.network.host(name) for name in ("instrument", "server", "node"))
        self.hosts = {"server": server, "node": node}
        stack.callback(self.family.kill_all)
        self.cluster = DaskCluster(folder, stack, server, self.family.environment)
        self.workers: dict[str, Daemon] = {}
        self.special: set[str] = set()
        """Names of workers that run with other settings than usual."""
        self.daemon: Daemon | None = None

    def start(self) -> None:
        """Mount the share, and start all programs."""
        for host in self.hosts.values():
            host.mount(self.watched, self.share)
        self.cluster.start_scheduler()
        for name in self.hosts:
            self.start_worker(name)
        self.start_daemon()

    def start_worker(self, name: str, *settings: str, environment: dict[str, str] | None = None) -> None:
        """Start a worker in the place of the one that was killed or stopped."""
        self.workers[name] = self.cluster.start_worker(name, *settings, host=self.hosts[name], environment=environment)
        if settings or environment:
            self.special.add(name)
        else:
            self.special.discard(name)

    def start_daemon(self, there: pathlib.Path | None = None) -> None:
        """Start the daemon on the instrument; `there` is where it believes the share to be mounted."""
        self.collect()
        config = self.folder / "config.toml"
        config.write_text(
            f"[watch]\nfolders = [{json.dumps(str(self.watched))}]\nsettle_seconds = 0.2\nrescan_seconds = 1.0\n"
            f"[state]\nfolder = {json.dumps(str(self.folder / 'state'))}\n"
            "[resources]\nnum_workers = 1\nmin_free_gb = 0.01\nnice = 0\n[report]\nenabled = false\n"
            # Faults are far more frequent than in practice.
            "[retry]\nattempts = 1000\nbackoff_seconds = 0.1\n"
            + self.cluster.config(paths={str(self.watched): str(there or self.share)})
        )
        self.daemon = Daemon.start(config, environment=self.family.environment, enter=self.instrument.enter)

    def collect(self) -> None:
        """Keep what the daemon has logged, and end it if it still runs."""
        if self.daemon is not None:
            self.daemon.close()
            self.events += self.daemon.events
            self.daemon = None

    def wait_for_moment(self) -> str:
        """Wait until a job is being processed, or for some time; return what was waited for."""
        moment = self.rng.choice(("at once", "anytime", "job"))
        deadline = time.monotonic() + 4.0
        while moment == "job" and not temporary_files([self.watched]) and time.monotonic() < deadline:
            time.sleep(0.01)
        if moment != "at once":
            time.sleep(self.rng.uniform(0.0, 1.0) * (2.0 if moment == "anytime" else self.rng.random()))
        return moment

    def rows(self) -> list[tuple[str, str, str]]:
        """Return path, state and reason of each measurement in the ledger."""
        uri = f"{(self.folder / 'state' / 'ledger.sqlite').as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as ledger:
            return list(ledger.execute("SELECT path, state, reason FROM measurements"))


def run(folder: pathlib.Path, *, files: int, faults: int, seed: int) -> tuple[collections.Counter[str], list[str]]:
    """Process `files` measurements here, and then on the cluster with `faults` faults.

    Returns
    -------
    counts, wrong
        The number of faults of each kind, and what went wrong.

    Raises
    ------
    OSError
        If this user cannot make computers in namespaces.
    """
    with contextlib.ExitStack() as stack:
        site = Site(folder, seed, stack)
        names = draw(site, files)
        process_here(site, names)
        site.start()
        disturb(site, names, faults)
        finish(site, names)
        stop(site)
        site.observer.look("at the end")
        return site.counts, [*site.faults, *site.observer.faults, *compare(site, names), *tell(site, names)]


def draw(site: Site, files: int) -> list[str]:
    """Draw measurements of several sizes, and return their names."""
    names = [f"M{number:03d}.rtdc" for number in range(files)]
    for number, name in enumerate(names):
        path = site.folder / "store" / name
        if number % 3:
            draw_measurement(path, frames=(400, 3000)[number % 2], seed=number)
        else:
            draw_long(path, frames=site.rng.choice((1500, 2500, 4000)), cells=2, seed=number)
    return names


def process_here(site: Site, names: Sequence[str]) -> None:
    """Have all measurements processed by this computer, in the very place, and put the results away."""
    for name in names:
        (site.folder / "store" / name).rename(site.watched / name)
    with contextlib.redirect_stdout(io.StringIO()):
        assert dcnumd(["process", str(site.watched), "--no-report"]) == 0
    for name in names:
        result_of(site.watched / name).rename(result_of(site.folder / "reference" / name))
        (site.watched / name).rename(site.folder / "store" / name)


def disturb(site: Site, names: Sequence[str], faults: int) -> None:
    """Publish the measurements one by one while faults happen."""
    waiting = list(names)
    assert site.daemon is not None
    for program, event in ((site.workers["server"], "worker.ready"), (site.daemon, "daemon.ready")):
        program.wait_for(event, timeout=START_SECONDS)
    for number, fault in enumerate(drawn(site.rng, faults)):
        while waiting and 1 - len(waiting) / len(names) <= (number + 1) / faults:
            name = waiting.pop(0)
            (site.folder / "store" / name).rename(site.watched / name)
        moment = site.wait_for_moment()
        fault(site)
        kind = fault.__name__
        site.counts[kind] += 1
        with (site.folder / "faults.log").open("a") as log:
            log.write(f"{number + 1} {kind} {moment} {states_of(site)}\n")
        retry(site)
        site.observer.look(f"after fault {number + 1} ({kind}, {moment})")


def drawn(rng: random.Random, faults: int) -> Iterator[cluster_faults.Fault]:
    """Yield a number of faults in random order; each kind comes once before any comes again."""
    kinds: list[cluster_faults.Fault] = []
    for _ in range(faults):
        if not kinds:
            kinds = cluster_faults.kinds()
            rng.shuffle(kinds)
        yield kinds.pop()


def finish(site: Site, names: Sequence[str]) -> None:
    """Wait until everything is processed, as an operator who looks after what has failed."""
    for name in list(site.special):
        site.workers[name].close()
        site.start_worker(name)
    deadline = time.monotonic() + FINISH_SECONDS
    while (states := states_of(site)) != {"done": len(names)} and time.monotonic() < deadline:
        retry(site)
        time.sleep(0.2)
    while temporary_files([site.watched]) and time.monotonic() < deadline:
        time.sleep(0.2)
    if states != {"done": len(names)}:
        assert site.daemon is not None
        site.faults.append(f"not everything is done: {states}\n{site.daemon.log(100)}")


def states_of(site: Site) -> dict[str, int]:
    """Return how many measurements are in each state, as the ledger tells."""
    return dict(collections.Counter(state for _, state, _ in site.rows()))


def retry(site: Site) -> None:
    """Have measurements tried again that needed more memory than a worker was allowed to take."""
    for path, state, reason in site.rows():
        if state == "failed":
            if reason != "memory_limit":
                site.faults.append(f"{path} failed for good: {reason}")
            with contextlib.redirect_stdout(io.StringIO()):
                assert dcnumd(["retry", "-c", str(site.folder / "config.toml"), path]) == 0


def stop(site: Site) -> None:
    """Stop all programs, and note what does not end as it should."""
    assert site.daemon is not None
    for name, program in {"daemon": site.daemon, **site.workers}.items():
        if program.process.poll() is not None:
            site.faults.append(f"{name} has ended:\n{program.log(50)}")
        elif (code := program.stop()) != 0:
            site.faults.append(f"{name}: exit code {code}\n{program.log(50)}")
    if left := site.cluster.left_over():
        site.faults.append(f"left over on the scheduler: {left}")
    site.cluster.scheduler.kill()
    site.cluster.scheduler.wait()
    if processes := site.family.wait_until_gone(10.0):
        site.faults.append(f"processes are left: {[psutil.Process(one.pid).cmdline() for one in processes]}")
    site.collect()


def compare(site: Site, names: Sequence[str]) -> Iterator[str]:
    """Yield where results differ from those of this computer."""
    for name in names:
        ours, reference = (result_of(place / name) for place in (site.watched, site.folder / "reference"))
        if not ours.exists():
            yield f"{name} has no result"
        else:
            yield from (f"{name}: {difference}" for difference in differences(ours, reference))


def tell(site: Site, names: Sequence[str]) -> Iterator[str]:
    """Yield what was done twice, what failed for a reason that no fault explains, and what is left over."""
    finished = collections.Counter(event["path"] for event in site.events if event["event"] == "job.finished")
    yield from (f"{path} was finished {count} times" for path, count in finished.items() if count > 1)
    for event in site.events:
        if event["event"] == "job.failed" and event["reason"] not in LOST:
            yield f"failed: {json.dumps(event)}"
    expected = {name for path in map(pathlib.Path, names) for name in (path.name, result_of(path).name)}
    there = {str(path.relative_to(site.watched)) for path in site.watched.rglob("*")}
    yield from (f"left over in the watched folder: {name}" for name in sorted(there - expected))
    yield from (f"left over in the folder for temporary files: {path}" for path in site.temporary.rglob("*"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=50)
    parser.add_argument("--files", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="keep the folder, with the list of the faults")
    options = parser.parse_args(arguments)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cluster-"))
    begin = time.monotonic()
    try:
        counts, wrong = run(folder, files=options.files, faults=options.faults, seed=options.seed)
    finally:
        if not options.keep:
            shutil.rmtree(folder)
    seconds, kinds = time.monotonic() - begin, ", ".join(f"{kind} {count}" for kind, count in counts.most_common())
    sys.stdout.write(f"{options.faults} faults, {options.files} files, seed {options.seed}: {seconds:.0f} s; {kinds}\n")
    sys.stdout.write("\n".join(wrong or ["nothing went wrong"]) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
