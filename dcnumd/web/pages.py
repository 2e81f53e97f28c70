"""The handlers of the pages and their buttons, and of the addresses for monitors."""

from __future__ import annotations

import asyncio
import collections
import json
from collections.abc import Awaitable, Callable

from aiohttp import web

from dcnumd.report.conditions import conditions_of
from dcnumd.web import metrics
from dcnumd.web.access import REPORT_POLICY, Access
from dcnumd.web.api import acknowledged, retried
from dcnumd.web.control import Control
from dcnumd.web.feed import Feed, Frame
from dcnumd.web.guard import address_of
from dcnumd.web.page import Page

MAX_LISTENERS = 50
"""Largest number of event streams. For a further one, the address with the most streams loses its oldest."""
ALIVE_SECONDS = 15.0
"""Time without updates after which an event stream sends a keep-alive, so that both sides notice a loss [s]."""
ALIVE = b": alive\nevent: alive\ndata: 1\n\n"
TAKE_SECONDS = 10.0
"""Time in which a browser must read an event before it is dropped [s]."""
FORM_SECONDS = 5.0
"""Time in which a form must arrive [s]."""
FOREVER = "public, max-age=31536000, immutable"


class Pages:
    """Answers the requests of browsers and monitors.

    Parameters
    ----------
    control
        Access to the daemon.
    access
        Decides which requests may change something.
    page
        Renders the page.
    """

    def __init__(self, control: Control, access: Access, page: Page) -> None:
        self._control = control
        self._access = access
        self._page = page
        self._feed = Feed(control, page)
        self._listeners: dict[asyncio.Task[None], str] = {}
        """The task of each event stream, and its client's address, oldest first."""

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the pages."""
        measurement = r"/measurements/{id:\d{1,18}}"
        return [
            web.get("/", self.live),
            web.get("/events", self.events, allow_head=False),
            web.get("/plot.png", self.plot),
            web.get(r"/recordings/{id:\d{1,18}}/plot.png", self.live_plot),
            web.get("/static/{name}", self.static),
            # With the slash, the relative link in a report resolves to its figures.
            web.get(f"{measurement}/", self.report),
            web.get(rf"{measurement}/{{name:[^/]+\.json}}", self.figures),
            web.post(f"{measurement}/retry", self._button(self._retry)),
            web.post("/acknowledge", self._button(self._acknowledge)),
            web.post("/pause", self._button(self._pause)),
            web.post("/resume", self._button(self._resume)),
            web.post("/sign-in", self.sign_in),
            web.post("/sign-out", self.sign_out),
            web.get("/healthz", self.healthz),
            web.get("/metrics", self.metrics),
        ]

    async def live(self, request: web.Request) -> web.Response:
        """Return the live page."""
        session = self._access.session(request)
        said = ""
        if session is not None:
            said, session.said = session.said, ""
        snapshot, totals = self._control.snapshot(), self._control.totals()
        body = self._page.whole(snapshot, totals, trusted=session is not None, said=said)
        return web.Response(body=body, content_type="text/html", charset="utf-8")

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Send updates to a browser until it disconnects."""
        address = address_of(request.transport)
        if len(self._listeners) >= MAX_LISTENERS and not self._make_room_for(address):
            raise web.HTTPServiceUnavailable(text="Too many pages are open.", headers={"Retry-After": "30"})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        trusted = self._access.session(request) is not None
        # Why a task: `close` can cancel it.
        task = asyncio.create_task(self._tell(request, response, trusted=trusted), name="live page events")
        self._listeners[task] = address
        try:
            await asyncio.wait([task])
        finally:
            self._listeners.pop(task, None)
            task.cancel()
        if not task.cancelled() and (error := task.exception()) is not None:
            if not response.prepared:
                raise error
            if request.transport is not None:
                request.transport.abort()
        return response

    def _make_room_for(self, address: str) -> bool:
        """End the oldest stream of the address with the most, if it keeps at least as many as `address` then has.

        Returns
        -------
        room
            Whether a stream was ended.
        """
        ((crowd, number),) = collections.Counter(self._listeners.values()).most_common(1)
        if number <= list(self._listeners.values()).count(address) + 1:
            return False
        oldest = next(task for task, its_address in self._listeners.items() if its_address == crowd)
        del self._listeners[oldest]
        oldest.cancel()
        return True

    async def _tell(self, request: web.Request, response: web.StreamResponse, *, trusted: bool) -> None:
        await response.prepare(request)
        seen: Frame | None = None
        with self._feed.listening():
            while True:
                try:
                    async with asyncio.timeout(ALIVE_SECONDS):
                        frame = await self._feed.after(seen)
                except TimeoutError:
                    message = ALIVE
                else:
                    message = frame.message_since(seen, trusted=trusted)
                    seen = frame
                if message:
                    async with asyncio.timeout(TAKE_SECONDS):
                        await response.write(message)

    def close(self) -> None:
        """End all event streams."""
        for task in self._listeners:
            task.cancel()

    async def plot(self, _: web.Request) -> web.Response:
        """Return the scatter plot of the latest report."""
        content = self._control.plot()
        if not content:
            raise web.HTTPNotFound(text="There is no plot yet.")
        return web.Response(body=content, content_type="image/png")

    async def live_plot(self, request: web.Request) -> web.Response:
        """Return the scatter plot of a measurement that is being recorded."""
        content = self._control.live_plot(int(request.match_info["id"]))
        if not content:
            raise web.HTTPNotFound(text="There is no plot of this recording.")
        return web.Response(body=content, content_type="image/png")

    async def static(self, request: web.Request) -> web.Response:
        """Return one of the page's static files."""
        content, content_type = self._page.files.get(request.match_info["name"], (None, ""))
        if content is None:
            raise web.HTTPNotFound
        response = web.Response(body=content, content_type=content_type, charset="utf-8")
        # The page's links have its build as query string, so what they name never changes.
        response.headers["Cache-Control"] = FOREVER if request.query_string else "no-store"
        return response

    async def report(self, request: web.Request) -> web.Response:
        """Return the report of a measurement."""
        content = await self._control.report(int(request.match_info["id"]), ".html")
        if content is None:
            raise web.HTTPNotFound(text="There is no report of this measurement, or it was moved.")
        headers = {"Content-Security-Policy": REPORT_POLICY}
        return web.Response(body=content, content_type="text/html", charset="utf-8", headers=headers)

    async def figures(self, request: web.Request) -> web.Response:
        """Return the figures of a report, under the file name by which the report links to them."""
        content = await self._control.report(int(request.match_info["id"]), ".json", request.match_info["name"])
        if content is None:
            raise web.HTTPNotFound(text="There are no figures of this measurement, or they were moved.")
        return web.Response(body=content, content_type="application/json")

    async def healthz(self, _: web.Request) -> web.Response:
        """Return status 503 and the reasons if something needs attention, otherwise 200."""
        reasons = [one.line for one in conditions_of(self._control.snapshot()) if one.failing]
        body = json.dumps({"status": "failing" if reasons else "ok", "reasons": reasons})
        return web.Response(text=body, status=503 if reasons else 200, content_type="application/json")

    async def metrics(self, request: web.Request) -> web.Response:
        """Return the metrics for Prometheus."""
        body, content_type = metrics.exposed(self._control, request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    def _button(self, press: Callable[[web.Request], str]) -> Callable[[web.Request], Awaitable[web.Response]]:
        """Return a handler that calls `press`, and redirects to the page, which then shows the message it returned."""

        async def handler(request: web.Request) -> web.Response:
            session = await self._access.demand(request)
            try:
                said = press(request)
            except (web.HTTPConflict, web.HTTPNotFound) as error:
                said = error.text or ""
            if session is not None:
                session.said = said
            return _back()

        return handler

    def _retry(self, request: web.Request) -> str:
        return retried(self._control, request)

    def _acknowledge(self, _: web.Request) -> str:
        acknowledged(self._control)
        return "Acknowledged. What failed is still in the list of failures."

    def _pause(self, _: web.Request) -> str:
        self._control.pause()
        return "Paused: no measurement is started until somebody resumes."

    def _resume(self, _: web.Request) -> str:
        self._control.resume()
        return "Resumed: measurements are processed again."

    async def sign_in(self, request: web.Request) -> web.Response:
        """Begin a session for a browser that sends the token."""
        self._access.demand_keys()
        self._access.demand_origin(request)
        try:
            async with asyncio.timeout(FORM_SECONDS):
                form = await request.post()
        except TimeoutError:
            raise web.HTTPRequestTimeout(text="The form took too long to arrive.") from None
        await self._access.demand_token(str(form.get("token", "")).strip())
        response = _back()
        value = self._access.keys.begin()
        response.set_cookie(self._access.cookie, value, httponly=True, samesite="Strict", path="/")
        return response

    async def sign_out(self, request: web.Request) -> web.Response:
        """End the session of a browser."""
        await self._access.demand(request)
        self._access.keys.end(request.cookies.get(self._access.cookie, ""))
        response = _back()
        response.del_cookie(self._access.cookie, path="/")
        return response


def _back() -> web.Response:
    return web.Response(status=303, headers={"Location": "/"})
