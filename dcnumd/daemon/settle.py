"""The gate that every file passes, whoever named it: quiet, complete, sound, and not done already."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import time
import uuid
from collections.abc import Callable, Iterable

import structlog

from dcnumd import __version__
from dcnumd.config import Settings
from dcnumd.daemon.child import Child
from dcnumd.daemon.ledger import Ledger
from dcnumd.daemon.probe import Look, look
from dcnumd.daemon.records import FINAL, Entry, Stamp, State, utc_now
from dcnumd.errors import DcnumdError, MeasurementError

log = structlog.get_logger()

PATIENCE = 60
"""A file that is quiet but incomplete fails after so many settle times; when it changes, it gets another chance."""
LOOK_SECONDS = 60.0
"""A look inside a file takes moments; one that takes so long hangs, on a share that is down for example."""
KILL_SECONDS = 5.0
"""A killed probe is gone after so long, unless its system call cannot be interrupted."""


@dataclasses.dataclass(slots=True)
class Candidate:
    """A file that is waited for. Times are on the monotonic clock."""

    path: str
    stamp: Stamp
    entry_id: int
    changed_at: float
    look_at: float
    grew: bool = False
    """It changed since it was found, so somebody is writing it."""
    open_for_writing: bool = False
    looks: int = 0
    busy: bool = False
    """It is being looked at by the probe."""
    repeated: bool = False
    """It passed before, and is here for another attempt."""


class Gate:
    """Keeps each file until it is complete, then hands its ledger entry on.

    Parameters
    ----------
    settings
        What is complete, and what the pipeline would be.
    ledger
        What is known already.
    probe
        The child process in which files are looked at.
    enqueue
        Receives the entries of measurements that wait for their turn.
    on_leave
        Called whenever a file has left the gate.
    once
        Do not wait for files that are still being written.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        probe: Child,
        enqueue: Callable[[Entry], None],
        on_leave: Callable[[], None],
        *,
        once: bool = False,
    ) -> None:
        self.candidates: dict[str, Candidate] = {}
        self.failures = 0
        """Measurements that failed for good in this run."""
        self.quiet = asyncio.Event()
        """Set while no watched file is being written."""
        self.quiet.set()
        self._settings = settings
        self._ledger = ledger
        self._probe = probe
        self._enqueue = enqueue
        self._on_leave = on_leave
        self._once = once
        self._settings_key = settings_key(settings)
        self._known: dict[str, Stamp] = {}
        self._active: dict[str, Stamp] = {}
        self._version = ledger.data_version()
        self._wake = asyncio.Event()
        self._to_look: asyncio.Queue[Candidate] = asyncio.Queue()
        self._looking = asyncio.Lock()

    def offer(self, found: Iterable[tuple[str, Stamp]]) -> None:
        """Take note of files and their stat; what is new or has changed starts to settle."""
        if (version := self._ledger.data_version()) != self._version:
            # `retry` or `forget` changed the ledger: nothing that was remembered is certain.
            self._version = version
            self._known.clear()
        news = [
            (path, stamp) for path, stamp in found if self._active.get(path) != stamp and self._known.get(path) != stamp
        ]
        if not news:
            return
        with self._ledger.transaction():
            for path, stamp in news:
                if candidate := self.candidates.get(path):
                    self._note_change(candidate, stamp)
                else:
                    self._admit(path, stamp)
        self._wake.set()

    def leave_queue(self, path: str, stamp: Stamp | None = None) -> None:
        """Forget that `path` was queued; with its stamp, remember that it needs no further look."""
        self._active.pop(path, None)
        if stamp is not None:
            self._known[path] = stamp

    def settle_again(self, entry: Entry, reason: str) -> None:
        """Take back a queued or running measurement whose file has changed."""
        with contextlib.suppress(KeyError):
            if self._ledger.get(entry.id).state in FINAL:
                # What is queued under this path is another content, which took its place.
                return
            self._ledger.move(entry.id, State.SETTLING, reason)
            self.leave_queue(entry.path)
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
            self._ledger.move(entry.id, State.FAILED, reason, text, attempts=attempt, settings_key=self._settings_key)
            self.leave_queue(entry.path, entry.stamp)
            return
        self._ledger.move(entry.id, State.QUEUED, reason, text, attempts=attempt)
        self.leave_queue(entry.path)
        self._come_back(entry, self._settings.retry.backoff_seconds * 2 ** (attempt - 1))

    async def keep_settling(self) -> None:
        """Look at each candidate's stat when its time has come, and have the quiet ones looked at."""
        while True:
            self._wake.clear()
            now = time.monotonic()
            due = [c for c in self.candidates.values() if not c.busy and c.look_at <= now]
            if due:
                stamps = await asyncio.to_thread(_stamps_of, [c.path for c in due])
                with self._ledger.transaction():
                    for candidate, stamp in zip(due, stamps, strict=True):
                        if self.candidates.get(candidate.path) is candidate:
                            self._check(candidate, stamp)
            self._update_quiet()
            times = [c.look_at for c in self.candidates.values() if not c.busy]
            timeout = max(0.0, min(times) - time.monotonic()) if times else None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), timeout)

    async def keep_looking(self) -> None:
        """Have the probe look into each quiet file, one after the other, and decide what becomes of it."""
        while True:
            candidate = await self._to_look.get()
            before = candidate.stamp
            try:
                found = await self.look_into(candidate.path)
            except Exception as error:  # noqa: BLE001 -- the boundary of one file: no file may stop the others
                now = await asyncio.to_thread(Stamp.at, candidate.path)
                self._refuse_unless_changed(candidate, before, now, error)
            else:
                self._judge(candidate, found)
            if candidate.grew or candidate.open_for_writing or candidate.path in self.candidates:
                self._wake.set()

    async def look_into(self, path: str) -> Look:
        """Have the probe look into a file, within a time.

        Raises
        ------
        DcnumdError
            What `look` finds wrong, or with the reason ``look_timeout`` that it did not come to an end.
        """
        job = self._settings.job_for(pathlib.Path(path), "")
        # One after the other, so that nobody's time passes while the probe is busy with another file.
        async with self._looking:
            call = asyncio.create_task(self._probe.call(look, job), name=f"look {path}")
            try:
                await asyncio.wait([call], timeout=LOOK_SECONDS)
                if not call.done():
                    self._probe.kill()
                    # The call ends by itself when the process is gone, and then the next one gets a new process.
                    await asyncio.wait([call], timeout=KILL_SECONDS)
                    message = f"{path}: cannot be read: no answer for {LOOK_SECONDS:g} s"
                    raise MeasurementError(message, "look_timeout", transient=True)
                return call.result()
            finally:
                if not call.cancel() and not call.cancelled():
                    # Nobody else asks for what it ended with.
                    call.exception()

    def _admit(self, path: str, stamp: Stamp) -> None:
        """Decide from the ledger alone where a found file goes on."""
        entry = self._ledger.latest(path)
        if entry is not None and entry.stamp == stamp and entry.settings_key == self._settings_key:
            if entry.state is State.FAILED or (
                entry.state in {State.DONE, State.SKIPPED} and entry.output and _may_exist(entry.output)
            ):
                self._known[path] = stamp
                return
            if entry.state is State.QUEUED:
                self._queue(entry)
                return
        if entry is None or entry.content is not None:
            entry = self._ledger.add(path, stamp, uuid.uuid4().hex[:12])
        self._ledger.move(entry.id, State.SETTLING, attempts=0)
        self._ledger.amend(entry.id, stamp=stamp)
        log.info("file.detected", path=path, size=stamp.size)
        self._wait_for(path, stamp, entry.id, self._settings.watch.settle_seconds)

    def _wait_for(self, path: str, stamp: Stamp, entry_id: int, delay: float) -> None:
        now = time.monotonic()
        self.candidates[path] = Candidate(path, stamp, entry_id, changed_at=now, look_at=now + delay)
        self._wake.set()

    def _come_back(self, entry: Entry, delay: float) -> None:
        # A scan may have noticed a change of the file already, and then it settles anew as it is.
        if entry.stamp is not None and entry.path not in self.candidates:
            self._wait_for(entry.path, entry.stamp, entry.id, delay)
            self.candidates[entry.path].repeated = True

    def _note_change(self, candidate: Candidate, stamp: Stamp) -> None:
        if stamp == candidate.stamp:
            return
        candidate.stamp = stamp
        candidate.grew = True
        candidate.looks = 0
        candidate.changed_at = time.monotonic()
        candidate.look_at = candidate.changed_at + self._settings.watch.settle_seconds
        self._ledger.amend(candidate.entry_id, stamp=stamp)

    def _check(self, candidate: Candidate, stamp: Stamp | None) -> None:
        """Decide from the stat whether a candidate is worth a look inside."""
        if stamp is None:
            self._drop(candidate, "vanished")
        elif stamp != candidate.stamp:
            self._note_change(candidate, stamp)
            if self._once:
                self._leave_for_next_run(candidate)
        else:
            candidate.busy = True
            self._to_look.put_nowait(candidate)

    def _judge(self, candidate: Candidate, found: Look) -> None:
        """Decide from a look inside what becomes of a candidate."""
        candidate.busy = False
        if found.stamp != candidate.stamp:
            self._note_change(candidate, found.stamp)
        elif found.verdict == "complete":
            with contextlib.suppress(KeyError):
                self._pass(candidate, found)
                return
            # Its entry was forgotten meanwhile, so the next scan finds it anew.
            self._leave(candidate)
        else:
            self._wait_on(candidate, found)

    def _wait_on(self, candidate: Candidate, found: Look) -> None:
        """Come back to a quiet file that is not complete, less and less often, but not for ever."""
        settle = self._settings.watch.settle_seconds
        candidate.open_for_writing = found.verdict == "open_for_writing"
        quiet_seconds = time.monotonic() - candidate.changed_at
        if self._once and candidate.open_for_writing:
            self._leave_for_next_run(candidate)
        elif self._once or quiet_seconds > PATIENCE * settle:
            self._refuse(candidate, _incomplete(candidate, quiet_seconds))
        else:
            candidate.looks += 1
            pause = min(settle * 2**candidate.looks, self._settings.watch.rescan_seconds)
            candidate.look_at = time.monotonic() + pause
            with contextlib.suppress(KeyError):
                self._ledger.move(candidate.entry_id, State.SETTLING, found.verdict)

    def _pass(self, candidate: Candidate, found: Look) -> None:
        """Hand on a complete measurement, unless it is done."""
        if found.content is None:
            raise ValueError(f"a complete file has a content: {found}")
        with self._ledger.transaction():
            entry = self._ledger.identify(
                self._ledger.get(candidate.entry_id),
                found.content,
                found.ppid,
                found.pphash,
                settings_key=self._settings_key,
                settled_at=utc_now(),
                frames=found.frames,
            )
            if not candidate.repeated:
                log.info("file.settled", path=entry.path, size=found.content.size, frames=found.frames)
            if entry.state is State.RUNNING:
                # Its content is the one being processed: only its stamp is new, and the job's end minds that.
                self._active[entry.path] = candidate.stamp
            elif entry.state is State.DONE and entry.output and _may_exist(entry.output):
                log.info("file.ignored", path=entry.path, reason="already_done", output=entry.output)
                self._known[entry.path] = candidate.stamp
            else:
                attempts = entry.attempts if candidate.repeated else 0
                replace = self._must_replace(entry)
                self._queue(self._ledger.move(entry.id, State.QUEUED, attempts=attempts, replace_output=int(replace)))
            self._close_others(entry)
        self._leave(candidate)

    def _must_replace(self, entry: Entry) -> bool:
        """Return whether the file that lies where the result goes is ours and outdated."""
        output = self._settings.output_for(pathlib.Path(entry.path))
        producer = self._ledger.producer(os.fspath(output))
        outdated = producer is not None and producer.path == entry.path and producer.content != entry.content
        # A content that was replaced before its turn leaves to its successor what it was to replace.
        return outdated or any(row.replace_output for row in self._ledger.entries(path=entry.path))

    def _close_others(self, entry: Entry) -> None:
        """Give up what waited under the same name before: a path has one content at a time."""
        for other in self._ledger.entries(State.SEEN, State.SETTLING, State.QUEUED, path=entry.path):
            if other.id != entry.id:
                self._ledger.move(other.id, State.SKIPPED, "replaced")

    def _queue(self, entry: Entry) -> None:
        if entry.stamp is not None:
            self._active[entry.path] = entry.stamp
        job_log(entry).info("job.queued")
        self._enqueue(entry)

    def _refuse_unless_changed(self, candidate: Candidate, before: Stamp, now: Stamp | None, error: Exception) -> None:
        """Refuse a candidate, unless the verdict is about bytes that are no longer there."""
        if now is not None and now != candidate.stamp:
            self._note_change(candidate, now)
        if candidate.stamp == before:
            self._refuse(candidate, error)
        else:
            candidate.busy = False

    def _refuse(self, candidate: Candidate, error: Exception) -> None:
        candidate.busy = False
        try:
            entry = self._ledger.get(candidate.entry_id)
        except KeyError:
            self._leave(candidate)
            return
        if isinstance(error, MeasurementError) and error.reason == "vanished":
            self._drop(candidate, "vanished")
            return
        self.candidates.pop(candidate.path, None)
        self.fail(entry, error)
        self._on_leave()

    def _drop(self, candidate: Candidate, reason: str) -> None:
        log.info("file.ignored", path=candidate.path, reason=reason)
        with contextlib.suppress(KeyError):
            self._ledger.move(candidate.entry_id, State.SKIPPED, reason)
        self._leave(candidate)

    def _leave_for_next_run(self, candidate: Candidate) -> None:
        log.info("file.ignored", path=candidate.path, reason="still_written")
        self._leave(candidate)

    def _leave(self, candidate: Candidate) -> None:
        if self.candidates.get(candidate.path) is candidate:
            del self.candidates[candidate.path]
        self._on_leave()

    def _update_quiet(self) -> None:
        settle = self._settings.watch.settle_seconds
        now = time.monotonic()
        writing = any(
            candidate.open_for_writing or (candidate.grew and now - candidate.changed_at < settle)
            for candidate in self.candidates.values()
        )
        if writing:
            self.quiet.clear()
        else:
            self.quiet.set()


