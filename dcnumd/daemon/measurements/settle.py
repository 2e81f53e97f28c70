"""The gate that every file passes, whoever named it: quiet, complete, sound, and not done already."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator

import structlog

from dcnumd import routing
from dcnumd.config.values import Settings
from dcnumd.daemon.folders.availability import Availability
from dcnumd.daemon.folders.threads import in_thread
from dcnumd.daemon.ledger.records import FINAL, TRANSITIONS, Entry, State, job_log, settings_key, utc_now
from dcnumd.daemon.ledger.store import Ledger
from dcnumd.daemon.measurements.backoff import backoff_seconds
from dcnumd.daemon.measurements.candidates import Candidate, Candidates
from dcnumd.daemon.measurements.inspector import Inspector, incomplete
from dcnumd.daemon.measurements.known import Found, KnownFiles
from dcnumd.daemon.measurements.probe import Look
from dcnumd.daemon.measurements.results import Results
from dcnumd.errors import DcnumdError, MeasurementError
from dcnumd.logic.stamp import Stamp

log = structlog.get_logger()

PATIENCE = 60
"""Number of settle times after which a quiet, incomplete file fails; when it changes, it is looked at again."""
MAX_PAUSE_SECONDS = 60.0
"""Time until a share that does not answer is asked again [s]."""
SLICE = 50
"""Number of new files that are written to the ledger in one transaction."""


class Gate:
    """Keeps each file until it is complete, then hands its ledger entry on.

    Parameters
    ----------
    settings
        What is complete, and what the pipeline would be.
    ledger
        What is known already.
    inspector
        Looks inside files.
    availability
        Whether results are there.
    enqueue
        Receives the entries of measurements that wait for their turn.
    on_leave
        Called whenever a file has left the gate.
    on_failure
        Called with the reason whenever a measurement has failed for good.
    once
        Do not wait for files that are still being written.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        inspector: Inspector,
        availability: Availability,
        enqueue: Callable[[Entry], None],
        on_leave: Callable[[], None],
        on_failure: Callable[[str], None],
        *,
        once: bool = False,
    ) -> None:
        self.candidates = Candidates()
        self.results = Results(settings, ledger, availability, self._make_again, on_leave)
        self.failures = 0
        """Measurements that failed for good in this run."""
        self.quiet = asyncio.Event()
        """Set while no watched file is being written."""
        self.quiet.set()
        self.written = asyncio.Event()
        """Set while one is."""
        self._settings = settings
        self._ledger = ledger
        self._inspector = inspector
        self._enqueue = enqueue
        self._on_leave = on_leave
        self._on_failure = on_failure
        self._once = once
        self._keys = {id(group): settings_key(group) for group in (settings, *settings.groups)}
        self._known = KnownFiles(settings, ledger)
        self._wake = asyncio.Event()
        self._admitting = 0
        self._found: asyncio.Queue[list[tuple[str, Stamp]]] = asyncio.Queue()
        self._to_look: asyncio.Queue[Candidate] = asyncio.Queue()

    @property
    def idle(self) -> bool:
        """Whether no file is waited for."""
        return not self.candidates and not self._admitting and self.results.idle

    def doubt(self) -> None:
        """Look at all files anew when they are offered next: rows were changed on somebody's wish."""
        self._known.doubt()

    def offer(self, found: Found) -> None:
        """Take note of files and their stat; what is new or has changed starts to settle."""
        if self._known.doubted():
            # `retry` or `forget` was called: who waits for another attempt has it now.
            for waiting in self.candidates:
                if waiting.repeated and not waiting.busy:
                    self.candidates.look_at(waiting, time.monotonic())
            self._wake.set()
        self.results.look_for(self._known.settled(found))
        if not (news := self._known.news(found)):
            return
        # What is waited for already must not wait for the others: a recording stops the work at once.
        for path, stamp in news:
            if candidate := self.candidates.get(path):
                self._note_change(candidate, stamp)
        self._update_quiet()
        self._wake.set()
        if strangers := [(path, stamp) for path, stamp in news if path not in self.candidates]:
            self._have_admitted(strangers)

    def _have_admitted(self, strangers: list[tuple[str, Stamp]]) -> None:
        self._admitting += 1
        self._found.put_nowait(strangers)

    def _make_again(self, path: str, stamp: Stamp) -> None:
        """Take up a measurement whose result is gone."""
        self._known.unsettle(path)
        self._have_admitted([(path, stamp)])

    def leave_queue(self, path: str, stamp: Stamp | None = None, *, comes_back: bool = False) -> None:
        """Forget that `path` was queued; with its stamp, remember that it needs no further look."""
        self._known.leave(path, comes_back=comes_back)
        if stamp is not None:
            self._known.note_settled(path, stamp)
        candidate = self.candidates.get(path)
        if candidate is not None and self._has_ended(candidate):
            self._leave(candidate)

    def settle_again(self, entry: Entry, reason: str) -> None:
        """Take back a queued or running measurement whose file has changed."""
        with contextlib.suppress(KeyError):
            if self._ledger.get(entry.id).state in FINAL:
                # What is queued under this path is another content, which took its place.
                return
            self._ledger.move(entry.id, State.SETTLING, reason)
            self.leave_queue(entry.path, comes_back=True)
            self._come_back(entry, 0.0)

    def fail(self, entry: Entry, error: Exception) -> None:
        """Record and report a failed attempt; come back to it later if the fault may pass."""
        attempt = entry.attempts + 1
        foreseen = isinstance(error, DcnumdError)
        reason = error.reason if isinstance(error, DcnumdError) else "internal"
        transient = error.transient if isinstance(error, DcnumdError) else False
        will_retry = transient and attempt < self._settings.retry.attempts
        # Only a bug needs a traceback; a foreseen fault says what and where itself.
        job_log(entry).error(
            "job.failed",
            reason=reason,
            error=str(error),
            error_type=type(error).__name__,
            attempt=attempt,
            will_retry=will_retry,
            **({} if foreseen else {"exc_info": error}),
        )
        text = str(error) or type(error).__name__
        if not will_retry:
            self.failures += 1
            key = self._key(self._group(entry.path))
            self._ledger.move(entry.id, State.FAILED, reason, text, attempts=attempt, settings_key=key)
            self.leave_queue(entry.path, entry.stamp)
            self._on_failure(reason)
            return
        self._ledger.move(entry.id, State.QUEUED, reason, text, attempts=attempt)
        self.leave_queue(entry.path, comes_back=True)
        self._come_back(entry, backoff_seconds(self._settings.retry, attempt))

    def lose(self, path: str, entry_id: int | None, error: Exception) -> None:
        """Record a mistake of dcnumd itself, which costs this file and nobody else; it is left alone until it changes.

        Parameters
        ----------
        path
            The file.
        entry_id
            Its row, if that is known; else the latest one of `path`.
        error
            The mistake; none if the row was forgotten meanwhile.
        """
        candidate = self.candidates.get(path)
        if candidate is not None and entry_id in (None, candidate.entry_id):
            self.candidates.remove(candidate)
            self._ledger.amend(candidate.entry_id, stamp=candidate.stamp)
        self.leave_queue(path)
        with contextlib.suppress(KeyError):
            entry = self._ledger.latest(path) if entry_id is None else self._ledger.get(entry_id)
            if entry is not None and State.FAILED in TRANSITIONS[entry.state]:
                self.fail(entry, error)
            elif entry is not None:
                attempt, kind = entry.attempts + 1, type(error).__name__
                what = {"reason": "internal", "error": str(error), "error_type": kind, "attempt": attempt}
                job_log(entry).error("job.failed", **what, will_retry=False, exc_info=error)
                self.leave_queue(path, entry.stamp)
        self._on_leave()

    async def keep_admitting(self) -> None:
        """Decide from the ledger, and from which results are there, where each found file goes on."""
        while True:
            found = await self._found.get()
            for start in range(0, len(found), SLICE):
                await self._admit_all(self._known.news(found[start : start + SLICE]))
                # However many there are, signals and jobs do not wait for them.
                await asyncio.sleep(0)
            self._admitting -= 1
            self._found.task_done()
            self._wake.set()
            self._on_leave()

    async def keep_settling(self) -> None:
        """Look at each candidate's stat when its time has come, and have the quiet ones looked at."""
        while True:
            self._wake.clear()
            folders: dict[str, list[Candidate]] = {}
            for candidate in self.candidates.due(time.monotonic()):
                folders.setdefault(candidate.folder, []).append(candidate)
            await asyncio.gather(*(self._look_at_stats(folder, due) for folder, due in folders.items()))
            self._update_quiet()
            moment = self.candidates.next_time()
            timeout = None if moment is None else max(0.0, moment - time.monotonic())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._wake.wait()

    async def keep_looking(self) -> None:
        """Have the probe look into each quiet file, one after the other, and decide what becomes of it."""
        while True:
            candidate = await self._to_look.get()
            before = candidate.stamp
            try:
                recorded = self._known.may_be_result(candidate.path)
                found = await self._inspector.look_into(candidate.path, candidate.stamp.size, recorded=recorded)
                known = found.content and self._ledger.find(candidate.path, found.content, found.pphash)
                missing = await self.results.to_make(known or None)
            except sqlite3.Error:
                # No measurement is to blame for the ledger.
                raise
            except Exception as error:  # noqa: BLE001 -- the boundary of one file: no file may stop the others
                now = await self._stamp(candidate.path)
                with self._one_file(candidate.path, candidate.entry_id):
                    self._refuse_unless_changed(candidate, before, now, error)
            else:
                with self._one_file(candidate.path, candidate.entry_id):
                    self._judge(candidate, found, missing)
            self._wake.set()

    async def close_vanished(self, watched: Callable[[str], bool]) -> None:
        """Close rows of files that went away while nobody looked; `watched` says whether a folder can be seen."""
        rows = self._ledger.entries(State.SEEN, State.SETTLING, State.QUEUED)
        absent = [row for row in rows if row.path not in self.candidates and row.path not in self._known]
        for row in absent:
            folder = self._settings.watched_folder_of(pathlib.Path(row.path))
            if folder is None or (watched(str(folder)) and await self._is_absent(row.path)):
                reason = "vanished" if folder is not None else "not_watched"
                log.info("file.ignored", path=row.path, reason=reason)
                with contextlib.suppress(KeyError, ValueError):
                    self._ledger.move(row.id, State.SKIPPED, reason)
                self._known.leave(row.path)

    @contextlib.contextmanager
    def _one_file(self, path: str, entry_id: int | None = None) -> Iterator[None]:
        """Have whatever goes wrong with one file in this block stop no other, nor the daemon."""
        try:
            yield
        except sqlite3.Error:
            # No measurement is to blame for the ledger.
            raise
        except Exception as error:  # noqa: BLE001 -- the boundary of one file
            self.lose(path, entry_id, error)

    def _has_ended(self, candidate: Candidate) -> bool:
        """Return whether there is nothing to wait for, since its row has come to an end or was forgotten."""
        try:
            return self._ledger.get(candidate.entry_id).state in FINAL
        except KeyError:
            return True

    def _group(self, path: str) -> Settings:
        return self._settings.group_of(pathlib.Path(path)) if self._settings.several else self._settings

    def _key(self, group: Settings) -> str:
        return self._keys[id(group)]

    def _folder_of(self, path: str) -> str:
        return os.fspath(self._settings.watched_folder_of(pathlib.Path(path)) or pathlib.Path(path).parent)

    async def _stamp(self, path: str) -> Stamp | None:
        try:
            return await in_thread(self._folder_of(path), Stamp.at, path)
        except OSError:
            return None

    async def _is_absent(self, path: str) -> bool:
        """Return whether there certainly is no such file."""
        try:
            return await in_thread(self._folder_of(path), Stamp.at, path) is None
        except OSError:
            return False

    async def _admit_all(self, found: list[tuple[str, Stamp]]) -> None:
        entries = {path: self._ledger.latest(path) for path, _ in found}
        missing = await self.results.to_make(*entries.values())
        with self._ledger.transaction():
            for path, stamp in self._known.news(found):
                if candidate := self.candidates.get(path):
                    self._note_change(candidate, stamp)
                else:
                    with self._one_file(path):
                        self._admit(path, stamp, missing)

    def _admit(self, path: str, stamp: Stamp, missing: frozenset[str]) -> None:
        """Decide from the ledger where a found file goes on."""
        group = self._group(path)
        entry = self._ledger.latest(path)
        if entry is not None and entry.stamp == stamp and entry.settings_key == self._key(group):
            own_output = entry.state is State.SKIPPED and entry.reason == "own_output"
            has_output = entry.state in {State.DONE, State.SKIPPED} and entry.output and entry.output not in missing
            if entry.state is State.FAILED or own_output or has_output:
                self._known.note_settled(path, stamp)
                self.results.look_for([(path, stamp)])
                return
            if entry.state is State.QUEUED:
                self._queue(entry)
                return
        if entry is None or entry.content is not None:
            entry = self._ledger.add(path, stamp, uuid.uuid4().hex[:12])
        self._ledger.move(entry.id, State.SETTLING, attempts=0)
        self._ledger.amend(entry.id, stamp=stamp)
        log.info("file.detected", path=path, size=stamp.size)
        self._wait_for(path, stamp, entry.id, group.watch.settle_seconds)

    def _wait_for(self, path: str, stamp: Stamp, entry_id: int, delay: float) -> Candidate:
        now = time.monotonic()
        folder, group = self._folder_of(path), self._group(path)
        candidate = Candidate(path, stamp, entry_id, folder, group, changed_at=now, look_at=now + delay)
        self.candidates.add(candidate)
        self._wake.set()
        return candidate

    def _come_back(self, entry: Entry, delay: float) -> None:
        # A scan may have noticed a change of the file already, and then it settles anew as it is.
        if entry.stamp is not None and entry.path not in self.candidates:
            self._wait_for(entry.path, entry.stamp, entry.id, delay).repeated = True

    def _note_change(self, candidate: Candidate, stamp: Stamp) -> None:
        # The ledger learns of it when the file is quiet: a recording changes many times a second.
        if stamp == candidate.stamp:
            return
        candidate.stamp = stamp
        candidate.grew = True
        candidate.looks = 0
        candidate.changed_at = time.monotonic()
        self.candidates.note_writing(candidate)
        self.candidates.look_at(candidate, candidate.changed_at + candidate.settle_seconds)

    async def _look_at_stats(self, folder: str, due: list[Candidate]) -> None:
        """Decide from the stat whether candidates in one watched folder are worth a look inside."""
        try:
            stamps = await in_thread(folder, _stamps_of, [candidate.path for candidate in due])
        except OSError as error:
            stamps = [error] * len(due)
        with self._ledger.transaction():
            for candidate, stamp in zip(due, stamps, strict=True):
                if self.candidates.get(candidate.path) is not candidate:
                    continue
                if isinstance(stamp, OSError):
                    # A share that does not answer says nothing about its files.
                    self.candidates.look_at(candidate, time.monotonic() + candidate.settle_seconds)
                else:
                    with self._one_file(candidate.path, candidate.entry_id):
                        self._check(candidate, stamp)

    def _check(self, candidate: Candidate, stamp: Stamp | None) -> None:
        if stamp is None:
            self._drop(candidate, "vanished")
        elif stamp != candidate.stamp:
            self._note_change(candidate, stamp)
            if self._once:
                self._leave_for_next_run(candidate)
        elif not candidate.busy:
            candidate.busy = True
            self._to_look.put_nowait(candidate)

    def _judge(self, candidate: Candidate, found: Look, missing: frozenset[str]) -> None:
        """Decide from a look inside what becomes of a candidate."""
        candidate.busy = False
        if found.stamp != candidate.stamp:
            self._note_change(candidate, found.stamp)
        elif found.verdict == "complete":
            with contextlib.suppress(KeyError):
                self._pass(candidate, found, missing)
                return
            # Its entry was forgotten meanwhile, so the next scan finds it anew.
            self._leave(candidate)
        elif found.verdict == "own_output":
            self._pass_over(candidate)
        else:
            self._wait_on(candidate, found)

    def _wait_on(self, candidate: Candidate, found: Look) -> None:
        """Come back to a quiet file that is not complete, less and less often, but not for ever."""
        settle = candidate.settle_seconds
        candidate.open_for_writing = found.verdict == "open_for_writing"
        quiet_seconds = time.monotonic() - candidate.changed_at
        if self._once and candidate.open_for_writing:
            self._leave_for_next_run(candidate)
        elif self._once or quiet_seconds > PATIENCE * settle:
            self._refuse(candidate, incomplete(candidate, found, quiet_seconds))
        else:
            candidate.looks += 1
            self.candidates.note_writing(candidate)
            pause = min(settle * 2**candidate.looks, candidate.settings.watch.rescan_seconds)
            self.candidates.look_at(candidate, time.monotonic() + pause)
            with contextlib.suppress(KeyError):
                self._ledger.amend(candidate.entry_id, stamp=candidate.stamp)
                self._ledger.move(candidate.entry_id, State.SETTLING, found.verdict)

    def _pass(self, candidate: Candidate, found: Look, missing: frozenset[str]) -> None:
        """Hand on a complete measurement, unless it is done."""
        if found.content is None:
            raise ValueError(f"a complete file has a content: {found}")
        with self._ledger.transaction():
            self._ledger.amend(candidate.entry_id, stamp=candidate.stamp)
            entry = self._ledger.identify(
                self._ledger.get(candidate.entry_id),
                found.content,
                found.ppid,
                found.pphash,
                settings_key=self._key(candidate.settings),
                settled_at=utc_now(),
                frames=found.frames,
                sample=found.sample,
            )
            if not candidate.repeated:
                log.info("file.settled", path=entry.path, size=found.content.size, frames=found.frames)
            if entry.state is State.RUNNING:
                # Its content is the one being processed: only its stamp is new, and the job's end minds that.
                self._known.note_active(entry.path, candidate.stamp)
            elif entry.state is State.DONE and entry.output and entry.output not in missing:
                log.info("file.ignored", path=entry.path, reason="already_done", output=entry.output)
                self._known.note_settled(entry.path, candidate.stamp)
            else:
                attempts = entry.attempts if candidate.repeated else 0
                replace = self._must_replace(entry)
                self._queue(self._ledger.move(entry.id, State.QUEUED, attempts=attempts, replace_output=int(replace)))
            self._ledger.close_others(entry)
        self._leave(candidate)

    def _pass_over(self, candidate: Candidate) -> None:
        """Leave a result that was made here alone until it changes: it is no measurement."""
        log.info("file.ignored", path=candidate.path, reason="own_output")
        with self._ledger.transaction():
            key = self._key(candidate.settings)
            self._ledger.amend(candidate.entry_id, stamp=candidate.stamp, settings_key=key)
            self._ledger.close_others(self._ledger.move(candidate.entry_id, State.SKIPPED, "own_output"))
        self._known.note_settled(candidate.path, candidate.stamp)
        self._leave(candidate)

    def _must_replace(self, entry: Entry) -> bool:
        """Return whether the file that lies where the result goes is ours and outdated."""
        producer = self._ledger.producer(str(routing.output_for(self._settings, pathlib.Path(entry.path))))
        outdated = producer is not None and producer.path == entry.path and producer.content != entry.content
        # A content that was replaced before its turn leaves to its successor what it was to replace.
        return outdated or any(row.replace_output for row in self._ledger.entries(path=entry.path))

    def _queue(self, entry: Entry) -> None:
        if entry.stamp is not None:
            self._known.note_active(entry.path, entry.stamp)
        job_log(entry).info("job.queued")
        self._enqueue(entry)

    def _refuse_unless_changed(self, candidate: Candidate, before: Stamp, now: Stamp | None, error: Exception) -> None:
        """Refuse a candidate, unless the verdict is about bytes that are no longer there."""
        candidate.busy = False
        if now is not None and now != candidate.stamp:
            self._note_change(candidate, now)
        elif candidate.stamp == before:
            self._refuse(candidate, error)
        else:
            self.candidates.look_at(candidate, candidate.look_at)

    def _refuse(self, candidate: Candidate, error: Exception) -> None:
        if isinstance(error, MeasurementError) and error.reason == "vanished":
            self._drop(candidate, "vanished")
            return
        if isinstance(error, MeasurementError) and error.reason == "unreachable":
            # The share does not answer at all, so there is no verdict about the file.
            self.candidates.look_at(candidate, time.monotonic() + MAX_PAUSE_SECONDS)
            return
        try:
            self._ledger.amend(candidate.entry_id, stamp=candidate.stamp)
            entry = self._ledger.get(candidate.entry_id)
        except KeyError:
            self._leave(candidate)
            return
        self.candidates.remove(candidate)
        self.fail(entry, error)
        self._on_leave()

    def _drop(self, candidate: Candidate, reason: str) -> None:
        log.info("file.ignored", path=candidate.path, reason=reason)
        with contextlib.suppress(KeyError):
            self._ledger.move(candidate.entry_id, State.SKIPPED, reason)
        if candidate.path not in self._known:
            self._known.leave(candidate.path)
        self._leave(candidate)

    def _leave_for_next_run(self, candidate: Candidate) -> None:
        log.info("file.ignored", path=candidate.path, reason="still_written")
        self._leave(candidate)

    def _leave(self, candidate: Candidate) -> None:
        self.candidates.remove(candidate)
        self._on_leave()

    def _update_quiet(self) -> None:
        if self.candidates.written() is None:
            self.written.clear()
            self.quiet.set()
        else:
            self.quiet.clear()
            self.written.set()


def _stamps_of(paths: list[str]) -> list[Stamp | OSError | None]:
    stamps: list[Stamp | OSError | None] = []
    for path in paths:
        try:
            stamps.append(Stamp.at(path))
        except OSError as error:
            stamps.append(error)
    return stamps
