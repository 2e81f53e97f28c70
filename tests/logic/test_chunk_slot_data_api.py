"""The documented interface of `chunk_slot_data`, line by line, beside dcnum's module."""

from __future__ import annotations

import multiprocessing
import random
from typing import Any

import dcnum.logic.chunk_slot_data as theirs
import numpy as np
import pytest

from dcnumd.logic import chunk_slot_data as ours
from tests.support.api import kind_of, parameters

SHAPE = (10, 8, 12)
ALL = ["image_bg", "bg_off"]
ARRAYS = ("image", "image_bg", "image_corr", "bg_off", "mask", "labels")
WORKFLOW = "ismlewd"


@pytest.mark.parametrize("name", ["__init__", "acquire_task_lock", "release_task_lock", "get_progress"])
def test_methods_have_the_documented_parameters(name: str) -> None:
    """Names, kinds and defaults are dcnum's."""
    assert parameters(getattr(ours.ChunkSlotData, name)) == parameters(getattr(theirs.ChunkSlotData, name))
    assert kind_of(ours.ChunkSlotData, name) == kind_of(theirs.ChunkSlotData, name)


@pytest.mark.parametrize("name", ["chunk", "state", *ARRAYS])
def test_properties_are_those_documented(name: str) -> None:
    """What can be read and what can be set is the same."""
    mine, other = getattr(ours.ChunkSlotData, name), getattr(theirs.ChunkSlotData, name)
    assert isinstance(mine, property)
    assert (mine.fset is None) == (other.fset is None)


def test_module_has_a_context_for_processes() -> None:
    """Slots go to processes that are spawned."""
    assert ours.mp_spawn is theirs.mp_spawn is multiprocessing.get_context("spawn")


@pytest.mark.parametrize("features", [None, [], ["image_bg"], ["bg_off"], ALL, ("deform", "image_bg")])
def test_new_slot_is_as_in_dcnum(features: Any) -> None:
    """State, chunk, and for each array whether it is there, its type, shape and content."""
    mine, other = ours.ChunkSlotData(SHAPE, features), theirs.ChunkSlotData(SHAPE, features)
    for name in ("shape", "length", "chunk", "state"):
        assert getattr(mine, name) == getattr(other, name)
        assert type(getattr(mine, name)) is type(getattr(other, name))
    assert (mine._state.value, mine._chunk.value) == (other._state.value, other._chunk.value) == ("i", -1)
    assert mine.get_progress() == other.get_progress() == 0
    for name in ARRAYS:
        got, expected = getattr(mine, name), getattr(other, name)
        assert (got is None) == (expected is None)
        if expected is not None:
            assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
            np.testing.assert_array_equal(got, expected)


def test_arrays_are_views_on_one_memory() -> None:
    """What is written into one is there the next time, and nowhere else."""
    slot = ours.ChunkSlotData(shape=SHAPE, available_features=ALL)
    for number, name in enumerate(ARRAYS):
        getattr(slot, name)[3:] = number + 1
    for number, name in enumerate(ARRAYS):
        array = getattr(slot, name)
        assert not array[:3].any()
        assert (array[3:] == (True if name == "mask" else number + 1)).all()


def test_arrays_of_reservations_and_progress() -> None:
    """They say for each frame whether somebody has it, and whether it is done; the lock guards them."""
    slot, other = ours.ChunkSlotData(SHAPE), theirs.ChunkSlotData(SHAPE)
    for one in (slot, other):
        assert one.acquire_task_lock("i", 4) == (0, 4)
        one.release_task_lock(0, 2)
        one.release_task_lock(2, 3, task_done=False)
        assert list(one._task_reserve_array) == [False] * 3 + [True] + [False] * 6
        assert list(one._task_progress_array) == [True] * 2 + [False] * 8
        assert one._task_reserve_lock.acquire()
        one._task_reserve_lock.release()
        with one._task_reserve_lock:
            one._task_reserve_array[3] = False
        assert one.acquire_task_lock("i") == (2, 10)


def test_workflow_goes_round() -> None:
    """Each state can be followed by the next, and the work of one counts for that one only."""
    slot = ours.ChunkSlotData(SHAPE)
    for chunk in range(2):
        slot.chunk = chunk
        for state in WORKFLOW:
            slot.state = state
            assert slot.state == slot._state.value == state
            assert slot.chunk == slot._chunk.value == chunk
            assert slot.acquire_task_lock("n") == (0, 0)
            assert slot.acquire_task_lock(req_state=state, batch_size=None) == (0, 10)
            assert slot.acquire_task_lock(state) == (0, 0)
            assert slot.get_progress() == 0
            slot.release_task_lock(start=0, stop=10, task_done=True)
            assert slot.get_progress() == 1
            assert slot.acquire_task_lock(state) == (0, 0)


@pytest.mark.parametrize("seed", range(20))
def test_any_course_of_events_is_as_in_dcnum(seed: int) -> None:
    """Reservations, releases and states, in whatever order, give dcnum's answers."""
    choice = random.Random(seed)
    mine, other = ours.ChunkSlotData(SHAPE), theirs.ChunkSlotData(SHAPE)
    held: list[tuple[int, int]] = []
    for _ in range(120):
        what = choice.random()
        if what < 0.5:
            state, size = choice.choice("is"), choice.choice([None, 1, 2, 3, 20])
            batch = mine.acquire_task_lock(state, size)
            assert batch == other.acquire_task_lock(state, size)
            assert [type(index) for index in batch] == [int, int]
            if batch != (0, 0):
                held.append(batch)
        elif what < 0.9 and held:
            batch = held.pop(choice.randrange(len(held)))
            done = choice.random() < 0.7
            for slot in (mine, other):
                slot.release_task_lock(*batch, task_done=done)
        else:
            state = choice.choice("is")
            mine.state = other.state = state
        assert mine.state == other.state
        progress = mine.get_progress()
        assert progress == other.get_progress()
        assert 0 <= progress <= 1
        assert isinstance(progress, float)


def see(connection: Any) -> None:
    """In a child: tell what a slot is like, and go on with it."""
    slot = connection.recv()
    connection.send((slot.shape, slot.length, slot.chunk, slot.state, slot.acquire_task_lock("s", 3), slot.bg_off[0]))
    slot.release_task_lock(4, 7)
    slot.chunk, slot.state = 8, "m"
    slot.labels[:] = 9
    connection.send("done")


def test_other_processes_have_the_same_slot() -> None:
    """States, chunks, reservations and data are shared."""
    slot = ours.ChunkSlotData(SHAPE, ALL)
    slot.chunk, slot.state = 7, "s"
    slot.bg_off[0] = 0.5
    assert slot.acquire_task_lock("s", 4) == (0, 4)
    connection, other = ours.mp_spawn.Pipe()
    process = ours.mp_spawn.Process(target=see, args=(other,), daemon=True)
    process.start()
    connection.send(slot)
    assert connection.recv() == (SHAPE, 10, 7, "s", (4, 7), 0.5)
    assert connection.recv() == "done"
    process.join(30)
    assert (slot.chunk, slot.state, slot.get_progress()) == (8, "m", 0)
    assert (slot.labels == 9).all()
    assert slot.acquire_task_lock("m") == (4, 10)
