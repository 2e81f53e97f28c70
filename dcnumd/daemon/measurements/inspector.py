"""Inspection of files by the probe process, one at a time and with a time limit, and the errors that result."""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib
from collections.abc import Callable
from typing import ParamSpec, TypeVar, assert_never

from dcnumd import routing
from dcnumd.config.values import Settings
from dcnumd.daemon.measurements.probe import Inspection, inspect_file
from dcnumd.daemon.measurements.tracker import Candidate
from dcnumd.errors import MeasurementError
from dcnumd.processes.child import Child
from dcnumd.words import duration

P = ParamSpec("P")
R = TypeVar("R")

INSPECTION_SECONDS = 60.0
"""Time limit of the inspection of a file [s], besides the time to read it; a share that is down would block it."""
INSPECTION_BYTES_PER_SECOND = 20e6
"""Speed of a slow share [bytes/s]; a file without checksums may have to be read completely."""
KILL_SECONDS = 5.0
"""Time to wait for a killed probe to end [s]; a process in an uninterruptible system call does not end."""


class Inspector:
    """Inspects files in the probe process.

    Parameters
    ----------
    settings
        Settings that determine the pipeline of each file.
    probe
        The process in which files are opened.
    """

    def __init__(self, settings: Settings, probe: Child) -> None:
        self._settings = settings
        self._probe = probe
        self._busy = asyncio.Lock()

    async def inspect(self, path: str, size: int, *, recorded: bool = False, interrupted: bool = False) -> Inspection:
        """Inspect a file in the probe process, within a time limit that depends on its size.

        Parameters
        ----------
        path, size
            Path of the file, and its size [bytes].
        recorded
            Whether the ledger lists the file as the result of a measurement.
        interrupted
            Whether the frames that all features have count if the file is open for writing.

        Raises
        ------
        DcnumdError
            If `inspect_file` raises it. The reason is ``look_timeout`` if the inspection exceeded its time limit, and
            ``unreachable`` if in addition the probe could not be killed.
        """
        job = routing.watched_job_for(self._settings, pathlib.Path(path), "")
        job = dataclasses.replace(job, interrupted=interrupted)
        seconds = INSPECTION_SECONDS + size / INSPECTION_BYTES_PER_SECOND
        return await self._call(seconds, path, inspect_file, job, recorded=recorded)

    async def have(self, path: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function in the probe process, within the time limit for an empty file.

        Parameters
        ----------
        path
            The path that the function accesses; it is named in errors.
        function, args, kwargs
            The function and its arguments.

        Raises
        ------
        DcnumdError
            As for `inspect`.
        """
        return await self._call(INSPECTION_SECONDS, path, function, *args, **kwargs)

    async def _call(self, seconds: float, path: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        # The lock is taken before the clock starts, so that a file's time does not pass while it waits for the probe.
        async with self._busy:
            call = asyncio.create_task(self._probe.call(function, *args, **kwargs), name=f"inspect {path}")
            try:
                await asyncio.wait([call], timeout=seconds)
                if not call.done():
                    await self._end(call, path, seconds)
                return call.result()
            finally:
                # This also prevents asyncio from warning about an exception that was never retrieved.
                call.cancel()

    async def _end(self, call: asyncio.Task[R], path: str, seconds: float) -> None:
        """Kill the probe during a call that hangs, and raise the error for the file."""
        self._probe.kill()
        # The call ends when the process has ended, and the next call starts a new process.
        await asyncio.wait([call], timeout=KILL_SECONDS)
        message = f"{path}: cannot be read: no answer for {duration(seconds)}"
        if call.done():
            raise MeasurementError(message, "look_timeout")
        self._probe.abandon()
        raise MeasurementError(message, "unreachable")


def incomplete(candidate: Candidate, found: Inspection, quiet_seconds: float) -> MeasurementError:
    """Return the error for a file that has not become complete, with advice on what to do."""
    quiet = f"({candidate.stamp.size} bytes), and nothing was added for {duration(quiet_seconds)}"
    reason = "incomplete"
    match found.verdict:
        case "complete" | "own_output":
            raise ValueError(f"{candidate.path} is not waited for: {found}")
        case "open_for_writing":
            problem = (
                f"is marked as open for writing, but nobody wrote to it for {duration(quiet_seconds)}; "
                'if the recording was interrupted, set watch.interrupted to "process", or repair a copy with '
                "`h5clear -s --increment=0`"
            )
        case "blank" if candidate.interrupted:
            problem = "has frames that are all zero, and its recording was interrupted; record it again"
        case "blank":
            problem = f"has frames that are all zero {quiet}; if it was copied, copy it again"
        case "changing":
            problem = f"was changed whenever it was looked at {quiet}; copy or record it again"
        case "truncated":
            problem, reason = f"is shorter than its header says {quiet}; if it was copied, copy it again", "truncated"
        case _ as never:
            assert_never(never)
    return MeasurementError(f"{candidate.path}: {problem}", reason)
