"""Settling: waiting until a file that was found is unchanged for some time, and complete."""

from __future__ import annotations

import asyncio
import sqlite3

from dcnumd.daemon.clock import now
from dcnumd.daemon.folders.hang_guard import in_thread
from dcnumd.daemon.ledger.records import State
from dcnumd.daemon.measurements.inspector import Inspector, incomplete
from dcnumd.daemon.measurements.lifecycle import Lifecycle, one_file
from dcnumd.daemon.measurements.probe import Inspection
from dcnumd.daemon.measurements.results import Results
from dcnumd.daemon.measurements.tracker import Candidate, Found
from dcnumd.errors import MeasurementError
from dcnumd.logic.stamp import Stamp

PATIENCE = 60
"""Number of settle times after which an incomplete file that does not change fails, until it changes."""
MAX_PAUSE_SECONDS = 60.0
"""Delay before the next access to a share that does not answer [s]."""
SLICE = 50
"""Number of new files that are added to the ledger in one transaction."""


class Settling:
    """Receives the files that were found, and passes complete measurements to the lifecycle, which queues them.

    Parameters
    ----------
    lifecycle
        Lifecycle with the tracker of candidates, which records the outcome.
    inspector
        Inspector of files.
    results
        Checks of results that may be missing.
    once
        Whether to skip, instead of waiting for, files that are still being written.
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
        self._to_inspect: asyncio.Queue[Candidate] = asyncio.Queue()

    @property
    def idle(self) -> bool:
        """Whether no file is settling or about to, and no check of results is pending."""
        return not self._tracker.candidates and not self._admitting and self._results.idle

    def offer(self, found: Found) -> None:
        """Receive files and their stamps from a scan; files that are new or have changed begin to settle."""
        if self._tracker.doubted():
            # `retry` or `forget` was called: measurements that wait for another attempt are tried now.
            for waiting in self._tracker.candidates:
                if waiting.repeated and not waiting.busy:
                    self._tracker.reschedule(waiting, 0.0)
        self._results.request_checks(self._tracker.settled(found))
        if not (news := self._tracker.news(found)):
            return
        # Candidates are updated first, not in `keep_admitting`: a recording must suspend running jobs at once.
        for path, stamp in news:
            if candidate := self._tracker.candidate(path):
                self._tracker.note_change(candidate, stamp)
        self._tracker.update_quiet()
        if strangers := [(path, stamp) for path, stamp in news if self._tracker.candidate(path) is None]:
            self._request_admission(strangers)

    def make_again(self, path: str, stamp: Stamp) -> None:
        """Admit a measurement whose result is missing."""
        self._tracker.unsettle(path)
        self._request_admission([(path, stamp)])

    async def all_admitted(self) -> None:
        """Wait until all offered files are candidates, are queued, or are known to need nothing."""
        await self._found.join()

    async def keep_admitting(self) -> None:
        """Decide for each found file, from the ledger and from existing results, what to do; until cancelled."""
        while True:
            found = await self._found.get()
            for start in range(0, len(found), SLICE):
                await self._admit_all(self._tracker.news(found[start : start + SLICE]))
                # Let signals and jobs be handled in between, since there may be very many files.
                await asyncio.sleep(0)
            self._admitting -= 1
            self._found.task_done()
            self._lifecycle.announce()

    async def keep_settling(self) -> None:
        """Check the stat of each candidate when it is due, and request the inspection of unchanged ones."""
        while True:
            await self._tracker.wake.wait()
            self._tracker.wake.clear()
            folders: dict[str, list[Candidate]] = {}
            for candidate in self._tracker.take_due():
                folders.setdefault(candidate.folder, []).append(candidate)
            await asyncio.gather(*(self._check_stats(folder, due) for folder, due in folders.items()))
            self._tracker.update_quiet()

    async def keep_inspecting(self) -> None:
        """Inspect unchanged files, one after the other, and decide what to do with each; until cancelled."""
        while True:
            candidate = await self._to_inspect.get()
            before = candidate.stamp
            try:
                recorded = self._tracker.may_be_result(candidate.path)
                found = await self._inspector.inspect(
                    candidate.path, candidate.stamp.size, recorded=recorded, interrupted=candidate.interrupted
                )
                known = found.content and self._ledger.find(candidate.path, found.content, found.pphash)
                missing = await self._results.to_make(known or None)
            except sqlite3.Error:
                # An error of the ledger is not the fault of a measurement.
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
        """Skip unfinished rows whose file disappeared while it was not tracked.

        `watched` contains the watched folders that are reachable; files in others may still exist.
        """
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

    def _request_admission(self, strangers: list[tuple[str, Stamp]]) -> None:
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
                        self._results.request_checks([(path, stamp)])

    async def _check_stats(self, folder: str, due: list[Candidate]) -> None:
        """Decide from their stat which candidates in one watched folder to inspect."""
        try:
            stamps = await in_thread(folder, _stamps_of, [candidate.path for candidate in due])
        except OSError as error:
            stamps = [error] * len(due)
        with self._ledger.transaction():
            for candidate, stamp in zip(due, stamps, strict=True):
                if not self._tracker.is_waiting(candidate):
                    continue
                if isinstance(stamp, OSError):
                    # If the share does not answer, nothing is known about the file: try again later.
                    self._tracker.reschedule(candidate, candidate.settle_seconds)
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
            self._to_inspect.put_nowait(candidate)

    def _judge(self, candidate: Candidate, found: Inspection, missing: frozenset[str]) -> None:
        """Decide from the result of its inspection what to do with a candidate."""
        candidate.busy = False
        if found.stamp != candidate.stamp:
            self._tracker.note_change(candidate, found.stamp)
        elif found.verdict == "complete":
            try:
                self._lifecycle.settle(candidate, found, missing)
            except KeyError:
                # The row was forgotten meanwhile; the next scan finds the file again.
                self._lifecycle.leave(candidate)
        elif found.verdict == "own_output":
            self._lifecycle.pass_over(candidate)
        else:
            self._wait_on(candidate, found)

    def _wait_on(self, candidate: Candidate, found: Inspection) -> None:
        """Schedule the next inspection of an incomplete file, at growing intervals; refuse it in the end."""
        settle = candidate.settle_seconds
        candidate.open_for_writing = found.verdict == "open_for_writing"
        quiet_seconds = now() - candidate.changed_at
        if self._once and candidate.open_for_writing:
            self._lifecycle.leave_for_next_run(candidate)
        elif candidate.open_for_writing and quiet_seconds > PATIENCE * settle and self._may_be_cut(candidate):
            candidate.interrupted = candidate.busy = True
            self._to_inspect.put_nowait(candidate)
        elif self._once or quiet_seconds > PATIENCE * settle:
            self._refuse(candidate, incomplete(candidate, found, quiet_seconds))
        else:
            candidate.inspections += 1
            self._tracker.note_writing(candidate)
            self._tracker.reschedule(
                candidate, min(settle * 2**candidate.inspections, candidate.settings.watch.rescan_seconds)
            )
            self._lifecycle.note_incomplete(candidate, found.verdict)

    def _may_be_cut(self, candidate: Candidate) -> bool:
        """Return whether to inspect a file again that nobody writes, for the frames that all of its features have."""
        return candidate.settings.watch.interrupted == "process" and not candidate.interrupted

    def _refuse_unless_changed(
        self, candidate: Candidate, before: Stamp, stamp: Stamp | None, error: Exception
    ) -> None:
        """Refuse a candidate, unless the file has changed since its inspection began."""
        candidate.busy = False
        if stamp is not None and stamp != candidate.stamp:
            self._tracker.note_change(candidate, stamp)
        elif candidate.stamp == before:
            self._refuse(candidate, error)
        else:
            # The file changed during the inspection, when `take_due` passed it over if it became due.
            self._tracker.reschedule(candidate, candidate.changed_at + candidate.settle_seconds - now())

    def _refuse(self, candidate: Candidate, error: Exception) -> None:
        if isinstance(error, MeasurementError) and error.reason == "vanished":
            self._lifecycle.drop(candidate)
        elif isinstance(error, MeasurementError) and error.reason == "unreachable":
            # The share does not answer at all, so nothing is known about the file.
            self._tracker.reschedule(candidate, MAX_PAUSE_SECONDS)
        else:
            self._lifecycle.refuse(candidate, error)

    async def _stamp(self, path: str) -> Stamp | None:
        try:
            return await self._tracker.stamp_now(path)
        except OSError:
            return None

    async def _is_absent(self, path: str) -> bool:
        """Return whether a file certainly does not exist."""
        try:
            return await self._tracker.stamp_now(path) is None
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
