"""Keeps clients that hang, dawdle or come in crowds from costing anything."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import time
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import web

MAX_CONNECTIONS = 100
"""For one more, a client makes room that is not being answered."""
MAX_ANSWERS = 80
"""Largest number of clients that are answered at once, with those that listen to events. The rest is for monitors."""
MONITORS = frozenset({"/healthz", "/metrics"})
"""These are answered always: it takes no time."""
SILENT_SECONDS = 20.0
"""Time after which a client is dropped that neither asks nor takes what it asked for [s]."""
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
        """Note that a client asks for something, as long as it is being made.

        Raises
        ------
        HTTPException
            503 if too many others are being answered.
        """
        client = self._client(request.transport) if request.transport is not None else None
        if client is None:
            return await handler(request)
        busy = sum(other.asked > 0 for other in self._clients.values())
        if busy >= MAX_ANSWERS and request.path not in MONITORS:
            raise web.HTTPServiceUnavailable(text="Too many are being answered.", headers={"Retry-After": "30"})
        client.asked += 1
        try:
            return await handler(request)
        finally:
            client.asked -= 1
            client.moved_at = time.monotonic()

    def make_room(self, transports: Iterable[asyncio.Transport]) -> bool:
        """Have fewer than `MAX_CONNECTIONS` if it can be had by dropping who is not being answered.

        It is taken from the address that has the most of them, and there from who has not moved for longest: what one
        client keeps open or asks half of costs the others nothing.

        Parameters
        ----------
        transports
            All that are connected.

        Returns
        -------
        room
            Whether there is room for one more.
        """
        there = [transport for transport in transports if not transport.is_closing()]
        idle = collections.defaultdict[str, list[asyncio.Transport]](list)
        for transport in sorted(there, key=lambda one: self._client(one).moved_at, reverse=True):
            if not self._client(transport).asked:
                idle[address_of(transport)].append(transport)
        for _ in range(len(there) - MAX_CONNECTIONS + 1):
            most = max(idle.values(), key=len, default=[])
            if not most:
                return False
            most.pop().abort()
        return True

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


def address_of(transport: asyncio.BaseTransport | None) -> str:
    """Return the address from which a client is connected; empty if it is gone."""
    peer = transport.get_extra_info("peername") if transport is not None else None
    return str(peer[0]) if peer else ""
