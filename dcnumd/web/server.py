"""Serves the live page in the daemon's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from dcnumd.config.values import WebSettings
from dcnumd.errors import ConfigError
from dcnumd.web.access import Access
from dcnumd.web.address import BACKLOG, HostNames, joined, listening, split_listen
from dcnumd.web.api import Api
from dcnumd.web.control import Control
from dcnumd.web.guard import Guard, Refused
from dcnumd.web.page import Page
from dcnumd.web.pages import Pages
from dcnumd.web.token import Keys, read_token

MAX_FORM = 4096
"""Largest body of a request; the token is the longest text that is sent [bytes]."""
KEEP_SECONDS = 15.0
"""Time that an idle connection is kept open for a further request [s]."""
CLOSE_SECONDS = 0.3
"""Time that requests in progress get to finish when the page is closed [s]."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class LivePage:
    """The server of the live page.

    Parameters
    ----------
    settings
        Address, host names and token file.
    control
        Access to the daemon.
    """

    def __init__(self, settings: WebSettings, control: Control) -> None:
        self._settings = settings
        self._control = control
        self._guard = Guard()
        self._pages: Pages | None = None
        self._runner: web.AppRunner | None = None
        self._servers: list[asyncio.Server] = []
        self._sweeping: asyncio.Task[None] | None = None
        self.address = ""
        """Host and port; empty until the page is served."""

    async def start(self) -> None:
        """Begin to serve the page.

        Raises
        ------
        ConfigError
            If the address or the token file cannot be used.
        """
        _, port = split_listen(self._settings.listen)
        path = self._settings.token_file
        token = await asyncio.to_thread(read_token, path) if path is not None else None
        page = await asyncio.to_thread(Page, writable=token is not None)
        access = Access(HostNames(self._settings), Keys(token), page, port)
        # Errors in our own code are logged in `Access.check`; malformed requests are not worth a log line.
        quiet = logging.getLogger("dcnumd.web.http")
        quiet.setLevel(logging.CRITICAL + 1)
        self._runner = web.AppRunner(
            self._application(access, page),
            access_log=None,
            # A handler is cancelled when its client disconnects.
            handler_cancellation=True,
            logger=quiet,
            keepalive_timeout=KEEP_SECONDS,
            lingering_time=1.0,
            shutdown_timeout=CLOSE_SECONDS,
        )
        await self._runner.setup()
        try:
            sockets = await asyncio.to_thread(listening, self._settings.listen)
        except ConfigError:
            await self._runner.cleanup()
            raise
        loop = asyncio.get_running_loop()
        self._servers = [await loop.create_server(self._accept, sock=sock, backlog=BACKLOG) for sock in sockets]
        self.address = joined(*sockets[0].getsockname()[:2])
        self._sweeping = asyncio.create_task(self._guard.keep_sweeping(self._transports), name="live page guard")

    async def close(self) -> None:
        """Stop serving the page, even if clients do not read or close their connections."""
        for server in self._servers:
            server.close()
        if self._pages is not None:
            self._pages.close()
        if self._sweeping is not None:
            self._sweeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeping
        transports = self._transports()
        if self._runner is not None:
            await self._runner.cleanup()
        # A client that does not read would keep its connection open.
        for transport in transports:
            transport.abort()

    def _application(self, access: Access, page: Page) -> web.Application:
        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._guard.watch(request, handler)

        @web.middleware
        async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await access.check(request, handler)

        application = web.Application(middlewares=[check, guard], client_max_size=MAX_FORM)
        application.on_response_prepare.append(access.add_headers)
        self._pages = Pages(self._control, access, page)
        application.add_routes(self._pages.routes())
        application.add_routes(Api(self._control, access).routes())
        return application

    def _accept(self) -> asyncio.Protocol:
        assert self._runner is not None
        server = self._runner.server
        if server is None or not self._guard.make_room(self._transports()):
            return Refused()
        return server()

    def _transports(self) -> list[asyncio.Transport]:
        server = self._runner.server if self._runner is not None else None
        if server is None:
            return []
        return [handler.transport for handler in server.connections if handler.transport is not None]
