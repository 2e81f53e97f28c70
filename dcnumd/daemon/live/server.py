"""Control of the live page's server; its errors do not affect the processing of measurements."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog

from dcnumd.config.values import WebSettings
from dcnumd.daemon.live.view import View
from dcnumd.errors import ConfigError

if TYPE_CHECKING:
    from dcnumd.web.server import LivePage

log = structlog.get_logger()

RETRY_SECONDS = 30.0
"""Time between two attempts to serve the live page if its address cannot be used [s]."""


class PageKeeper:
    """Starts the live page if the settings ask for it, and restarts it when they change.

    Parameters
    ----------
    settings
        Settings of the live page.
    view
        View of the daemon that the page shows.
    """

    def __init__(self, settings: WebSettings, view: View) -> None:
        self._settings = settings
        self._view = view
        self._changed = asyncio.Event()
        self._failed = False

    def use(self, settings: WebSettings) -> None:
        """Apply new settings; restart the page if they have changed."""
        if settings != self._settings:
            self._settings = settings
            self._changed.set()

    async def keep_serving(self) -> None:
        """Serve the page until cancelled."""
        while True:
            self._changed.clear()
            page = await self._start() if self._settings.listen else None
            failed = bool(self._settings.listen) and page is None
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RETRY_SECONDS if failed else None):
                        await self._changed.wait()
            finally:
                if page is not None:
                    await page.close()

    async def _start(self) -> LivePage | None:
        """Start the page; return None if that fails, and log the first of consecutive failures."""
        # Importing the web server takes a moment, during which recordings must still be noticed, hence the thread.
        page = (await asyncio.to_thread(_load_page))(self._settings, self._view)
        try:
            await page.start()
        except ConfigError as error:
            if not self._failed:
                log.warning("web.failed", error=error.message, retry_in_seconds=RETRY_SECONDS)
            self._failed = True
            return None
        self._failed = False
        log.info("web.started", address=page.address)
        return page


def _load_page() -> type[LivePage]:
    from dcnumd.web.server import LivePage  # noqa: PLC0415 -- who has no page does without the web server

    return LivePage
