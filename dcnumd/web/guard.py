"""Keeps clients that hang, dawdle or come in crowds from costing anything."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import web

MAX_CONNECTIONS = 100
SILENT_SECONDS = 20.0
"""A client that neither asks nor takes what it asked for is dropped after so long."""
SWEEP_SECONDS = 5.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Refused(asyncio.Protocol):
    """Ends a connection at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Drop the client."""
        if isinstance(transport, asyncio.Transport):
            transport.abort()


@dataclasses.dataclass(slots=True)
class _Client:
    moved_at: float
    asked: int = 0
    """Requests that are being answered."""
    unsent: int = 0
    """Bytes that wait for it."""


class Guard:
    """Watches the connections of a server."""

    def __init__(self) -> None:
        self._clients: dict[asyncio.BaseTransport, _Client] = {}

    async def watch(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Note that a client asks for something, as long as it is being made."""
        client = self._client(request.transport) if request.transport is not None else None
        if client is None:
            return await handler(request)
        client.asked += 1
        try:
            return await handler(request)
        finally:
            client.asked -= 1
            client.moved_at = time.monotonic()

    async def keep_sweeping(self, transports: Callable[[], Iterable[asyncio.Transport]]) -> None:
        """Drop clients that do not move, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self.sweep(list(transports()), time.monotonic())

    def sweep(self, transports: list[asyncio.Transport], now: float) -> None:
        """Drop clients that have not moved for long.

        Parameters
        ----------
        transports
            All that are connected.
        now
            The monotonic clock [s].
        """
        for gone in self._clients.keys() - set(transports):
            del self._clients[gone]
        for transport in transports:
            client = self._client(transport)
            unsent = transport.get_write_buffer_size()
            # Who takes what was sent may take its time, and who waits for an answer is not to blame.
            if unsent < client.unsent or (client.asked and not unsent):
                client.moved_at = now
            client.unsent = unsent
            if now - client.moved_at > SILENT_SECONDS:
                transport.abort()

    def _client(self, transport: asyncio.BaseTransport) -> _Client:
        return self._clients.setdefault(transport, _Client(time.monotonic()))
