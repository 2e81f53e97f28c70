"""The checks that every request must pass, and the headers of every response."""

from __future__ import annotations

import asyncio
import logging
import urllib.parse
from collections.abc import Awaitable, Callable

from aiohttp import web

from dcnumd.web.address import HostNames
from dcnumd.web.page import Page
from dcnumd.web.token import Keys, Session

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

WRONG_TOKEN_SECONDS = 0.5
"""Delay of the response to a wrong token, which slows down guessing [s]."""

PAGE_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
REPORT_POLICY = (
    "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of reports, which may come from others: a report runs no script and loads nothing."""

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": PAGE_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Why not "no-referrer": browsers would then send the origin "null" with forms.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Access:
    """Decides which requests are answered, and which may change something.

    Parameters
    ----------
    hosts
        The host names under which the page may be requested.
    keys
        The token and the sessions that give the right to change something.
    page
        Renders the pages of refusals.
    port
        Port of the page. It is part of the cookie's name, because all ports of a computer share their cookies.
    """

    def __init__(self, hosts: HostNames, keys: Keys, page: Page, port: int) -> None:
        self._hosts = hosts
        self.keys = keys
        self._page = page
        self.cookie = f"dcnumd-{port}"

    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer a request if its host name is allowed; return errors as JSON or HTML, as the client expects."""
        try:
            self._check_host(request)
            return await handler(request)
        except web.HTTPException as error:
            return self._refusal(request, error)
        except Exception as error:  # a page that cannot be rendered must not affect anything else
            logger.exception("%s %s", request.method, request.path)
            refused = web.HTTPServiceUnavailable(text=f"This cannot be told at this moment ({type(error).__name__}).")
            return self._refusal(request, refused)

    @staticmethod
    async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
        """Add the security headers to a response, except those that it sets itself."""
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers["Server"] = "dcnumd"

    def _check_host(self, request: web.Request) -> None:
        transport = request.transport
        own = transport.get_extra_info("sockname") if transport is not None else None
        if not self._hosts.allow(request.headers.get("Host", ""), own[0] if own else ""):
            raise web.HTTPMisdirectedRequest(
                text="This computer does not answer to that name. The engineer can allow it with web.hosts."
            )

    def _refusal(self, request: web.Request, error: web.HTTPException) -> web.Response:
        if error.status < 400:
            return web.Response(status=error.status, headers=_told(error))
        text = error.text or error.reason
        text = error.reason if text == f"{error.status}: {error.reason}" else text
        headers = _told(error)
        if wants_json(request):
            return web.json_response({"error": text}, status=error.status, headers=headers)
        body = self._page.refusal(error.reason, text)
        return web.Response(body=body, status=error.status, headers=headers, content_type="text/html", charset="utf-8")

    def session(self, request: web.Request) -> Session | None:
        """Return the session of the browser that sent a request; None if it is not signed in."""
        return self.keys.session(request.cookies.get(self.cookie, ""))

    async def demand(self, request: web.Request) -> Session | None:
        """Check that a request may change something, and return its session; None if it has the token itself.

        Raises
        ------
        HTTPException
            401 or 403 if it may not.
        """
        self.demand_keys()
        self.demand_origin(request)
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            await self.demand_token(token.strip())
            return None
        if (session := self.session(request)) is None:
            raise web.HTTPUnauthorized(
                text="Sign in first, or send the token: Authorization: Bearer …",
                headers={"WWW-Authenticate": 'Bearer realm="dcnumd"'},
            )
        if "Origin" not in request.headers and request.headers.get("Sec-Fetch-Site") != "same-origin":
            raise web.HTTPForbidden(text="The browser does not say which page asks for this.")
        return session

    def demand_keys(self) -> None:
        """Raise HTTPForbidden if the page is read-only."""
        if not self.keys.exist:
            raise web.HTTPForbidden(text="This page is read-only; the engineer can allow more with web.token_file.")

    @staticmethod
    def demand_origin(request: web.Request) -> None:
        """Raise HTTPForbidden if the request comes from a page of another origin."""
        origin = request.headers.get("Origin")
        if origin is not None and _plain(urllib.parse.urlsplit(origin).netloc) != _plain(request.headers["Host"]):
            raise web.HTTPForbidden(text="Another page asks for this, which is not allowed.")

    async def demand_token(self, token: str) -> None:
        """Raise HTTPUnauthorized after a delay unless this is the token."""
        if not self.keys.fits(token):
            await asyncio.sleep(WRONG_TOKEN_SECONDS)
            raise web.HTTPUnauthorized(
                text="This is not the token.", headers={"WWW-Authenticate": 'Bearer realm="dcnumd"'}
            )


def wants_json(request: web.Request) -> bool:
    """Return whether a request is for one of the addresses that answer in JSON."""
    return request.path.startswith("/api/") or request.path == "/healthz"


def _told(error: web.HTTPException) -> dict[str, str]:
    """Return the headers of an error except those that describe its body."""
    return {name: value for name, value in error.headers.items() if not name.startswith("Content-")}


def _plain(netloc: str) -> str:
    return netloc.lower().removesuffix(":80").removesuffix(":443")
