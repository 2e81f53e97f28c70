"""Serves the live page of a stand-in for the daemon, whose state is set by the test."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import datetime as dt
import http.client
import json
import pathlib
import socket
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Self, TypeVar

from dcnumd.config.values import WebSettings
from dcnumd.status import (
    Blocked,
    Course,
    Ended,
    Folder,
    Latency,
    Live,
    Output,
    Recording,
    Running,
    Snapshot,
    Totals,
    Unacknowledged,
    Waiting,
)
from dcnumd.web.server import LivePage

R = TypeVar("R")

TOKEN = "correct-horse-battery-staple"  # noqa: S105 -- of no door
WAIT_SECONDS = 120.0
NO_SPACE = "/mnt/results: 0.3 GB are free, 1.4 GB are needed (the measurement and resources.min_free_gb); make room"


def ago(seconds: float = 0.0) -> str:
    """Return the time some seconds ago, as the ledger writes it."""
    return (dt.datetime.now(dt.UTC) - dt.timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def png(width: int = 90, height: int = 63) -> bytes:
    """Return a grey picture as a PNG."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\x80" * width) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def done(number: int, name: str = "", **fields: Any) -> Ended:
    """Return a measurement that was processed."""
    name = name or f"M{number:03}_data.rtdc"
    known = Ended(
        id=number,
        path=f"/srv/acquisition/2026-11-21/{name}",
        name=name,
        sample=f"blood {number}",
        state="done",
        ended=ago(60.0 * (100 - number)),
        frames=40_000,
        events=9_876,
        seconds=3.21,
        light="green",
        warnings=(),
        reason="",
        error="",
        output=f"/srv/results/2026-11-21/{name}",
        has_report=True,
    )
    return dataclasses.replace(known, **fields)


def failed(number: int, reason: str, error: str, name: str = "", **fields: Any) -> Ended:
    """Return a measurement that failed."""
    plain = {"events": None, "frames": None, "seconds": None, "output": "", "light": "", "has_report": False}
    ended = done(number, name, state="failed", reason=reason, **(plain | fields))
    return dataclasses.replace(ended, error=f"{ended.path}: {error}")


def running(number: int = 100, **fields: Any) -> Running:
    """Return a measurement that is processed."""
    known = Running(
        id=number,
        path=f"/srv/acquisition/2026-11-21/M{number:03}_data.rtdc",
        sample="bone marrow, donor 7",
        stage="segmentation",
        frames_done=17_240,
        frames=40_000,
        frames_per_second=12_345.6,
        seconds_left=1.8,
        started=ago(2.0),
        held=False,
    )
    return dataclasses.replace(known, **fields)


def snapshot(**fields: Any) -> Snapshot:
    """Return the state of an idle daemon, with changes of some fields."""
    idle = Snapshot(
        version="1.2.3",
        pid=4711,
        started=ago(4000.0),
        time=ago(),
        ready=True,
        healthy=True,
        stopping=False,
        paused=False,
        held_for_recording=False,
        folders=(Folder("/srv/acquisition", reachable=True),),
        outputs=(Output("/srv/acquisition", 250_000_000_000), Output("/mnt/results", None)),
        blocked=(),
        counts={"seen": 0, "settling": 0, "queued": 0, "running": 0, "done": 0, "failed": 0, "skipped": 0},
        queue=0,
        oldest_wait_seconds=0.0,
        recording=(),
        waiting=(),
        running=None,
        done=(),
        failed=(),
        last_success=None,
        plot_id=None,
    )
    return dataclasses.replace(idle, **fields)


def live(**fields: Any) -> Live:
    """Return what is known of a good measurement after a minute of its recording."""
    times = tuple(second + 0.5 for second in range(60))
    rates = Course(times, tuple(50.0 + 10 * (second % 7) for second in range(60)))
    known = Live(
        frames=207_000,
        frames_done=205_600,
        frames_again=9_400,
        events=134_550,
        seconds=60.0,
        lag_seconds=0.4,
        lagging=False,
        spool_bytes=96_000_000,
        spool_full=False,
        events_per_second=2_242.5,
        yield_per_frame=0.654,
        light="green",
        event_rate=rates,
        brightness=Course(times, (119.5,) * 30 + (121.0,) * 30),
        plot=58,
    )
    return dataclasses.replace(known, **fields)


