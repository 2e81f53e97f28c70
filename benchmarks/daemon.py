"""Driving a real daemon: starting it, giving it measurements, and reading its log."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import json
import os
import pathlib
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from typing import Any, Self

from benchmarks.cases import Settings
from benchmarks.programs import DCNUMD, ROOT, environment, write_config

Event = dict[str, Any]
"""One line of the daemon's log."""

SETTLE_SECONDS = 0.1
STOP_SECONDS = 10.0
FAILURES = frozenset({"job.failed", "job.skipped"})


def moment(event: Event) -> float:
    """Return when an event was logged [s]; the log tells microseconds."""
    return dt.datetime.fromisoformat(event["timestamp"]).timestamp()


@dataclasses.dataclass(frozen=True, slots=True)
class DaemonJob:
    """What the log tells of one measurement."""

    settled: Event
    started: Event
    finished: Event

    @property
    def output(self) -> pathlib.Path:
        """The result."""
        return pathlib.Path(self.finished["output"])

    def seconds(self, since: str) -> float:
        """Return the time from ``job.started`` or ``file.settled`` to the durable result [s]."""
        begin = self.settled if since == "file.settled" else self.started
        return moment(self.finished) - moment(begin)


class Daemon:
    """A running ``dcnumd run`` with a folder of its own; a context manager.

    Parameters
    ----------
    folder
        Where its config, state, results and the watched folder are put.
    settings
        Of its jobs.
    workers
        Worker processes, unless the settings say it.
    timeout
        Longest wait for an event [s].
    extra
        Further variables of its environment.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        settings: Settings,
        workers: int,
        timeout: float,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        self.watched = folder / "acquisition"
        self.watched.mkdir(parents=True)
        self.config = write_config(
            folder / "config.toml",
            {
                "watch.folders": [os.fspath(self.watched)],
                "watch.settle_seconds": SETTLE_SECONDS,
                "output.folder": os.fspath(folder / "results"),
                "resources.num_workers": workers,
                "resources.min_free_gb": 0.0,
                "state.folder": os.fspath(folder / "state"),
                "log.format": "json",
                **dict(settings),
            },
        )
        self.ready_seconds = 0.0
        """From the start of the process to ``daemon.ready`` [s]."""
        self._reports = bool(dict(settings).get("report.enabled", True))
        self._timeout = timeout
        self._extra = extra
        self._events: list[Event] = []
        self._named: dict[str, list[Event]] = collections.defaultdict(list)
        self._heard = threading.Condition()
        self._ended = False
        self._count = 0

    def __enter__(self) -> Self:
        self.started = time.time()  # the clock of the log
        self.process = subprocess.Popen(
            [*DCNUMD, "run", "-c", os.fspath(self.config)],
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment(self._extra),
            start_new_session=True,
        )
        self._listener = threading.Thread(target=self._listen, name="daemon-log")
        self._listener.start()
        try:
            self.wait_for("daemon.ready")
        except BaseException:
            self.__exit__()
            raise
        self.ready_seconds = time.time() - self.started
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._listener.join()
        if self.process.stderr is not None:
            self.process.stderr.close()

    def run(self, measurement: pathlib.Path) -> DaemonJob:
        """Have a measurement processed, under a path of its own, and wait for the durable result and its report.

        What is timed next does not compete with the report. The file is linked into the watched folder at once and
        taken away afterwards, because a further link changes the stat of all links to a file, and the daemon would
        look at them again.

        Parameters
        ----------
        measurement
            A file in the same file system.
        """
        self._count += 1
        path = self.watched / f"M{self._count:04d}_data.rtdc"
        path.hardlink_to(measurement)
        finished = self.wait_for("job.finished", path=os.fspath(path))
        settled = self.wait_for("file.settled", path=os.fspath(path))
        started = self.wait_for("job.started", path=os.fspath(path))
        if self._reports:
            self.wait_for("report.written", path=os.fspath(path))
        path.unlink()
        return DaemonJob(settled, started, finished)

    def wait_for(self, name: str, **fields: object) -> Event:
        """Return the event of this name with these fields, as soon as it is logged.

        Raises
        ------
        SystemExit
            With the log, when the daemon ends, fails on a measurement, or takes too long.
        """
        deadline = time.monotonic() + self._timeout
        with self._heard:
            while True:
                for event in self._named[name]:
                    if fields.items() <= event.items():
                        return event
                self._wait(deadline, f"{name} {fields}")

    def wait_for_several(self, name: str, number: int) -> list[Event]:
        """Wait until there are `number` events of this name, and return them.

        Raises
        ------
        SystemExit
            As for `wait_for`; the time counts from the last of these events.
        """
        with self._heard:
            seen, deadline = 0, 0.0
            while len(self._named[name]) < number:
                if not deadline or len(self._named[name]) > seen:
                    seen, deadline = len(self._named[name]), time.monotonic() + self._timeout
                self._wait(deadline, f"{name} {number} times")
            return self._named[name][:number]

    def _wait(self, deadline: float, what: str) -> None:
        """Wait for the next event, with the lock of the log."""
        failed = any(self._named[name] for name in FAILURES)
        if failed or self._ended or not self._heard.wait(deadline - time.monotonic()):
            log = "\n".join(json.dumps(event) for event in self._events[-30:])
            raise SystemExit(f"the daemon did not log {what}:\n{log}")

    def _listen(self) -> None:
        """Collect the log until the process closes it."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                event = json.loads(line)
            except ValueError:
                event = {"event": "not json", "line": line}
            with self._heard:
                self._events.append(event)
                self._named[event["event"]].append(event)
                self._heard.notify_all()
        with self._heard:
            self._ended = True
            self._heard.notify_all()
