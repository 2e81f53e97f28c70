"""Settling: a file that was found is waited for until it is quiet, complete and sound."""

from __future__ import annotations

import asyncio
import sqlite3

from dcnumd.daemon.clock import now
from dcnumd.daemon.folders.hang_guard import in_thread
from dcnumd.daemon.ledger.records import State
from dcnumd.daemon.measurements.inspector import Inspector, incomplete
from dcnumd.daemon.measurements.lifecycle import Lifecycle, one_file
from dcnumd.daemon.measurements.probe import Look
from dcnumd.daemon.measurements.results import Results
from dcnumd.daemon.measurements.tracker import Candidate, Found
from dcnumd.errors import MeasurementError
from dcnumd.logic.stamp import Stamp

PATIENCE = 60
"""Number of settle times after which a quiet, incomplete file fails; when it changes, it is looked at again."""
MAX_PAUSE_SECONDS = 60.0
"""Time until a share that does not answer is asked again [s]."""
SLICE = 50
"""Number of new files that are written to the ledger in one transaction."""


class Settling:
    """Takes what was found, and hands complete measurements to the lifecycle, which queues them.

    Parameters
    ----------
    lifecycle
        Knows what is waited for, and records what becomes of it.
    inspector
        Looks inside files.
    results
        Knows which results are gone and are to be made again.
    once
        Do not wait for files that are still being written.
    """

    def __init__(self, lifecycle: Lifecycle, inspector: Inspector, results: Results, *, once: bool = False) -> None:
        self._lifecycle = lifecycle
        self._tracker = lifecycle.tracker
        self._ledger = lifecycle.ledger
        self._inspector = inspector
        self._results = results
        self._once = once
        self._admitting = 0
        self._found: asyncio.Queue[list[tuple[str, Stamp]]] = asyncio.Queue()
        self._to_look: asyncio.Queue[Candidate] = asyncio.Queue()

    @property
    def idle(self) -> bool:
        """Whether no file is waited for."""
        return not self._tracker.candidates and not self._admitting and self._results.idle

    def offer(self, found: Found) -> None:
        """Take note of files and their stat; what is new or has changed starts to settle."""
        if self._tracker.doubted():
            # `retry` or `forget` was called: who waits for another attempt has it now.
            for waiting in self._tracker.candidates:
                if waiting.repeated and not waiting.busy:
                    self._tracker.look_after(waiting, 0.0)
        self._results.look_for(self._tracker.settled(found))
        if not (news := self._tracker.news(found)):
            return
        # What is waited for already must not wait for the others: a recording stops the work at once.
        for path, stamp in news:
            if candidate := self._tracker.candidate(path):
                self._tracker.note_change(candidate, stamp)
        self._tracker.update_quiet()
        if strangers := [(path, stamp) for path, stamp in news if self._tracker.candidate(path) is None]:
            self._have_admitted(strangers)

    def make_again(self, path: str, stamp: Stamp) -> None:
        """Take up a measurement whose result is gone."""
        self._tracker.unsettle(path)
        self._have_admitted([(path, stamp)])

    async def all_admitted(self) -> None:
        """Wait until everything that was offered is waited for, queued or known to need nothing."""
        await self._found.join()

    async def keep_admitting(self) -> None:
        """Decide from the ledger, and from which results are there, where each found file goes on."""
        while True:
            found = await self._found.get()
            for start in range(0, len(found), SLICE):
                await self._admit_all(self._tracker.news(found[start : start + SLICE]))
                # However many there are, signals and jobs do not wait for them.
                await asyncio.sleep(0)
            self._admitting -= 1
            self._found.task_done()
            self._lifecycle.announce()

    async def keep_settling(self) -> None:
        """Look at each candidate's stat when its time has come, and have the quiet ones looked at."""
        while True:
            await self._tracker.wake.wait()
            self._tracker.wake.clear()
            folders: dict[str, list[Candidate]] = {}
            for candidate in self._tracker.take_due():
                folders.setdefault(candidate.folder, []).append(candidate)
            await asyncio.gather(*(self._look_at_stats(folder, due) for folder, due in folders.items()))
            self._tracker.update_quiet()

    async def keep_looking(self) -> None:
        """Have the probe look into each quiet file, one after the other, and decide what becomes of it."""
        while True:
            candidate = await self._to_look.get()
            before = candidate.stamp
            try:
                recorded = self._tracker.may_be_result(candidate.path)
                found = await self._inspector.look_into(candidate.path, candidate.stamp.size, recorded=recorded)
                known = found.content and self._ledger.find(candidate.path, found.content, found.pphash)
                missing = await self._results.to_make(known or None)
            except sqlite3.Error:
                # No measurement is to blame for the ledger.
                raise
            except Exception as error:  # noqa: BLE001 -- the boundary of one file: no file may stop the others
                stamp = await self._stamp(candidate.path)
                with one_file(self._lifecycle, candidate.path, candidate.entry_id):
                    self._refuse_unless_changed(candidate, before, stamp, error)
            else:
                with one_file(self._lifecycle, candidate.path, candidate.entry_id):
                    self._judge(candidate, found, missing)
            self._tracker.update_quiet()

    async def close_vanished(self, watched: frozenset[str]) -> None:
        """Close rows of files that went away while nobody looked; `watched` are the folders that can be seen."""
        rows = self._ledger.entries(State.SEEN, State.SETTLING, State.QUEUED)
        absent = [
            row for row in rows if self._tracker.candidate(row.path) is None and not self._tracker.is_active(row.path)
        ]
        for row in absent:
            folder = self._tracker.watched_folder_of(row.path)
            if folder is None:
                self._lifecycle.close(row, "not_watched")
            elif folder in watched and await self._is_absent(row.path):
                self._lifecycle.close(row, "vanished")

    def _have_admitted(self, strangers: list[tuple[str, Stamp]]) -> None:
        self._admitting += 1
        self._found.put_nowait(strangers)

    async def _admit_all(self, found: list[tuple[str, Stamp]]) -> None:
        entries = {path: self._ledger.latest(path) for path, _ in found}
        missing = await self._results.to_make(*entries.values())
        with self._ledger.transaction():
            for path, stamp in self._tracker.news(found):
                if candidate := self._tracker.candidate(path):
                    self._tracker.note_change(candidate, stamp)
                    continue
                with one_file(self._lifecycle, path):
                    if self._lifecycle.admit(path, stamp, missing):
                        self._results.look_for([(path, stamp)])

    async def _look_at_stats(self, folder: str, due: list[Candidate]) -> None:
        """Decide from the stat whether candidates in one watched folder are worth a look inside."""
        try:
            stamps = await in_thread(folder, _stamps_of, [candidate.path for candidate in due])
        except OSError as error:
            stamps = [error] * len(due)
        with self._ledger.transaction():
            for candidate, stamp in zip(due, stamps, strict=True):
                if not self._tracker.is_waiting(candidate):
                    continue
                if isinstance(stamp, OSError):
                    # A share that does not answer says nothing about its files.
                    self._tracker.look_after(candidate, candidate.settle_seconds)
                else:
                    with one_file(self._lifecycle, candidate.path, candidate.entry_id):
                        self._check(candidate, stamp)

    def _check(self, candidate: Candidate, stamp: Stamp | None) -> None:
        if stamp is None:
            self._lifecycle.drop(candidate)
        elif stamp != candidate.stamp:
            self._tracker.note_change(candidate, stamp)
            if self._once:
                self._lifecycle.leave_for_next_run(candidate)
        elif not candidate.busy:
            candidate.busy = True
            self._to_look.put_nowait(candidate)

    def _judge(self, candidate: Candidate, found: Look, missing: frozenset[str]) -> None:
        """Decide from a look inside what becomes of a candidate."""
        candidate.busy = False
        if found.stamp != candidate.stamp:
            self._tracker.note_change(candidate, found.stamp)
        elif found.verdict == "complete":
            try:
                self._lifecycle.settle(candidate, found, missing)
            except KeyError:
                # Its entry was forgotten meanwhile, so the next scan finds it anew.
                self._lifecycle.leave(candidate)
        elif found.verdict == "own_output":
            self._lifecycle.pass_over(candidate)
        else:
            self._wait_on(candidate, found)

    def _wait_on(self, candidate: Candidate, found: Look) -> None:
        """Come back to a quiet file that is not complete, less and less often, but not for ever."""
        settle = candidate.settle_seconds
        candidate.open_for_writing = found.verdict == "open_for_writing"
        quiet_seconds = now() - candidate.changed_at
        if self._once and candidate.open_for_writing:
            self._lifecycle.leave_for_next_run(candidate)
        elif self._once or quiet_seconds > PATIENCE * settle:
            self._refuse(candidate, incomplete(candidate, found, quiet_seconds))
        else:
            candidate.looks += 1
            self._tracker.note_writing(candidate)
            self._tracker.look_after(
                candidate, min(settle * 2**candidate.looks, candidate.settings.watch.rescan_seconds)
            )
            self._lifecycle.note_incomplete(candidate, found.verdict)

    def _refuse_unless_changed(
        self, candidate: Candidate, before: Stamp, stamp: Stamp | None, error: Exception
    ) -> None:
        """Refuse a candidate, unless the verdict is about bytes that are no longer there."""
        candidate.busy = False
        if stamp is not None and stamp != candidate.stamp:
            self._tracker.note_change(candidate, stamp)
        elif candidate.stamp == before:
            self._refuse(candidate, error)
        else:
            # It changed during the look, in which its time may have come without being heeded.
            self._tracker.look_after(candidate, candidate.changed_at + candidate.settle_seconds - now())

    def _refuse(self, candidate: Candidate, error: Exception) -> None:
        if isinstance(error, MeasurementError) and error.reason == "vanished":
            self._lifecycle.drop(candidate)
        elif isinstance(error, MeasurementError) and error.reason == "unreachable":
            # The share does not answer at all, so there is no verdict about the file.
            self._tracker.look_after(candidate, MAX_PAUSE_SECONDS)
        else:
            self._lifecycle.refuse(candidate, error)

    async def _stamp(self, path: str) -> Stamp | None:
        try:
            return await in_thread(self._tracker.folder_of(path), Stamp.at, path)
        except OSError:
            return None

    async def _is_absent(self, path: str) -> bool:
        """Return whether there certainly is no such file."""
        try:
            return await in_thread(self._tracker.folder_of(path), Stamp.at, path) is None
        except OSError:
            return False


def _stamps_of(paths: list[str]) -> list[Stamp | OSError | None]:
    stamps: list[Stamp | OSError | None] = []
    for path in paths:
        try:
            stamps.append(Stamp.at(path))
        except OSError as error:
            stamps.append(error)
    return stamps