def job_log(entry: Entry) -> structlog.typing.FilteringBoundLogger:
    """Return a log in which each event names the job of `entry`."""
    bound: structlog.typing.FilteringBoundLogger = log.bind(
        job_id=entry.job_id, path=entry.path, ppid=entry.ppid, pphash=entry.pphash
    )
    return bound


def settings_key(settings: Settings) -> str:
    """Return a short text that changes when another decision about a file is possible."""
    relevant = (__version__, dataclasses.asdict(settings.pipeline), dataclasses.asdict(settings.output))
    return hashlib.sha256(json.dumps(relevant, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _incomplete(candidate: Candidate, quiet_seconds: float) -> MeasurementError:
    if candidate.open_for_writing:
        return MeasurementError(
            f"{candidate.path}: is marked as open for writing, but nobody wrote to it for {quiet_seconds:.0f} s; "
            "if the recording was interrupted, `h5clear -s` on a copy may help",
            "incomplete",
        )
    return MeasurementError(
        f"{candidate.path}: is shorter than it says itself ({candidate.stamp.size} bytes), and nothing was added "
        f"for {quiet_seconds:.0f} s; if it was copied, copy it again",
        "truncated",
    )


def _may_exist(output: str) -> bool:
    """Return whether a result is there; one that cannot be reached just now was not removed."""
    try:
        pathlib.Path(output).stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _stamps_of(paths: list[str]) -> list[Stamp | None]:
    return [Stamp.at(path) for path in paths]
