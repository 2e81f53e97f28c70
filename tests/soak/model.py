"""Does at random what instruments and operators do, and holds the daemon against a model of what it promises.

Example: ``python -m tests.soak.model --steps 500 --seed 1``

The clock of the computer is left alone; files get dates of other times instead.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import pathlib
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Self

import h5py

from tests.soak.processes import Family
from tests.soak.results import faults_of, temporary_files
from tests.soak.world import Content, World
from tests.support.daemon import START_SECONDS, Daemon

SETTLE_SECONDS = 0.2
QUIET_SECONDS = 60.0
"""So long after the last action everything must be as the model says."""
UNFINISHED = ("seen", "settling", "queued", "running")


class Machine(World):
    """A world with a daemon, and what is expected of it."""

    def __init__(self, folder: pathlib.Path, seed: int) -> None:
        super().__init__(folder, seed)
        self.actions: list[str] = []
        self.counts: collections.Counter[str] = collections.Counter()
        self.faults: list[str] = []
        self.daemon: Daemon | None = None
        self.family = Family({"TMPDIR": str(folder / "tmp")})
        self._events: list[dict[str, object]] = []
        self._kills = 0

    def __enter__(self) -> Self:
        super().__enter__()
        (self.folder / "config.toml").write_text(
            f"[watch]\nfolders = [{json.dumps(str(self.watched))}]\n"
            f"settle_seconds = {SETTLE_SECONDS}\nrescan_seconds = 1.0\n"
            f"[state]\nfolder = {json.dumps(str(self.folder / 'state'))}\n"
            "[resources]\nnum_workers = 1\nmin_free_gb = 0.001\nnice = 0\n"
            "[report]\nenabled = false\n[retry]\nbackoff_seconds = 0.1\nattempts = 5\n"
        )
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.family.kill_all()
        self._take_log()
        super().__exit__()

    def log(self) -> list[dict[str, object]]:
        """Return all events of all daemons so far."""
        return self._events + (list(self.daemon.events) if self.daemon else [])

    def rename_tree(self) -> str:
        """Rename a folder with measurements and their results."""
        trees = sorted({name.partition("/")[0] for name in self.files if name.startswith("tree")})
        if not trees:
            return ""
        # With the results of others in the way, a measurement is skipped, which is another story.
        self.check()
        old, new = self.rng.choice(trees), self.new_tree()
        (self.disk / old).rename(self.disk / new)
        for name in [name for name in self.files if name.startswith(f"{old}/")]:
            self.put(name.replace(old, new, 1), self.files.pop(name))
        self.check()
        return f"rename {old} to {new}"

    def kill(self) -> str:
        """Kill the daemon."""
        if self.daemon is None:
            return ""
        self.daemon.process.kill()
        self._kills += 1
        self._take_log()
        return "kill"

    def restart(self) -> str:
        """Start the daemon if it does not run; have it end in peace before if it does."""
        was = "start"
        if self.daemon is not None:
            was = "restart"
            code = self.daemon.stop()
            # In its first moments, before it does anything, a signal ends it as any other program.
            if code != 0 and (code != -signal.SIGTERM or self.daemon.matching("watch.armed")):
                self.faults.append(f"exit code {code}")
            self._take_log()
        self.start()
        return was

    def check(self) -> str:
        """Wait until everything is as the model says, and look for what must not be."""
        self.remount()
        if self.daemon is None:
            self.start()
        begin = time.monotonic()
        self._wait_for_promise()
        # What must not come would have come by then.
        time.sleep(2 * SETTLE_SECONDS)
        self._wait_for_promise()
        if wrong := [*self.too_much(), *self.faults]:
            raise AssertionError("\n".join(wrong))
        return f"check: {len(self.files)} files after {time.monotonic() - begin:.1f} s"

    def _wait_for_promise(self) -> None:
        deadline = time.monotonic() + QUIET_SECONDS
        while missing := list(self.missing()):
            assert self.daemon is not None
            if self.daemon.process.poll() is not None:
                missing.append("the daemon has ended")
            if self.daemon.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError("\n".join(missing))
            time.sleep(0.05)

    def missing(self) -> Iterator[str]:
        """Yield what is not yet as the model says."""
        failures = [(place, event) for place, event in enumerate(self.log()) if event["event"] == "job.failed"]
        for name, content in self.files.items():
            path = str(self.watched / name)
            if content.broken:
                heard = [
                    event
                    for place, event in failures
                    if place >= content.heard_before and event["path"] == path and not event["will_retry"]
                ]
                if not heard:
                    yield f"{name} is broken, and that was not reported"
                elif any(event["reason"] in {"", "internal", "error"} for event in heard):
                    yield f"{name} was reported without a good reason: {heard}"
            elif content.growing is None:
                yield from self._missing_result(name, content)
        if self.daemon is not None and (unfinished := self.unfinished()):
            yield f"unfinished in the ledger: {unfinished}"

    def _missing_result(self, name: str, content: Content) -> Iterator[str]:
        result = self.watched / name
        result = result.with_name(f"{result.stem}_dcn.rtdc")
        try:
            with h5py.File(result, "r", locking=False) as h5:
                sample = h5.attrs["experiment:sample"]
        except OSError as error:
            yield f"{name} ({content.version} frames) has no result: {error}"
            return
        if sample not in {f"version {content.version}", f"discs {content.version}"}:
            yield f"{name} ({content.version} frames) has the result of {sample!r}"
        else:
            yield from (f"the result of {name}: {fault}" for fault in faults_of(result))

    def unfinished(self) -> list[tuple[str, str]]:
        """Return what the ledger says is not finished and nobody is writing."""
        uri = f"{(self.folder / 'state' / 'ledger.sqlite').as_uri()}?mode=ro"
        growing = {str(self.watched / name) for name, content in self.files.items() if content.growing is not None}
        try:
            with contextlib.closing(sqlite3.connect(uri, uri=True)) as ledger:
                marks = ", ".join("?" * len(UNFINISHED))
                query = f"SELECT path, state FROM measurements WHERE state IN ({marks})"  # noqa: S608 -- only marks
                return [row for row in ledger.execute(query, UNFINISHED) if row[0] not in growing]
        except sqlite3.Error as error:
            return [("ledger", str(error))]

    def too_much(self) -> Iterator[str]:
        """Yield what must not have happened."""
        finished = collections.Counter(
            (str(event["path"]), int(str(event["frames"]))) for event in self.log() if event["event"] == "job.finished"
        )
        allowed = {(str(self.watched / name), version): count for (name, version), count in self.placed.items()}
        for key, count in finished.items():
            if count > allowed.get(key, 0):
                yield f"{key[0]} ({key[1]} frames) was finished {count} times, put there {allowed.get(key, 0)} times"
        # A recording that rests for long is reported as interrupted, until it goes on.
        reported = collections.Counter(
            str(event["path"])
            for event in self.log()
            if event["event"] == "job.failed" and not event["will_retry"] and not self._rested(event)
        )
        for path, count in reported.items():
            times = self.spoiled[os.path.relpath(path, self.watched)]
            # A report is written before it is recorded, and a kill may come between.
            if count > times + self._kills:
                yield f"{path} was reported {count} times, and broken {times} times"
            if not times:
                yield f"{path} was never broken, but has failed"
        for event in self.log():
            if event["event"] == "not json" or event.get("level") == "critical":
                yield f"said in the log: {json.dumps(event)}"
        yield from (f"left over: {path}" for path in temporary_files([self.watched]))

    def _rested(self, event: dict[str, object]) -> bool:
        return event["reason"] == "incomplete" and os.path.relpath(str(event["path"]), self.watched) in self.begun

    def start(self) -> None:
        """Start the daemon."""
        self.daemon = Daemon.start(self.folder / "config.toml", environment=self.family.environment)

    def wait_until_ready(self) -> None:
        """Wait until the daemon has started, with kernels compiled."""
        assert self.daemon is not None
        self.daemon.wait_for("daemon.ready", timeout=START_SECONDS)

    def _take_log(self) -> None:
        if self.daemon is not None:
            self.daemon.close()
            self._events += self.daemon.events
            self.daemon = None


WEIGHTS: dict[Callable[[Machine], str], int] = {
    Machine.create: 8,
    Machine.spoil: 2,
    Machine.begin: 3,
    Machine.append: 4,
    Machine.finish: 3,
    Machine.reopen: 3,
    Machine.rename: 4,
    Machine.delete: 3,
    Machine.touch: 3,
    Machine.move_tree_in: 2,
    Machine.rename_tree: 1,
    Machine.pause: 8,
    Machine.kill: 3,
    Machine.restart: 3,
    Machine.unmount: 2,
    Machine.remount: 3,
    Machine.check: 2,
}


def shortened(event: dict[str, object]) -> str:
    """Return what is most telling of an event."""
    values = {name: value for name, value in event.items() if name not in {"timestamp", "event", "ppid", "pphash"}}
    return f"{event.get('timestamp', '')} {event['event']} {json.dumps(values, ensure_ascii=False)[:300]}"


def run(folder: pathlib.Path, *, steps: int, seed: int) -> tuple[Machine, str]:
    """Take `steps` random actions; return the world and what went wrong, empty if nothing did."""
    with Machine(folder, seed) as machine:
        machine.wait_until_ready()
        try:
            for _ in range(steps):
                (action,) = machine.rng.choices(list(WEIGHTS), list(WEIGHTS.values()))
                if told := action(machine):
                    machine.actions.append(told)
                    machine.counts[action.__name__] += 1
            while machine.finish():
                pass
            machine.actions.append(machine.check())
            machine.restart()
            machine.actions.append(machine.check())
        except AssertionError as error:
            story = "\n".join(machine.actions[-60:])
            events = "\n".join(map(shortened, machine.log()[-150:]))
            return machine, f"seed {seed}, after {len(machine.actions)} actions:\n{story}\n{events}\n{error}"
    return machine, ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="model-"))
    begin = time.monotonic()
    try:
        machine, fault = run(folder, steps=options.steps, seed=options.seed)
    finally:
        shutil.rmtree(folder)
    counts = ", ".join(f"{name} {count}" for name, count in machine.counts.most_common())
    sys.stdout.write(f"{options.steps} steps, seed {options.seed}: {time.monotonic() - begin:.0f} s; {counts}\n")
    sys.stdout.write(f"{fault or 'nothing went wrong'}\n")
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main())
