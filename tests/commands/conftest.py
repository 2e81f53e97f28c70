"""A ledger with everything that a screen or a table can show."""

from __future__ import annotations

import os
import pathlib

import pytest

from dcnumd.daemon.ledger.records import Content, Entry, State
from dcnumd.daemon.ledger.store import Ledger
from dcnumd.logic.stamp import Stamp

HOSTILE = os.fsdecode(b"M9\xff\x1b[31m\n<script>.rtdc")
"""A name that is no text and would colour the terminal."""
SEEN_AT, FINISHED_AT = "2026-11-21T09:00:00.000Z", "2026-11-21T11:30:00.000Z"
"""When measurements are found and end, unless a test says otherwise; so what is shown is the same on all days."""


class World:
    """A config, its watched folder and its ledger, in which measurements are put where a test wants them."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder / "in"
        self.config = folder / "config.toml"
        self.config.write_text("[watch]\nfolders = ['in']\n[state]\nfolder = 'state'\n")
        self.state = folder / "state"
        for made in (self.folder, self.state):
            made.mkdir()
        self.ledger = Ledger.open(self.state)

    def settling(self, name: str) -> Entry:
        """Add a measurement that is not complete."""
        entry = self.ledger.add(os.fspath(self.folder / name), Stamp(1, 2, 3, 4), "job")
        self.ledger.amend(entry.id, seen_at=SEEN_AT)
        return self.ledger.move(entry.id, State.SETTLING)

    def queued(self, name: str, sample: str = "") -> Entry:
        """Add one that waits for its turn."""
        entry = self.ledger.identify(
            self.settling(name), Content(1, "0" * 32, "id"), "13|ppid", "hash", frames=1000, sample=sample
        )
        return self.ledger.move(entry.id, State.QUEUED)

    def running(self, name: str, sample: str = "", **changes: object) -> Entry:
        """Add one that is being processed."""
        entry = self.ledger.move(self.queued(name, sample).id, State.RUNNING, frames_done=0)
        return self._amended(entry, **changes)

    def done(self, name: str, sample: str = "", light: str = "", warnings: str = "", **changes: object) -> Entry:
        """Add one that has a result, and a report if it has a light."""
        entry = self.running(name, sample)
        output = entry.path.removesuffix(".rtdc") + "_dcn"
        self.ledger.finish(entry.id, f"{output}.rtdc", events=1234, seconds=0.5)
        report = f"{output}.html" if light else None
        return self._ended(entry, light=light, warnings=warnings, report=report, **changes)

    def failed(self, name: str, reason: str = "no_images", error: str = "", **changes: object) -> Entry:
        """Add one that cannot be processed."""
        entry = self.queued(name)
        self.ledger.move(entry.id, State.FAILED, reason, error or f"{entry.path}: there are no images")
        return self._ended(entry, **changes)

    def skipped(self, name: str, **changes: object) -> Entry:
        """Add one that needed no work."""
        entry = self.ledger.move(self.queued(name).id, State.SKIPPED, "output_exists")
        return self._ended(entry, **changes)

    def _ended(self, entry: Entry, **changes: object) -> Entry:
        return self._amended(entry, **{"finished_at": FINISHED_AT, **changes})

    def _amended(self, entry: Entry, **changes: object) -> Entry:
        if changes:
            self.ledger.amend(entry.id, **changes)
        return self.ledger.get(entry.id)


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.ledger.close()
