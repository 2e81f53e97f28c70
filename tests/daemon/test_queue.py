"""The order in which measurements get their turn."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest

from dcnumd.daemon.ledger.store import Ledger
from dcnumd.daemon.measurements.queue import JobQueue
from dcnumd.logic.stamp import Stamp
from tests.support.loop import in_loop


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
@in_loop
async def test_priority_comes_before_age(entry_of, order, expected):
    """Measurements of a folder with higher priority are first, then age decides, one way or the other."""
    queue = JobQueue(order)
    for name, date, priority in (("mid", 20, 0), ("new", 30, 0), ("urgent", 25, 3), ("old", 10, 0)):
        queue.put(entry_of(name, date), priority)
    assert len(queue) == 4
    assert queue.oldest_wait() > 0
    assert names(queue) == expected.split()
    assert queue.oldest_wait() == 0


@in_loop
async def test_parked_measurements_keep_nobody_waiting(entry_of):
    """What waits for one folder lets the others pass, and takes its old place when that folder is free."""
    queue = JobQueue("oldest")
    for name, date in (("a1", 1), ("b1", 2), ("a2", 3)):
        queue.put(entry_of(name, date), 0)
    first = queue.take()
    queue.park(first, pathlib.Path("/a"))
    assert (len(queue), [waiting.entry.job_id for waiting in queue.parked(pathlib.Path("/a"))]) == (3, ["a1"])
    assert queue.take().entry.job_id == "b1"
    queue.release(pathlib.Path("/a"))
    assert names(queue) == ["a1", "a2"]


@in_loop
async def test_path_is_queued_once(entry_of):
    """Who is put in again has one turn, at its new place, and has waited since the first time."""
    queue = JobQueue("oldest")
    queue.put(entry_of("again", 1), 0)
    queue.put(entry_of("other", 2), 0)
    since = queue._present["/in/again"].since
    queue.put(entry_of("again", 3), 0)
    assert len(queue) == 2
    assert queue._present["/in/again"].since == since
    assert names(queue) == ["other", "again"]
    assert not queue


@in_loop
async def test_parked_path_that_is_put_in_again_has_one_turn(entry_of):
    """Neither the parked one nor the one that was in its turn meanwhile comes a second time."""
    queue, folder = JobQueue("oldest"), pathlib.Path("/a")
    queue.put(entry_of("parked", 1), 0)
    queue.put(entry_of("parked later", 2), 0)
    queue.park(queue.take(), folder)
    later = queue.take()
    queue.put(entry_of("parked", 3), 0)
    queue.put(entry_of("parked later", 4), 0)
    queue.park(later, folder)
    assert (len(queue), queue.parked(folder)) == (2, [])
    queue.release(folder)
    assert names(queue) == ["parked", "parked later"]


@in_loop
async def test_removed_measurement_has_no_turn(entry_of):
    """Whoever has its turn already is taken out; another content under its path stays."""
    queue = JobQueue("oldest")
    entry = entry_of("M", 1)
    queue.put(entry, 0)
    queue.remove(dataclasses.replace(entry, id=entry.id + 1))
    assert len(queue) == 1
    queue.remove(entry)
    assert (len(queue), names(queue)) == (0, [])
