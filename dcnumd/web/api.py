"""The HTTP API for programs, ``/api/v1``; ``openapi.json`` describes it."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
from typing import Any

from aiohttp import web

from dcnumd.report.conditions import conditions_of
from dcnumd.report.request import PlotKind
from dcnumd.status import Ended, Running, Waiting
from dcnumd.web.access import Access
from dcnumd.web.control import Control

OPENAPI = pathlib.Path(__file__).parent / "openapi.json"

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
STATES = ("done", "failed", "skipped")
HISTORY_PARAMETERS = frozenset({"state", "limit", "before"})
MAX_ID = 2**63 - 1
PLOT_TYPES: dict[PlotKind, str] = {"png": "image/png", "svg": "image/svg+xml"}
FRESH_SECONDS = 0.5
"""Age up to which a status is sent again as long as the daemon reports no change [s]."""


class Api:
    """Answers the requests of programs.

    Parameters
    ----------
    control
        Access to the daemon.
    access
        Decides which requests may change something.
    """

    def __init__(self, control: Control, access: Access) -> None:
        self._control = control
        self._access = access
        self._document = OPENAPI.read_bytes()
        self._status: tuple[int, float, bytes] = (-1, 0.0, b"")

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the API."""
        measurement = r"/api/v1/measurements/{id:\d{1,18}}"
        return [
            web.get("/api/v1/status", self.status),
            web.get("/api/v1/measurements", self.measurements),
            web.get(measurement, self.measurement),
            web.get(rf"{measurement}/plots/{{name:[A-Za-z0-9_-]{{1,100}}}}.{{kind:png|svg}}", self.plot),
            web.post(f"{measurement}/retry", self.retry),
            web.post("/api/v1/acknowledge", self.acknowledge),
            web.post("/api/v1/pause", self.pause),
            web.post("/api/v1/resume", self.resume),
            web.get("/api/v1/openapi.json", self.openapi),
        ]

    async def status(self, _: web.Request) -> web.Response:
        """Return the state of the daemon."""
        version, rendered_at, body = self._status
        now = time.monotonic()
        if version != self._control.version or now - rendered_at > FRESH_SECONDS:
            snapshot = self._control.snapshot()
            status = dataclasses.asdict(snapshot)
            conditions = [dataclasses.asdict(one) for one in conditions_of(snapshot)]
            totals = dataclasses.asdict(self._control.totals())
            body = _json(status | {"conditions": conditions, "totals": totals})
            self._status = self._control.version, now, body
        return _answer(body)

    async def measurements(self, request: web.Request) -> web.Response:
        """Return finished measurements, the latest first."""
        if unknown := sorted(set(request.query) - HISTORY_PARAMETERS):
            expected = ", ".join(sorted(HISTORY_PARAMETERS))
            raise web.HTTPBadRequest(text=f"{unknown[0][:40]!r} is not a parameter; there are {expected}")
        state = request.query.get("state")
        if state is not None and state not in STATES:
            raise web.HTTPBadRequest(text=f"state: got {state!r}, expected one of {', '.join(STATES)}")
        limit = _number(request, "limit", DEFAULT_LIMIT, MAX_LIMIT)
        before = _number(request, "before", None, MAX_ID)
        assert limit is not None
        found = self._control.history(limit=limit, before=before, state=state)
        rows = [as_dict(ended) for ended in found]
        # The next page begins after the last measurement of this one.
        return _answer(_json({"measurements": rows, "before": found[-1].id if len(found) == limit else None}))

    async def measurement(self, request: web.Request) -> web.Response:
        """Return one measurement."""
        entry = self._control.entry(int(request.match_info["id"]))
        if entry is None:
            raise web.HTTPNotFound(text="There is no measurement of this number.")
        return _answer(_json(as_dict(entry)))

    async def plot(self, request: web.Request) -> web.Response:
        """Return one plot of a measurement's report as a file."""
        kind: PlotKind = "png" if request.match_info["kind"] == "png" else "svg"
        try:
            content = await self._control.plot_of(int(request.match_info["id"]), request.match_info["name"], kind)
        except ValueError as error:
            raise web.HTTPConflict(text=str(error)) from error
        if content is None:
            raise web.HTTPNotFound(text="There is no such plot of this measurement.")
        return web.Response(body=content, content_type=PLOT_TYPES[kind])

    async def retry(self, request: web.Request) -> web.Response:
        """Process one measurement again."""
        await self._access.demand(request)
        return _answer(_json({"outcome": retried(self._control, request)}))

    async def acknowledge(self, request: web.Request) -> web.Response:
        """Note that somebody has seen what failed or got a red light."""
        await self._access.demand(request)
        return _answer(_json({"acknowledged": acknowledged(self._control)}))

    async def pause(self, request: web.Request) -> web.Response:
        """Start no measurements from now on."""
        await self._access.demand(request)
        self._control.pause()
        return _answer(_json({"paused": True}))

    async def resume(self, request: web.Request) -> web.Response:
        """Start measurements again."""
        await self._access.demand(request)
        self._control.resume()
        return _answer(_json({"paused": False}))

    async def openapi(self, _: web.Request) -> web.Response:
        """Return the OpenAPI description of the API."""
        return _answer(self._document)


def retried(control: Control, request: web.Request) -> str:
    """Queue the measurement that a request names for processing, and return what happens, as a word or sentence.

    Raises
    ------
    HTTPException
        404 if there is no such measurement, 409 if it cannot be processed again now.
    """
    try:
        return control.retry(int(request.match_info["id"]))
    except KeyError:
        raise web.HTTPNotFound(text="There is no measurement of this number.") from None
    except ValueError as error:
        raise web.HTTPConflict(text=str(error)) from error


def acknowledged(control: Control) -> int:
    """Note that somebody has seen what failed or got a red light, and return the number of measurements.

    Raises
    ------
    HTTPException
        409 if that cannot be noted now.
    """
    try:
        return control.acknowledge()
    except ValueError as error:
        raise web.HTTPConflict(text=str(error)) from error


def as_dict(entry: Ended | Waiting | Running) -> dict[str, Any]:
    """Return a measurement as the API represents it."""
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
    # Names that are not UTF-8 can only be written as escapes, so the output is ASCII.
    return json.dumps(values, allow_nan=False).encode("ascii")


def _answer(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")
