"""A stand-in for the live process, which says of each recording what a test wants."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

from dcnumd.errors import WorkerError
from dcnumd.logic.live.messages import LiveProgress, LiveRequest
from dcnumd.processes.courtesy import Courtesy
from dcnumd.report import live_calls

PROGRESS = LiveProgress(
    frames=1000,
    frames_done=900,
    frames_again=50,
    events=600,
    seconds=0.3,
    lag_seconds=0.03,
    lagging=False,
    spool_bytes=6,
    spool_full=False,
    ended=False,
)


class FakeLive:
    """A child process for recordings, whose calls end at once."""

    name, alive, losses, courtesy = "live", True, 0, Courtesy(0)

    def __init__(self) -> None:
        self.pid = 4711
        self.progress = PROGRESS
        """What each step returns."""
        self.values = b""
        """What it returns if values are wanted."""
        self.has_events = True
        """Whether there are enough frames for events."""
        self.error: Exception | None = None
        """What each call raises."""
        self.open: dict[str, LiveRequest] = {}
        """The recordings that are read, by their keys."""
        self.answers = asyncio.Event()
        """Set unless calls do not end."""
        self.answers.set()
        self.steps = 0
        self.gone = asyncio.Event()

    async def start(self, *_: Callable[[], object]) -> None:
        """Do nothing: there is nothing to start."""

    async def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Do what a function would do in the process."""
        if self.error is not None:
            raise self.error
        answer = {
            live_calls.open_recording: self._begin,
            live_calls.advance_recording: self._advance,
            live_calls.finish_recording: self._finish,
        }[function]
        done = answer(*args, **kwargs)
        await self.answers.wait()
        return done

    def submit(self, function: Callable[..., Any], key: str) -> None:
        """Stop to read a recording."""
        assert function is live_calls.drop_recording
        self._drop(key)

    def kill(self) -> None:
        """Let all recordings be lost, as in a new process."""
        self.pid += 1
        self.open.clear()

    async def close(self, _: float) -> None:
        """Do nothing: there is nothing to close."""

    def _begin(self, key: str, request: LiveRequest) -> None:
        self.open[key] = request
        request.spool.write_bytes(b"events")

    def _advance(self, key: str, _seconds: float, *, want_values: bool) -> live_calls.LiveStep:
        if key not in self.open:
            raise WorkerError(f"{key} is not open", "internal")
        self.steps += 1
        return live_calls.LiveStep(dataclasses.replace(self.progress), self.values if want_values else b"")

    def _finish(self, key: str) -> bool:
        self._drop(key)
        return self.has_events

    def _drop(self, key: str) -> None:
        self.open.pop(key, None)
