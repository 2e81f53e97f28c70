"""A pipe within one process: what a worker thread and its pool say to each other."""

from __future__ import annotations

import multiprocessing.connection
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from dcnumd.processes.local_pipe import LocalEnd

Ends = tuple[LocalEnd, LocalEnd]
wait = multiprocessing.connection.wait


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Give both ends of a pipe."""
    pair = LocalEnd.pair()
    yield pair
    for end in pair:
        end.close()


def test_objects_arrive_as_they_are_and_in_order(ends: Ends) -> None:
    """Nothing is copied, in either direction, and nothing needs to be picklable."""
    here, there = ends
    sent = [threading.Lock(), lambda: None, {}]
    for end, other in ((here, there), (there, here)):
        for thing in sent:
            end.send(thing)
        assert all(other.recv() is thing for thing in sent)


def test_it_can_be_waited_for_with_others(ends: Ends) -> None:
    """An end is ready while something lies there, and when the other end is closed."""
    here, there = ends
    assert wait([here, there], 0) == []
    here.send(1)
    here.send(2)
    assert wait([here, there], 0) == [there]
    assert there.recv() == 1
    assert wait([here, there], 0) == [there]
    assert there.recv() == 2
    assert wait([here, there], 0) == []
    there.close()
    assert wait([here], 0) == [here]


def test_reader_waits_until_something_is_sent(ends: Ends) -> None:
    """It is woken by it."""
    here, there = ends
    received: list[Any] = []
    thread = threading.Thread(target=lambda: received.append(there.recv()))
    thread.start()
    here.send("word")
    thread.join(30)
    assert received == ["word"]


def test_closed_end_is_noticed(ends: Ends) -> None:
    """What was sent before is read first; then there is an end, as with a pipe between processes."""
    here, there = ends
    here.send("last")
    here.close()
    assert there.recv() == "last"
    with pytest.raises(EOFError):
        there.recv()
    with pytest.raises(BrokenPipeError):
        there.send("too late")
