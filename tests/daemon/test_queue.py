"""The order in which measurements get their turn."""

from __future__ import annotations

import pathlib

import pytest

from dcnumd.daemon.ledger import Ledger
from dcnumd.daemon.queue import JobQueue
from dcnumd.logic.stamp import Stamp


@pytest.fixture
def entry_of(tmp_path):
    with Ledger.open(tmp_path) as ledger:

        def make(name, date):
            return ledger.add(f"/in/{name}", Stamp(10, date, date, 1), name)

        yield make


def names(queue):
    found = []
    while (waiting := queue.take()) is not None:
        found.append(pathlib.PurePath(waiting.entry.path).name)
    return found


@pytest.mark.parametrize(("order", "expected"), [("oldest", "urgent old mid new"), ("newest", "urgent new mid old")])
def test_priority_comes_before_age(entry_of, order, expected):
    """Measurements of a folder with higher priority are first, then age decides, one way or the other."""
    queue = JobQueue(order)
    for name, date, priority in (("mid", 20, 0), ("new", 30, 0), ("urgent", 25, 3), ("old", 10, 0)):
        queue.put(entry_of(name, date), priority)
    assert len(queue) == 4
    assert queue.oldest_wait() > 0
    assert names(queue) == expected.split()
    assert queue.oldest_wait() == 0


def test_parked_measurements_keep_nobody_waiting(entry_of):
    """What waits for one folder lets the others pass, and takes its old place when that folder is free."""
    queue = JobQueue("oldest")
    for name, date in (("a1", 1), ("b1", 2), ("a2", 3)):
        queue.put(entry_of(name, date), 0)
    first = queue.take()
    queue.park(first, pathlib.Path("/a"))
    assert (len(queue), [waiting.entry.job_id for waiting in queue.parked(pathlib.Path("/a"))]) == (3, ["a1"])
    second = queue.take()
    assert second.entry.job_id == "b1"
    queue.release(pathlib.Path("/a"))
    queue.put_back(second)
    assert names(queue) == ["a1", "b1", "a2"]