def recorded(number: int = 200, name: str = "M200_data.rtdc", **fields: Any) -> Recording:
    """Return a recording that is processed while it grows; `fields` change what is known of it."""
    path = f"/srv/acquisition/2026-11-21/{name}"
    return Recording(path, 3_600_000_000, 60_000_000.0, 60.0, number, live(**fields))


def full(**fields: Any) -> Snapshot:
    """Return the state of a daemon whose second output folder is full."""
    blocked = Blocked("/mnt/results", "disk.low", "no_space", NO_SPACE, 12)
    waiting = Waiting(7, "/srv/acquisition/M007.rtdc", "queued", ago(60.0), "no_space", NO_SPACE)
    return snapshot(**{"blocked": (blocked,), "waiting": (waiting,), "queue": 12, **fields})


def busy() -> Snapshot:
    """Return the state of a daemon during a usual day."""
    return snapshot(
        counts={"settling": 1, "queued": 2, "running": 1, "done": 1234, "failed": 3, "skipped": 12},
        queue=2,
        oldest_wait_seconds=12.0,
        recording=(Recording("/srv/acquisition/2026-11-21/M103_data.rtdc", 734_000_000, 28_400_000.0, 25.0),),
        waiting=(
            Waiting(101, "/srv/acquisition/2026-11-21/M101_data.rtdc", "queued", ago(12.0), "", ""),
            Waiting(102, "/mnt/share/long term/M102_data.rtdc", "queued", ago(600.0), "no_space", NO_SPACE),
        ),
        running=running(),
        done=(
            done(99),
            done(98, light="yellow", warnings=("few_events", "background_drift"), events=112),
            done(97, "M097_" + "very_long_name_" * 6 + "data.rtdc", light="red", warnings=("clogging",), events=0),
            done(96, light="grey", sample=""),
            done(95, light="", has_report=False),
        ),
        failed=(
            failed(94, "damaged", "events/image: chunk 12 of 40 cannot be unpacked"),
            failed(93, "incomplete", "open for writing, and nobody has written for 300 s"),
        ),
        last_success=ago(60.0),
        plot_id=99,
    )


class Desk:
    """A stand-in for the daemon, as `Control`; it must be used in the event loop that serves the page."""

    def __init__(self, shown: Snapshot | None = None) -> None:
        self.shown = shown or snapshot()
        latency = Latency().with_one(5.0).with_one(10.0).with_one(7200.0)
        failed, lights = {"damaged": 2, "no_images": 1}, {"green": 100}
        self.counted = Totals(
            120,
            failed,
            4,
            4_800_000,
            1_185_120,
            390.0,
            118,
            2,
            1,
            lights,
            latency,
            Latency().with_one(0.25),
            live_frames=205_600,
            live_frames_again=9_400,
            live_abandoned={"worker_killed": 1},
            live_latency=Latency().with_one(5.5),
        )
        self.picture = b""
        self.live_pictures: dict[int, bytes] = {}
        self.reports: dict[int, bytes] = {}
        self.figures: dict[tuple[int, str], bytes] = {}
        self.plots: dict[tuple[int, str, str], bytes] = {}
        self.held_plots = ""
        self.retried: list[int] = []
        self.rendered = 0
        self.broken: Exception | None = None
        self._version = 1
        self._touched = asyncio.Condition()

    @property
    def version(self) -> int:
        return self._version

    async def show(self, shown: Snapshot) -> None:
        self.shown = shown
        await self.touch()

    async def touch(self) -> None:
        async with self._touched:
            self._version += 1
            self._touched.notify_all()

    def snapshot(self) -> Snapshot:
        if self.broken is not None:
            raise self.broken
        self.rendered += 1
        return dataclasses.replace(self.shown, time=ago())

    async def changed(self, version: int) -> int:
        async with self._touched:
            await self._touched.wait_for(lambda: self._version > version)
        return self._version

    def totals(self) -> Totals:
        return self.counted

    def entry(self, entry_id: int) -> Ended | Waiting | Running | None:
        known = [*self.shown.done, *self.shown.failed, *self.shown.waiting]
        if self.shown.running is not None:
            known.append(self.shown.running)
        return {one.id: one for one in known}.get(entry_id)

    def history(self, *, limit: int, before: int | None = None, state: str | None = None) -> list[Ended]:
        known = sorted((*self.shown.done, *self.shown.failed), key=lambda one: one.ended, reverse=True)
        if before is not None:
            known = known[[one.id for one in known].index(before) + 1 :]
        return [one for one in known if state in {None, one.state}][:limit]

    def retry(self, entry_id: int) -> str:
        entry = self.entry(entry_id)
        if entry is None:
            raise KeyError(entry_id)
        if entry.id not in {one.id for one in (*self.shown.done, *self.shown.failed)}:
            raise ValueError(f"{entry.path}: it waits already")
        self.retried.append(entry_id)
        return f"{entry.path}: is processed again"

    def acknowledge(self) -> int:
        news, self.shown = self.shown.unacknowledged, dataclasses.replace(self.shown, unacknowledged=Unacknowledged())
        self._task = asyncio.get_running_loop().create_task(self.touch())
        return news.failed + news.red

    def pause(self) -> None:
        self._pause(paused=True)

    def resume(self) -> None:
        self._pause(paused=False)

    def _pause(self, *, paused: bool) -> None:
        self.shown = dataclasses.replace(self.shown, paused=paused)
        self._task = asyncio.get_running_loop().create_task(self.touch())

    def plot(self) -> bytes:
        return self.picture

    def live_plot(self, entry_id: int) -> bytes:
        return self.live_pictures.get(entry_id, b"")

    async def report(self, entry_id: int, ending: str, name: str = "") -> bytes | None:
        return self.reports.get(entry_id) if ending == ".html" else self.figures.get((entry_id, name))

    async def plot_of(self, entry_id: int, name: str, kind: str) -> bytes | None:
        if self.held_plots:
            raise ValueError(self.held_plots)
        return self.plots.get((entry_id, name, kind))


