"""Looks inside files through the probe process, one after the other and none for ever; says what an outcome means."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Callable
from typing import ParamSpec, TypeVar, assert_never

from dcnumd import routing
from dcnumd.config.values import Settings
from dcnumd.daemon.measurements.probe import Look, look
from dcnumd.daemon.measurements.tracker import Candidate
from dcnumd.errors import MeasurementError
from dcnumd.processes.child import Child
from dcnumd.words import duration

P = ParamSpec("P")
R = TypeVar("R")

LOOK_SECONDS = 60.0
"""Time after which a look inside a file counts as hanging [s], on a share that is down for example."""
LOOK_BYTES_PER_SECOND = 20e6
"""Speed of a slow share [bytes/s]; a look may have to read all of a file without checksums."""
KILL_SECONDS = 5.0
"""Time after which a killed probe must be gone [s]; it is not if its system call cannot be interrupted."""


class Inspector:
    """Has the probe process look into files.

    Parameters
    ----------
    settings
        What the pipeline of a file would be.
    probe
        The process.
    """

    def __init__(self, settings: Settings, probe: Child) -> None:
        self._settings = settings
        self._probe = probe
        self._looking = asyncio.Lock()

    async def look_into(self, path: str, size: int, *, recorded: bool = False) -> Look:
        """Have the probe look into a file, within a time.

        Parameters
        ----------
        path, size
            The file, and its size [bytes].
        recorded
            Whether the ledger has it as the result of a measurement.

        Raises
        ------
        DcnumdError
            What `look` finds wrong; with the reason ``look_timeout`` if it did not come to an end, and
            ``unreachable`` if it could not even be ended.
        """
        job = routing.watched_job_for(self._settings, pathlib.Path(path), "")
        return await self._have(LOOK_SECONDS + size / LOOK_BYTES_PER_SECOND, path, look, job, recorded=recorded)

    async def have(self, path: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Have the probe call a function that is about `path`, with the limits of `look_into`.

        Raises
        ------
        DcnumdError
            As `look_into`.
        """
        return await self._have(LOOK_SECONDS, path, function, *args, **kwargs)

    async def _have(self, seconds: float, path: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        # One after the other, so that nobody's time passes while the probe is busy with another file.
        async with self._looking:
            call = asyncio.create_task(self._probe.call(function, *args, **kwargs), name=f"look {path}")
            try:
                await asyncio.wait([call], timeout=seconds)
                if not call.done():
                    await self._end(call, path, seconds)
                return call.result()
            finally:
                # Also tells Python that nobody else asks for what it ended with.
                call.cancel()

    async def _end(self, call: asyncio.Task[R], path: str, seconds: float) -> None:
        """End a call that hangs, and say so."""
        self._probe.kill()
        # The call ends by itself when the process is gone, and then the next one gets a new process.
        await asyncio.wait([call], timeout=KILL_SECONDS)
        message = f"{path}: cannot be read: no answer for {duration(seconds)}"
        if call.done():
            raise MeasurementError(message, "look_timeout")
        self._probe.abandon()
        raise MeasurementError(message, "unreachable")


def incomplete(candidate: Candidate, found: Look, quiet_seconds: float) -> MeasurementError:
    """Return the error for a file that will not become complete, with the cure."""
    quiet = f"({candidate.stamp.size} bytes), and nothing was added for {duration(quiet_seconds)}"
    reason = "incomplete"
    match found.verdict:
        case "complete" | "own_output":
            raise ValueError(f"{candidate.path} is not waited for: {found}")
        case "open_for_writing":
            problem = (
                f"is marked as open for writing, but nobody wrote to it for {duration(quiet_seconds)}; "
                "if the recording was interrupted, `h5clear -s` on a copy may help"
            )
        case "blank":
            problem = f"has frames that are all zero {quiet}; if it was copied, copy it again"
        case "changing":
            problem = f"was changed whenever it was looked at {quiet}; copy or record it again"
        case "truncated":
            problem, reason = f"is shorter than it says itself {quiet}; if it was copied, copy it again", "truncated"
        case _ as never:
            assert_never(never)
    return MeasurementError(f"{candidate.path}: {problem}", reason)
