"""Slots: states, reservations and memory that other processes see."""

from __future__ import annotations

import multiprocessing
import os
import signal

import numpy as np
import pytest
from dcnum.logic.chunk_slot_data import ChunkSlotData as DcnumSlot

from dcnumd.logic.slot_register import SlotRegister
from dcnumd.shared_memory.slot import VALID_STATES, ChunkSlotData

SHAPE = (10, 8, 12)
spawn = multiprocessing.get_context("spawn")


def reserve_and_hang(connection):
    """Child process: reserve two frames, write to them, then hold the reservation lock until killed."""
    slot = connection.recv()
    start, stop = slot.acquire_task_lock("i", 2)
    slot.image[start:stop] = 77
    with slot._task_reserve_lock:
        connection.send((start, stop))
        connection.recv()


def read_after_reshape(connection):
    """Child process: report what is seen of a slot, again and again."""
    while (slot := connection.recv()) is not None:
        connection.send((slot.shape, slot.length, slot.chunk, int(slot.image.sum())))


@pytest.fixture
def child(request):
    """Start a function of this module as a process; give its pipe."""
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=request.param, args=(theirs,), daemon=True)
    process.start()
    yield ours, process
    process.kill()
    process.join()


def test_features_decide_which_arrays_there_are():
    """What the input does not have takes no memory and is None."""
    bare = ChunkSlotData(SHAPE)
    assert bare.image_bg is None
    assert bare.image_corr is None
    assert bare.bg_off is None
    full = ChunkSlotData(SHAPE, ["image_bg", "bg_off"])
    dtypes = {name: getattr(full, name).dtype for name in ("image", "image_bg", "image_corr", "mask", "labels")}
    assert dtypes == {"image": "u1", "image_bg": "u1", "image_corr": "<i2", "mask": "?", "labels": "<u2"}
    assert full.bg_off.shape == SHAPE[:1]
    assert full.labels.shape == SHAPE


def test_state_accepts_documented_letters_only():
    """All documented states can be set, others are refused with the list of valid ones."""
    slot = ChunkSlotData(SHAPE)
    assert slot.state == "i"
    for state in VALID_STATES:
        slot.state = state
        assert slot.state == state
    with pytest.raises(ValueError, match="must be one of 0, i, s, m, l, e, w, d, n"):
        slot.state = "x"


def test_reservations_are_contiguous_and_never_overlap():
    """Batches come from what is free, even when a middle one was given back."""
    slot = ChunkSlotData(SHAPE)
    assert slot.acquire_task_lock("s", 4) == (0, 0)
    assert [slot.acquire_task_lock("i", 4) for _ in range(4)] == [(0, 4), (4, 8), (8, 10), (0, 0)]
    slot.release_task_lock(4, 8, task_done=False)
    assert slot.get_progress() == 0
    assert slot.acquire_task_lock("i", 3) == (4, 7)
    assert slot.acquire_task_lock("i") == (7, 8)
    slot.release_task_lock(0, 4)
    assert slot.get_progress() == pytest.approx(0.4)
    assert slot.acquire_task_lock("i") == (0, 0), "a task that is done is not handed out again"


def test_no_frames_are_reserved_for_an_empty_batch():
    """Where no lock is acquired, the answer is (0, 0), wherever the next free frame is."""
    slot = ChunkSlotData(SHAPE)
    assert slot.acquire_task_lock("i", 4) == (0, 4)
    assert slot.acquire_task_lock("i", 0) == (0, 0)
    assert slot.acquire_task_lock("i", -2) == (0, 0)
    assert slot.acquire_task_lock("i") == (4, 10)


def test_progress_is_complete_after_all_batches():
    """A slot is done when each batch was released as done; the next state starts at zero."""
    slot = ChunkSlotData(SHAPE)
    slot.length = 7
    while (batch := slot.acquire_task_lock("i", 3)) != (0, 0):
        slot.release_task_lock(*batch)
    assert slot.get_progress() == 1
    slot.state = "s"
    assert slot.get_progress() == 0
    assert slot.image.shape == (7, 8, 12)


def test_reservations_survive_a_change_of_state():
    """Who has frames keeps them until they are released; a new state only takes the progress back, as in dcnum."""
    slots = ChunkSlotData(SHAPE), DcnumSlot(SHAPE)
    for slot in slots:
        assert slot.acquire_task_lock("i", 4) == (0, 4)
        slot.release_task_lock(0, 4)
        assert slot.acquire_task_lock("i", 3) == (4, 7)
        slot.state = "i"
        assert slot.get_progress() == 0.4, "that was no change"
        slot.release_task_lock(0, 2, task_done=False)
        assert slot.get_progress() == 0.4, "what is done is done"
        slot.state = "s"
        assert slot.get_progress() == 0
        assert slot.acquire_task_lock("s") == (0, 4)
        slot.release_task_lock(4, 7, task_done=False)
        assert slot.acquire_task_lock("s") == (4, 10)


def test_state_and_chunk_are_shared_values():
    """Their places in the shared memory have a value, as dcnum's have."""
    slot = ChunkSlotData(SHAPE)
    slot.chunk, slot.state = 5, "e"
    assert (slot._chunk.value, slot._state.value) == (5, "e")
    slot._chunk.value, slot._state.value = 6, "w"
    assert (slot.chunk, slot.state) == (6, "w")
    slot.reshape((3, 4, 5))
    assert (slot._chunk.value, slot._state.value) == (-1, "i")


@pytest.mark.parametrize("child", [reserve_and_hang], indirect=True)
def test_killed_process_leaves_no_lock_behind(child):
    """A process that is killed while it holds the reservation lock stops nobody else."""
    connection, process = child
    slot = ChunkSlotData(SHAPE)
    connection.send(slot)
    assert connection.recv() == (0, 2)
    assert slot.image[:2].min() == 77
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)
    assert slot.acquire_task_lock("i", 4) == (2, 6)


@pytest.mark.parametrize("child", [read_after_reshape], indirect=True)
def test_running_process_sees_slots_made_and_grown_after_its_start(child):
    """Memory is attached by name: new slots and grown ones reach a process that runs already."""
    connection, _ = child
    slot = ChunkSlotData(SHAPE)
    slot.image[:] = 1
    connection.send(slot)
    assert connection.recv() == (SHAPE, 10, -1, 960)
    slot.reshape((40, 30, 20), ["image_bg"])
    slot.chunk, slot.length = 3, 5
    slot.image[:] = 2
    connection.send(slot)
    assert connection.recv() == ((40, 30, 20), 5, 3, 6000)
    connection.send(None)


def test_reshaping_keeps_memory_and_grows_only_when_it_must():
    """A smaller chunk uses the memory of the larger one before it."""
    register = SlotRegister(2)
    before = [slot.handle for slot in register.prepare((50, 80, 320), ["image_bg"])]
    smaller = [slot.handle for slot in register.prepare((40, 45, 100), ["image_bg", "bg_off"])]
    assert smaller == before
    larger = [slot.handle for slot in register.prepare((50, 100, 1010), ["image_bg"])]
    assert [handle.descriptor for handle in larger] == [handle.descriptor for handle in before]
    assert all(new.size > old.size for new, old in zip(larger, before, strict=True))


def test_nothing_is_left_in_shared_memory():
    """The memory of a slot has no name that a killed process could leave behind."""
    slot = ChunkSlotData((1000, 80, 320), ["image_bg"])
    slot.image[:] = np.uint8(1)
    status = os.fstat(slot.handle.descriptor)
    assert status.st_nlink == 0
    assert status.st_blocks * 512 >= slot.image.nbytes, "this is the memory"
