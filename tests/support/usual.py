"""A daemon that many tests share, each with a folder of its own, and that leaves nothing behind but its results."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator

from tests.support.daemon import START_SECONDS, Daemon, Event

SETTINGS = """
[resources]
num_workers = 1
min_free_gb = 0.01
nice = 0
job_timeout_seconds = 3600.0
[report]
enabled = false
[retry]
backoff_seconds = 0.2
"""


@dataclasses.dataclass
class Usual:
    """A running daemon for tests that leave it as they found it; it scans nothing but when a session begins."""

    config: pathlib.Path
    watched: pathlib.Path
    daemon: Daemon
    _numbers: Iterator[int] = dataclasses.field(default_factory=itertools.count)

    @classmethod
    @contextlib.contextmanager
    def running_in(cls, place: pathlib.Path) -> Iterator[Usual]:
        """Start a daemon whose files are in `place`; check at the end that it stops."""
        watched, config = place / "acquisition", place / "config.toml"
        watched.mkdir()
        state = json.dumps(str(place / "state"))
        config.write_text(f"{table(watched)}[state]\nfolder = {state}\n{SETTINGS}")
        usual = cls(config, watched, _started(config))
        try:
            yield usual
            assert usual.daemon.stop() == 0
        finally:
            usual.daemon.close()

    def folder(self) -> pathlib.Path:
        """Return a new watched folder."""
        folder = self.watched / str(next(self._numbers))
        folder.mkdir()
        return folder

    def copied(self, source: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
        """Copy a measurement into a watched folder under a hidden name, rename it, and return its path."""
        hidden = pathlib.Path(shutil.copyfile(source, folder / ".writing"))
        return hidden.rename(folder / source.name)

    def restart(self) -> Daemon:
        """Start a daemon in the place of the one that runs or has ended, and return it."""
        self.daemon.close()
        self.daemon = _started(self.config)
        return self.daemon

    def about(self, folder: pathlib.Path, name: str) -> list[Event]:
        """Return the events with this name about files in a folder."""
        return [event for event in self.daemon.matching(name) if folder in pathlib.Path(event["path"]).parents]

    @contextlib.contextmanager
    def changed(self, more: str = "", **values: object) -> Iterator[None]:
        """Have the daemon work by another config in this block.

        Parameters
        ----------
        more
            What the config has in addition, for example tables of further folders.
        values
            Names of settings that the config has, with other values.
        """
        text = changed = self.config.read_text()
        for name, value in values.items():
            changed, count = re.subn(f"^{name} = .*$", f"{name} = {json.dumps(value)}", changed, flags=re.MULTILINE)
            assert count
        self.reload(changed + more)
        try:
            yield
        finally:
            self.reload(text)

    def reload(self, text: str) -> None:
        """Have the daemon work by another config from now on."""
        before = len(self.daemon.matching("config.reloaded"))
        self.config.write_text(text)
        self.daemon.process.send_signal(signal.SIGHUP)
        self.daemon.wait_for("config.reloaded", count=before + 1)

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[int]:
        """Have the process that runs the jobs stand still in this block; yield its ID."""
        pid = self.daemon.matching("worker.started", role="pipeline")[-1]["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            yield pid
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def command(self, name: str, *arguments: object) -> str:
        """Return what another command of dcnumd prints about this daemon."""
        command = [sys.executable, "-m", "dcnumd", name, "-c", str(self.config), *map(str, arguments)]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return shown.stdout


def table(folder: pathlib.Path, settle: float = 0.3, rescan: float = 3600.0, more: str = "") -> str:
    """Return the part of a config that has a folder watched."""
    folders = json.dumps([str(folder)])
    return f"[[watch]]\nfolders = {folders}\nsettle_seconds = {settle}\nrescan_seconds = {rescan}\n{more}"


def _started(config: pathlib.Path) -> Daemon:
    daemon = Daemon.start(config)
    try:
        daemon.wait_for("daemon.ready", timeout=START_SECONDS)
    except BaseException:
        daemon.close()
        raise
    return daemon
