"""What is told to systemd, heard at a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import pytest

from dcnumd.daemon.systemd import Notifier
from tests.support.loop import in_loop

WATCHDOG_SECONDS = 0.6


class Manager:
    """The service manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.settimeout(10)

    def close(self) -> None:
        self.socket.close()

    def hear(self) -> list[str]:
        """Wait for the next message and return its lines."""
        return self.socket.recv(4096).decode().split("\n")

    def hear_all(self) -> list[list[str]]:
        """Return all messages that are there."""
        self.socket.setblocking(False)
        messages = []
        try:
            while True:
                messages.append(self.hear())
        except BlockingIOError:
            return messages


@pytest.fixture
def at_path() -> Iterator[Manager]:
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(Manager(f"{folder}/notify")) as listening:
        yield listening


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, at_path: Manager) -> Iterator[Manager]:
    if request.param == "path":
        yield at_path
        return
    with contextlib.closing(Manager(f"@dcnumd-test-{os.getpid()}")) as listening:
        yield listening


def test_each_state_is_told_in_its_own_message(manager):
    """Ready, status and stopping arrive as sd_notify defines them, at sockets of both kinds."""
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": manager.address})
    notifier.ready()
    notifier.status("3 measurements wait")
    notifier.watchdog()
    notifier.stopping()
    told = [manager.hear() for _ in range(4)]
    assert told == [["READY=1"], ["STATUS=3 measurements wait"], ["WATCHDOG=1"], ["STOPPING=1"]]


def test_a_reload_is_told_with_its_time(at_path):
    """A reload carries the monotonic time at which it began, by which systemd orders the messages."""
    notifier = Notifier(at_path.address)
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    first, second = at_path.hear()
    assert first == "RELOADING=1"
    name, _, value = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(value) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("M001\nREADY=1.rtdc", "M001?READY=1.rtdc"),
        ("M\udcff1.rtdc", "M?1.rtdc"),
        ("Messung_Größe_µm.rtdc", "Messung_Größe_µm.rtdc"),
    ],
    ids=["line break", "not Unicode", "letters"],
)
def test_status_is_always_one_valid_line(at_path, name, told):
    """A file's name cannot smuggle in a message of its own, or make systemd drop the status."""
    Notifier(at_path.address).status(f"processing {name}")
    assert at_path.hear() == [f"STATUS=processing {told}"]


def test_child_processes_inherit_nothing(at_path, monkeypatch):
    """Neither variables nor an open socket go to the children, which must not speak in the daemon's name."""
    monkeypatch.setenv("NOTIFY_SOCKET", at_path.address)
    monkeypatch.setenv("WATCHDOG_USEC", "600000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    notifier = Notifier.from_environment()
    assert notifier.watchdog_seconds == pytest.approx(0.6)
    code = "import os; print([name for name in os.environ if name.startswith(('NOTIFY', 'WATCHDOG'))])"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "[]"
    notifier.ready()
    assert at_path.hear() == ["READY=1"]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": ""},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "600000", "WATCHDOG_PID": "1"},
    ],
    ids=["not asked", "empty", "no number", "zero", "another process"],
)
def test_no_watchdog_unless_this_process_is_asked(environment):
    """Only a time that is meant for this process counts, and the variables go in any case."""
    notifier = Notifier.from_environment(environment)
    assert notifier.watchdog_seconds is None
    assert environment == {}
    asyncio.run(asyncio.wait_for(notifier.keep_alive(lambda: True), 10))


@pytest.mark.parametrize(
    "address",
    ["/nonexistent/notify", "@dcnumd-nobody-listens", "vsock:2:1234", "/" + "x" * 200, "/a\0b", "@", "", "relative"],
)
def test_a_missing_or_broken_socket_never_hurts(address):
    """Whatever the variable says, the daemon goes on."""
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address})
    notifier.ready()
    notifier.status("working")
    notifier.stopping()


def test_a_service_manager_that_takes_no_messages_does_not_hold_the_daemon(at_path):
    """When the socket is full, a message is lost instead of the daemon's time."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as flood:
        flood.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                flood.sendto(b"STATUS=", at_path.address)
    Notifier(at_path.address).watchdog()
    assert ["WATCHDOG=1"] not in at_path.hear_all()


async def heard(manager: Manager, notifier: Notifier, is_alive: Callable[[], bool], count: int) -> list[float]:
    """Run the watchdog's task until it was heard `count` times; return when that was, in parts of its time."""
    manager.socket.setblocking(False)
    loop = asyncio.get_running_loop()
    begin = loop.time()
    task = asyncio.create_task(notifier.keep_alive(is_alive))
    times = []
    async with asyncio.timeout(100 * WATCHDOG_SECONDS):
        while len(times) < count:
            assert await loop.sock_recv(manager.socket, 4096) == b"WATCHDOG=1"
            times.append((loop.time() - begin) / WATCHDOG_SECONDS)
    task.cancel()
    return times


@in_loop
async def test_the_watchdog_is_fed_from_the_event_loop(at_path):
    """While all is well, it is fed again and again, the first time after a part of its time."""
    times = await heard(at_path, Notifier(at_path.address, WATCHDOG_SECONDS), lambda: True, 4)
    assert times[0] >= 1 / 3
    assert times[-1] >= 4 / 3


@in_loop
async def test_the_watchdog_is_not_fed_while_the_rest_is_not_alive(at_path):
    """Without a pipeline process the event loop alone does not count, and counts again when there is one."""
    answers = itertools.chain([False, False, False], itertools.repeat(True))
    (fed,) = await heard(at_path, Notifier(at_path.address, WATCHDOG_SECONDS), lambda: next(answers), 1)
    assert fed >= 4 / 3


def test_a_loop_that_hangs_again_and_again_is_not_alive(at_path):
    """A loop that hung says so, and is fed for only once it is punctual again."""
    notifier = Notifier(at_path.address, WATCHDOG_SECONDS)

    async def hang_and_recover() -> list[list[str]]:
        task = asyncio.create_task(notifier.keep_alive(lambda: True))
        for _ in range(3):
            # Let the task begin to wait, then do what must never be done in an event loop.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            time.sleep(0.6 * WATCHDOG_SECONDS)  # noqa: ASYNC251 -- that is the fault
        while_hanging = at_path.hear_all()
        at_path.socket.setblocking(False)
        await asyncio.wait_for(asyncio.get_running_loop().sock_recv(at_path.socket, 4096), 10)
        task.cancel()
        return while_hanging

    assert asyncio.run(hang_and_recover()) == []
