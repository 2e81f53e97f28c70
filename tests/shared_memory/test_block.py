"""What threads and processes share: events wake who waits, locks exclude, and killed processes stop nobody."""

from __future__ import annotations

import functools
import multiprocessing
import os
import pathlib
import pickle
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dcnumd.shared_memory.block import SharedBlock, SharedEvent, SharedLock, SharedNumber

spawn = multiprocessing.get_context("spawn")
LONG = 30.0
SHORT = 0.05


def wait_for(event: SharedEvent, connection: Any) -> None:
    """In a child: say that it waits, and then what came of it."""
    connection.send("waiting")
    connection.send(event.wait(LONG))
    event.clear()
    connection.send(event.is_set())


def hold(number: SharedNumber, connection: Any) -> None:
    """In a child: take the lock, and keep it until killed."""
    with number:
        number.value = 7
        connection.send("held")
        connection.recv()


def count(number: SharedNumber, connection: Any) -> None:
    """In a child: add one, many times."""
    connection.send("begun")
    for _ in range(300):
        with number.get_lock():
            number.value += 1


@pytest.fixture
def start() -> Any:
    """Return a function that starts a function of this module in a process and gives both and its pipe."""
    processes = []

    def begin(function: Callable[..., None], shared: object) -> tuple[Any, Any]:
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=function, args=(shared, theirs), daemon=True)
        process.start()
        theirs.close()
        processes.append(process)
        return process, ours

    yield begin
    for process in processes:
        process.kill()
        process.join()


def test_event_is_set_and_reset() -> None:
    """It does what `multiprocessing.Event` does, however often it is set."""
    theirs = multiprocessing.Event()
    ours = SharedEvent()
    for event in (theirs, ours):
        assert not event.is_set()
        assert event.wait(0) is False
        assert event.wait(-1) is False
        for _ in range(3):
            event.set()
        assert event.is_set()
        assert event.wait() is True
        assert event.wait(LONG) is True, "waiting takes nothing away"
        event.clear()
        assert not event.is_set()
        event.clear()
        begin = time.perf_counter()
        assert event.wait(SHORT) is False
        assert time.perf_counter() - begin >= SHORT


def test_event_wakes_all_threads() -> None:
    """Nobody that waits is forgotten."""
    event = SharedEvent()
    woken: list[bool] = []
    threads = [threading.Thread(target=lambda: woken.append(event.wait(LONG))) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert not woken
    event.set()
    for thread in threads:
        thread.join(LONG)
    assert woken == [True] * 3


def test_event_wakes_another_process(start: Any) -> None:
    """What is set and reset in one process is so in the other."""
    event = SharedEvent()
    process, connection = start(wait_for, event)
    assert connection.recv() == "waiting"
    event.set()
    assert connection.recv() is True
    assert connection.recv() is False
    assert not event.is_set()
    process.join(LONG)
    event.set()
    assert event.is_set(), "the end of a process takes nothing with it"


def test_number_is_shared_and_locked(start: Any) -> None:
    """Adding under its lock loses nothing, neither between threads nor between processes."""
    number = SharedNumber()
    children = [start(count, number) for _ in range(2)]
    for _, connection in children:
        assert connection.recv() == "begun"

    def add() -> None:
        for _ in range(300):
            with number:
                number.value += 1

    threads = [threading.Thread(target=add) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    for process, _ in children:
        process.join(LONG)
    assert number.value == 4 * 300


def test_number_has_the_methods_of_a_value() -> None:
    """Its lock can be taken in all the ways of `multiprocessing.Value`, and again by the thread that has it."""
    for number in (multiprocessing.Value("q", 0), SharedNumber()):
        assert number.value == 0
        with number.get_lock(), number:
            number.value += 1
            assert number.acquire()
            number.release()
            assert not in_thread(functools.partial(number.get_lock().acquire, False))
        assert in_thread(functools.partial(take, number.get_lock()))
        assert number.value == 1


def in_thread(function: Callable[[], Any]) -> Any:
    """Return what a function returns in another thread."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join(LONG)
    return results[0]


def take(lock: Any) -> bool:
    """Take a lock if that is possible at once, give it back, and return whether it was."""
    return bool(lock.acquire(False)) and lock.release() is None


def test_lock_of_a_killed_process_is_free(start: Any) -> None:
    """The system gives it back, also to one that waits for it."""
    number = SharedNumber()
    process, connection = start(hold, number)
    assert connection.recv() == "held"
    assert not number.acquire(False)
    assert in_thread(lambda: number.acquire(False)) is False
    os.kill(process.pid, signal.SIGKILL)
    with number:
        assert number.value == 7


def test_lock_is_released_by_its_holder_only() -> None:
    """Anybody else is told, and nothing changes."""
    lock = SharedBlock(1).lock
    with pytest.raises(RuntimeError, match="only by the thread that holds it"):
        lock.release()
    with lock:

        def release() -> str:
            try:
                lock.release()
            except RuntimeError as error:
                return str(error)
            return ""

        assert "only by the thread" in in_thread(release)
        assert not in_thread(lambda: lock.acquire(False))
    assert isinstance(lock, SharedLock)


def test_all_that_use_a_block_have_its_lock() -> None:
    """Two that were unpickled in the same process exclude each other, too."""
    block = SharedBlock(4096)
    packed = pickle.dumps(block)
    first, second = pickle.loads(packed), pickle.loads(packed)  # noqa: S301 -- from the line above
    assert first.array(0, (1,), np.int64)[0] == 0
    for taken, other in ((first, second), (first, block), (block, second)):
        with taken.lock:
            assert not in_thread(functools.partial(other.lock.acquire, False))


def open_files() -> int:
    """Return the number of descriptors of this process."""
    return len(list(pathlib.Path("/proc/self/fd").iterdir()))


def test_descriptors_are_closed() -> None:
    """What is no longer used costs nothing."""
    before = open_files()
    for _ in range(20):
        SharedEvent().set()
        SharedNumber().value = 1
        SharedEvent.attach(os.getpid(), (event := SharedEvent()).fileno()).set()
        assert event.is_set()
    del event
    assert open_files() == before
