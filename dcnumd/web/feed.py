"""The updates of the live page, rendered once for all browsers."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator, Mapping

from dcnumd.web.control import Control
from dcnumd.web.page import Page

GAP_SECONDS = 0.5
"""Shortest time between two updates [s]."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """The parts of the page at one moment, with the buttons of signed-in browsers (key True) and without."""

    number: int
    parts: Mapping[bool, Mapping[str, str]]
    _messages: dict[tuple[int, bool], bytes] = dataclasses.field(default_factory=dict)

    def message_since(self, seen: Frame | None, *, trusted: bool) -> bytes:
        """Return the parts that differ from those of an earlier frame as a server-sent event; empty if none does."""
        key = seen.number if seen is not None else 0, trusted
        if key not in self._messages:
            before = seen.parts[trusted] if seen is not None else {}
            changed = {name: html for name, html in self.parts[trusted].items() if before.get(name) != html}
            # In ASCII, the JSON is one line, and names that are not UTF-8 can be sent.
            text = f"event: snapshot\ndata: {json.dumps(changed)}\n\n" if changed else ""
            self._messages[key] = text.encode("ascii")
        return self._messages[key]


class Feed:
    """Renders a frame after each change, as long as there are listeners.

    Parameters
    ----------
    control
        Access to the daemon.
    page
        Renders the parts.
    """

    def __init__(self, control: Control, page: Page) -> None:
        self._control = control
        self._page = page
        self._version = -1
        self._frame: Frame | None = None
        self._rendered_at = -GAP_SECONDS
        self._coming: asyncio.Task[Frame] | None = None
        self._listeners = 0
        self._count = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Count one listener for the time of a ``with`` block; nothing is rendered while there are none."""
        self._listeners += 1
        try:
            yield
        finally:
            self._listeners -= 1
            if self._listeners == 0:
                self._forget()

    def _forget(self) -> None:
        if self._coming is not None:
            self._coming.cancel()
        self._coming, self._frame = None, None

    async def after(self, seen: Frame | None) -> Frame:
        """Return the latest frame if it is not `seen`; otherwise wait for the next one."""
        if self._frame is not None and self._frame is not seen:
            return self._frame
        if self._coming is None or self._coming.done():
            self._coming = asyncio.create_task(self._next(), name="live page")
        # The task is shared, so a listener that is cancelled must not cancel it.
        return await asyncio.shield(self._coming)

    async def _next(self) -> Frame:
        if self._frame is not None:
            self._version = await self._control.changed(self._version)
            await asyncio.sleep(self._rendered_at + GAP_SECONDS - time.monotonic())
        self._version = self._control.version
        self._count += 1
        self._frame = Frame(self._count, self._page.parts(self._control.snapshot(), self._control.totals()))
        self._rendered_at = time.monotonic()
        return self._frame
