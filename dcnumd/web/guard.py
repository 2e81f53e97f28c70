"""Limits what clients that hang, are slow, or open many connections can cost."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import time
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import web

MAX_CONNECTIONS = 100
"""Largest number of connections. For a further one, a connection without a request in progress is dropped."""
MAX_ANSWERS = 80
"""Largest number of connections with a request in progress, event streams included. The rest is kept for monitors."""
MONITORS = frozenset({"/healthz", "/metrics"})
"""Paths that are answered even above `MAX_ANSWERS`, because they take little time."""
SILENT_SECONDS = 20.0
"""Time after which a connection is dropped if it neither sends requests nor reads the responses [s]."""
SWEEP_SECONDS = 5.0
"""Time between two searches for such connections [s]."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Refused(asyncio.Protocol):
    """A protocol that closes its connection at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Abort the connection."""
        if isinstance(transport, asyncio.Transport):
            transport.abort()


@dataclasses.dataclass(slots=True)
class _Client:
    moved_at: float
    asked: int = 0
    """Number of requests in progress."""
    unsent: int = 0
    """Number of bytes in the write buffer when it was last examined."""


class Guard:
    """Watches the connections of a server, and drops those that must not be kept."""

    def __init__(self) -> None:
        self._clients: dict[asyncio.BaseTransport, _Client] = {}

    async def watch(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Count a request as in progress while its handler runs, and return the handler's response.

        Raises
        ------
        HTTPException
            503 if too many connections have requests in progress.
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
        """Drop idle connections until there are fewer than `MAX_CONNECTIONS`.

        Idle connections have no request in progress. They are dropped from the address with the most of them, those
        without activity for the longest time first. Thus connections that one client keeps open, or on which it sends
        incomplete requests, do not shut out the others.

        Parameters
        ----------
        transports
            All connections.

        Returns
        -------
        room
            Whether there is room for one more connection.
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
        """Call `sweep` every `SWEEP_SECONDS` until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self.sweep(list(transports()), time.monotonic())

    def sweep(self, transports: list[asyncio.Transport], now: float) -> None:
        """Drop connections without activity during the last `SILENT_SECONDS`.

        Parameters
        ----------
        transports
            All connections.
        now
            Time of the monotonic clock [s].
        """
        for gone in self._clients.keys() - set(transports):
            del self._clients[gone]
        for transport in transports:
            client = self._client(transport)
            unsent = transport.get_write_buffer_size()
            # Reading slowly counts as activity, and so does waiting for a response.
            if unsent < client.unsent or (client.asked and not unsent):
                client.moved_at = now
            client.unsent = unsent
            if now - client.moved_at > SILENT_SECONDS:
                transport.abort()

    def _client(self, transport: asyncio.BaseTransport) -> _Client:
        return self._clients.setdefault(transport, _Client(time.monotonic()))


def address_of(transport: asyncio.BaseTransport | None) -> str:
    """Return the IP address of a client; empty if the connection is closed."""
    peer = transport.get_extra_info("peername") if transport is not None else None
    return str(peer[0]) if peer else ""
