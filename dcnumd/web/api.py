"""The same for programs: ``/api/v1``, as ``openapi.json`` describes it."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
from typing import Any

from aiohttp import web

from dcnumd.status import Ended, Running, Waiting
from dcnumd.web.access import Access
from dcnumd.web.control import Control

OPENAPI = pathlib.Path(__file__).parent / "openapi.json"

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
STATES = ("done", "failed", "skipped")
MAX_ID = 2**63 - 1
FRESH_SECONDS = 0.5
"""Programs that ask more often get the same answer."""


class Api:
    """Answers programs.

    Parameters
    ----------
    control
        What the daemon offers.
    access
        Who may change something.
    """

    def __init__(self, control: Control, access: Access) -> None:
        self._control = control
        self._access = access
        self._document = OPENAPI.read_bytes()
        self._status: tuple[int, float, bytes] = (-1, 0.0, b"")

    def routes(self) -> list[web.RouteDef]:
        """Return what can be asked."""
        measurement = r"/api/v1/measurements/{id:\d{1,18}}"
        return [
            web.get("/api/v1/status", self.status),
            web.get("/api/v1/measurements", self.measurements),
            web.get(measurement, self.measurement),
            web.post(f"{measurement}/retry", self.retry),
            web.post("/api/v1/pause", self.pause),
            web.post("/api/v1/resume", self.resume),
            web.get("/api/v1/openapi.json", self.openapi),
        ]

    async def status(self, _: web.Request) -> web.Response:
        """Tell what is going on."""
        version, rendered_at, body = self._status
        now = time.monotonic()
        if version != self._control.version or now - rendered_at > FRESH_SECONDS:
            status = dataclasses.asdict(self._control.snapshot())
            body = _json(status | {"totals": dataclasses.asdict(self._control.totals())})
            self._status = self._control.version, now, body
        return _answer(body)

    async def measurements(self, request: web.Request) -> web.Response:
        """Tell what became of measurements, the last one first."""
        state = request.query.get("state")
        if state is not None and state not in STATES:
            raise web.HTTPBadRequest(text=f"state: got {state!r}, expected one of {', '.join(STATES)}")
        limit = _number(request, "limit", DEFAULT_LIMIT, MAX_LIMIT)
        before = _number(request, "before", None, MAX_ID)
        assert limit is not None
        found = self._control.history(limit=limit, before=before, state=state)
        rows = [as_dict(ended) for ended in found]
        # The last one is where the next page begins.
        return _answer(_json({"measurements": rows, "before": found[-1].id if len(found) == limit else None}))

    async def measurement(self, request: web.Request) -> web.Response:
        """Tell what is known of one."""
        entry = self._control.entry(int(request.match_info["id"]))
        if entry is None:
            raise web.HTTPNotFound(text="There is no measurement of this number.")
        return _answer(_json(as_dict(entry)))

    async def retry(self, request: web.Request) -> web.Response:
        """Have one processed again."""
        await self._access.demand(request)
        return _answer(_json({"outcome": retried(self._control, request)}))

    async def pause(self, request: web.Request) -> web.Response:
        """Start nothing from now on."""
        await self._access.demand(request)
        self._control.pause()
        return _answer(_json({"paused": True}))

    async def resume(self, request: web.Request) -> web.Response:
        """Start measurements again."""
        await self._access.demand(request)
        self._control.resume()
        return _answer(_json({"paused": False}))

    async def openapi(self, _: web.Request) -> web.Response:
        """Return the description of all this."""
        return _answer(self._document)


def retried(control: Control, request: web.Request) -> str:
    """Have the measurement that a request names processed again, and return what happens.

    Raises
    ------
    HTTPException
        404 if there is none, 409 if that is not possible now.
    """
    try:
        return control.retry(int(request.match_info["id"]))
    except KeyError:
        raise web.HTTPNotFound(text="There is no measurement of this number.") from None
    except ValueError as error:
        raise web.HTTPConflict(text=str(error)) from error


def as_dict(entry: Ended | Waiting | Running) -> dict[str, Any]:
    """Return a measurement as programs see it."""
    values = dataclasses.asdict(entry)
    return {"state": "running", **values} if isinstance(entry, Running) else values


def _number(request: web.Request, name: str, default: int | None, maximum: int) -> int | None:
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and 1 <= int(text) <= maximum):
        raise web.HTTPBadRequest(text=f"{name}: got {text[:40]!r}, expected a whole number from 1 to {maximum}")
    return int(text)


def _json(values: Any) -> bytes:
    # ASCII, because a name that is not UTF-8 has no other form.
    return json.dumps(values, allow_nan=False).encode("ascii")


def _answer(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")
