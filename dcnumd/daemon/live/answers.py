"""Tells other processes, such as `dcnumd status`, in which condition the daemon is, and which workers have its jobs.

The ledger does not contain that, since most of it lasts no longer than the daemon, or the ledger is what is wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import pathlib
import socket
import sqlite3
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dcnumd.report.conditions import Condition, conditions_of
from dcnumd.status import Course, Live, LiveCheck, Snapshot

if TYPE_CHECKING:
    from dcnumd.daemon.live.view import View

NAME = "daemon.sock"
"""Name of the socket in the state folder."""
WAIT_SECONDS = 2.0
"""Longest time that a client waits for an answer [s]."""


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What the daemon tells of itself."""

    conditions: tuple[Condition, ...] = ()
    """Its conditions, the most urgent first."""
    workers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Name of the worker of the cluster that processes a measurement, by the path of the measurement."""
    live: Mapping[str, Live] = dataclasses.field(default_factory=dict)
    """What is known of recordings that are processed while they grow, without courses, by their paths."""


async def keep_answering(folder: pathlib.Path, view: View) -> None:
    """Tell each client the present state, until cancelled.

    If the state folder takes no socket, `status` says that the daemon does not answer.
    """

    async def tell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The answer fits into the buffer of the socket, so a client that does not read keeps nothing waiting.
        with contextlib.suppress(OSError, sqlite3.Error), contextlib.closing(writer):
            snapshot = view.snapshot()
            running = (snapshot.running, *snapshot.also_running) if snapshot.running else ()
            workers = {one.path: one.worker for one in running if one.worker}
            answer = Answer(conditions_of(snapshot), workers, _live_of(snapshot))
            writer.write(json.dumps(dataclasses.asdict(answer)).encode("ascii"))

    server = socket.socket(socket.AF_UNIX)
    try:
        with contextlib.suppress(FileNotFoundError):
            (folder / NAME).unlink()
        with _address(folder) as address:
            server.bind(address)
        # Who may enter the folder may read the ledger, which says more.
        (folder / NAME).chmod(0o666)
        async with await asyncio.start_unix_server(tell, sock=server) as serving:
            await serving.serve_forever()
    except OSError:
        server.close()
    finally:
        with contextlib.suppress(OSError):
            (folder / NAME).unlink()


def ask(folder: pathlib.Path) -> Answer | None:
    """Return the answer of the daemon that uses a state folder; None if none answers."""
    try:
        with socket.socket(socket.AF_UNIX) as client, _address(folder) as address:
            client.settimeout(WAIT_SECONDS)
            client.connect(address)
            with client.makefile("rb") as answer:
                told = json.load(answer)
        conditions = (Condition(**{**one, "folders": tuple(one["folders"])}) for one in told["conditions"])
        live = {path: _as_live(one) for path, one in told["live"].items()}
        return Answer(tuple(conditions), dict(told["workers"]), live)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _live_of(snapshot: Snapshot) -> dict[str, Live]:
    """Return what is known of each recording that is processed while it grows, without the courses."""
    nothing = Course()
    return {
        one.path: dataclasses.replace(one.live, event_rate=nothing, brightness=nothing)
        for one in snapshot.recording
        if one.live is not None
    }


def _as_live(told: dict[str, Any]) -> Live:
    """Return what `_live_of` has said of a recording."""
    checks = tuple(LiveCheck(**check) for check in told["checks"])
    return Live(**{**told, "checks": checks, "event_rate": Course(), "brightness": Course()})


@contextlib.contextmanager
def _address(folder: pathlib.Path) -> Iterator[str]:
    """Yield the address of the socket. Why not its path: an address has 107 bytes at most."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{NAME}"
    finally:
        os.close(descriptor)