@dataclasses.dataclass
class Answer:
    """The response of a server."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    address: str, path: str, method: str = "GET", headers: dict[str, str] | None = None, body: str | None = None
) -> Answer:
    """Send a request to a server at ``host:port``, and return its response."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=WAIT_SECONDS)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())


class Served:
    """Context manager for a `Desk` and its live page, in an event loop in a thread."""

    def __init__(self, settings: WebSettings | None = None, shown: Snapshot | None = None) -> None:
        self.settings = settings or WebSettings(listen="127.0.0.1:0")
        self.desk = Desk(shown)
        self.page = LivePage(self.settings, self.desk)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="live page")

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self.run(self.page.start())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.run(self.page.close())
        finally:
            self._end()

    def _end(self) -> None:
        self.run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def address(self) -> str:
        return self.page.address

    def run(self, work: Any) -> Any:
        """Run a coroutine in the loop, and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_SECONDS)

    def call(self, function: Callable[..., R], *args: Any) -> R:
        """Call a function in the loop, and return its result."""
        result: concurrent.futures.Future[R] = concurrent.futures.Future()
        self._loop.call_soon_threadsafe(lambda: result.set_result(function(*args)))
        return result.result(WAIT_SECONDS)

    def show(self, shown: Snapshot) -> None:
        """Replace the state that the page shows."""
        self.run(self.desk.show(shown))

    def ask(self, path: str, method: str = "GET", body: str | None = None, **headers: str) -> Answer:
        """Send a request to the page; ``_`` in the names of headers stands for ``-``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return ask(self.address, path, method, named, body)

    @contextlib.contextmanager
    def listening(self, path: str = "/events", **headers: str) -> Iterator[Listener]:
        """Yield a listener to the server-sent events."""
        host, _, port = self.address.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=WAIT_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers)
            with contextlib.closing(connection.getresponse()) as response:
                yield Listener(response)


@dataclasses.dataclass
class Listener:
    """A client that reads server-sent events."""

    response: http.client.HTTPResponse

    def next(self) -> tuple[str, Any]:
        """Return name and data of the next event."""
        lines = []
        while line := self.response.readline().decode().rstrip("\n"):
            lines.append(line)
        fields = dict(line.split(": ", 1) for line in lines if not line.startswith(":"))
        return fields["event"], json.loads(fields["data"])


def write_token(path: pathlib.Path, text: str = f"{TOKEN}\n", mode: int = 0o600) -> pathlib.Path:
    """Write a file with a token."""
    path.write_text(text)
    path.chmod(mode)
    return path


def hang(address: str, request: bytes, source: str = "127.0.0.1") -> socket.socket:
    """Return a client, at an address of this computer, that sends a request and reads nothing."""
    host, _, port = address.rpartition(":")
    client = socket.socket()
    # With a small buffer, the server soon notices that nothing is read.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(WAIT_SECONDS)
    client.bind((source, 0))
    client.connect((host, int(port)))
    client.sendall(request)
    return client
