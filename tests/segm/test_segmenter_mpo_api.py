"""The documented interface of `segmenter_mpo`, line by line, beside dcnum's module."""

from __future__ import annotations

import abc
import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from typing import Any

import dcnum.common
import dcnum.segm.segmenter_mpo as theirs
import numpy as np
import pytest
from dcnum.logic.chunk_slot_data import ChunkSlotData as DcnumSlot

from dcnumd.errors import WorkerError
from dcnumd.logic.chunk_slot_data import ChunkSlotData
from dcnumd.processes.processors import physical_cores
from dcnumd.segm import segmenter_mpo as ours
from dcnumd.segm.segm_thresh import SegmentThresh
from dcnumd.segm.segmenter import Segmenter
from tests.support.api import kind_of, parameters

LONG = 30.0


class SegmentDark(ours.MPOSegmenter):
    """A segmenter on raw frames, without post-processing."""

    mask_postprocessing = False

    @staticmethod
    def segment_algorithm(image: Any, *, level: int = 100) -> Any:
        return image < level


def dark_slot(chunk: int = 0, count: int = 6) -> ChunkSlotData:
    """Return a slot with frames that have one dark pixel each, at a place of their own."""
    slot = ChunkSlotData((count, 9, 14))
    slot.image[:] = 200
    slot.image[np.arange(count), 4, np.arange(count) + chunk] = 50
    slot.chunk, slot.state = chunk, "s"
    return slot


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        ("MPOSegmenter", "__init__"),
        ("MPOSegmenter", "__enter__"),
        ("MPOSegmenter", "__exit__"),
        ("MPOSegmenter", "__getstate__"),
        ("MPOSegmenter", "__setstate__"),
        ("MPOSegmenter", "join_workers"),
        ("MPOSegmenter", "reinitialize_workers"),
        ("MPOSegmenter", "segment_batch"),
        ("MPOSegmenter", "segment_chunk"),
        ("MPOSegmenter", "segment_single"),
        ("MPOSegmenter", "close"),
        ("MPOSegmenterWorker", "__init__"),
        ("MPOSegmenterWorker", "run"),
        ("MPOSegmenterWorkerProcess", "__init__"),
        ("MPOSegmenterWorkerProcess", "start"),
        ("MPOSegmenterWorkerThread", "__init__"),
    ],
)
def test_methods_have_the_documented_parameters(cls: str, name: str) -> None:
    """Names, kinds and defaults are dcnum's."""
    assert parameters(getattr(getattr(ours, cls), name)) == parameters(getattr(getattr(theirs, cls), name))
    assert kind_of(getattr(ours, cls), name) == kind_of(getattr(theirs, cls), name)


def test_constructors_have_the_documented_signature() -> None:
    """What a class is called with is what its constructor takes."""
    for name in ("MPOSegmenter", "MPOSegmenterWorker", "MPOSegmenterWorkerProcess", "MPOSegmenterWorkerThread"):
        assert parameters(getattr(ours, name)) == parameters(getattr(theirs, name))


def test_classes_have_the_documented_bases() -> None:
    """A worker is a process or a thread, and a segmenter is abstract."""
    assert ours.MPOSegmenter.__bases__ == (Segmenter, abc.ABC)
    assert ours.MPOSegmenterWorkerProcess.__bases__ == (ours.MPOSegmenterWorker, ours.mp_spawn.Process)
    assert ours.MPOSegmenterWorkerThread.__bases__ == (ours.MPOSegmenterWorker, threading.Thread)
    assert issubclass(ours.MPOSegmenterWorkerProcess, multiprocessing.process.BaseProcess)
    assert ours.MPOSegmenterWorker.__bases__ == (object,)
    assert ours.MPOSegmenter.hardware_processor == "cpu"
    with pytest.raises(TypeError, match="abstract"):
        ours.MPOSegmenter()  # type: ignore[abstract]


def test_attributes_before_the_workers_are_started() -> None:
    """They are there from the beginning, with the documented values."""
    segmenter = SegmentDark(num_workers=3)
    assert segmenter.num_workers == 3
    assert segmenter.slot_list is None
    assert segmenter._worker_starter is None
    assert segmenter._workers == []
    assert segmenter.debug is False
    assert (segmenter.kwargs, segmenter.kwargs_mask) == ({"level": 100}, {})
    for event in (segmenter.mp_active, segmenter.mp_shutdown):
        assert not event.is_set()
        assert event.wait(0) is False
        event.set()
        assert event.wait() is True
        event.clear()
        assert not event.is_set()
    for number in (segmenter.mp_slot_index, segmenter.mp_num_workers_done):
        assert number.value == 0
        with number.get_lock(), number:
            number.value += 2
        assert number.value == 2
    assert SegmentDark(level=3).kwargs == {"level": 3}


def test_physical_cores_are_the_default_number_of_workers() -> None:
    """None and 0 mean all of them; less is refused."""
    for given in ({}, {"num_workers": None}, {"num_workers": 0}):
        # dcnum counts both processors of a core where a process may run on no more than these
        assert SegmentDark(**given).num_workers == physical_cores() <= dcnum.common.cpu_count()
    with pytest.raises(ValueError, match="num_workers is -2, expected at least 1"):
        SegmentDark(num_workers=-2)


def test_events_wake_who_waits_for_them() -> None:
    """A thread that waits for work goes on when the workers may do some."""
    segmenter = SegmentDark(num_workers=1, debug=True)
    woken = []
    waiting = threading.Thread(target=lambda: woken.append(segmenter.mp_active.wait(LONG)))
    waiting.start()
    assert not segmenter.mp_active.is_set()
    with segmenter:
        segmenter.segment_chunk(0, [dark_slot()])
        segmenter.mp_active.set()
        waiting.join(LONG)
    assert woken == [True]
    assert not segmenter.mp_active.is_set(), "no worker is left that may do work"


@pytest.mark.parametrize("debug", [False, True])
def test_attributes_while_a_chunk_is_segmented(debug: bool) -> None:
    """They tell which slot it is, and how many workers are done with it."""
    slots = [dark_slot(chunk) for chunk in range(3)]
    with SegmentDark(num_workers=2, debug=debug) as segmenter:
        assert segmenter.__enter__() is segmenter
        mask = segmenter.segment_chunk(2, slots)
        np.testing.assert_array_equal(mask, slots[2].image < 100)
        assert np.shares_memory(mask, slots[2].mask)
        assert not slots[0].mask.any()
        assert segmenter.slot_list is slots
        assert segmenter.mp_slot_index.value == 2
        assert segmenter.num_workers == len(segmenter._workers) == segmenter.mp_num_workers_done.value == 2 - debug
        assert not segmenter.mp_active.is_set()
        assert not segmenter.mp_shutdown.is_set()
        assert [(worker.sl_start, worker.sl_stop) for worker in segmenter._workers] == (
            [(0, 6)] if debug else [(0, 3), (3, 6)]
        )
        for worker in segmenter._workers:
            assert worker.segmenter is segmenter
            assert worker.slot_list is slots
            assert worker.mp_active is segmenter.mp_active
        with pytest.raises(ValueError, match="no slot holds chunk 7, they hold 0, 1, 2"):
            segmenter.segment_chunk(7, slots)
    assert segmenter.mp_shutdown.is_set()
    assert segmenter._workers == []


@pytest.mark.slow
def test_workers_are_stopped_and_come_again() -> None:
    """Both methods end all workers; a segmenter can go on afterwards, as dcnum's can."""
    slots = [dark_slot()]
    segmenter = SegmentDark(num_workers=2)
    for end in ("join_workers", "close"):
        segmenter.reinitialize_workers([])
        segmenter.reinitialize_workers(slots)
        assert segmenter.slot_list is slots
        assert all(worker.slot_list is slots for worker in segmenter._workers)
        workers = list(segmenter._workers)
        assert [worker.is_alive() for worker in workers] == [True, True]
        getattr(segmenter, end)()
        getattr(segmenter, end)()
        assert [worker.is_alive() for worker in workers] == [False, False]
        assert segmenter._workers == []
        assert segmenter.segment_chunk(0, slots).sum() == 6
    segmenter.close()


def test_workers_stop_when_the_shutdown_is_set() -> None:
    """Nothing else is needed."""
    with SegmentDark(num_workers=2) as segmenter:
        segmenter.reinitialize_workers([dark_slot()])
        segmenter.mp_shutdown.set()
        for worker in segmenter._workers:
            worker.join(LONG)
            assert not worker.is_alive()


def test_errors_in_a_block_pass_through() -> None:
    """The workers are stopped all the same."""
    segmenter = SegmentDark(num_workers=1)
    segmenter.reinitialize_workers([dark_slot()])
    with pytest.raises(ValueError, match="no slot holds chunk 1"), segmenter:
        segmenter.segment_chunk(1, [dark_slot()])
    assert segmenter._workers == []


@pytest.mark.parametrize("kind", ["MPOSegmenterWorkerThread", "MPOSegmenterWorkerProcess"])
def test_worker_without_a_pool_heeds_the_events(kind: str) -> None:
    """A worker that is made as documented segments its slice of each slot when it may, counts, and stops."""
    slots = [dark_slot(chunk) for chunk in range(2)]
    segmenter = SegmentDark(num_workers=2)
    segmenter.slot_list = slots
    workers = [getattr(ours, kind)(segmenter, start, stop) for start, stop in ((0, 4), (4, 99))]
    for worker in workers:
        assert (worker.segmenter, worker.slot_list) == (segmenter, slots)
        worker.start()
    for chunk in (1, 0):
        segmenter.mp_slot_index.value = chunk
        segmenter.mp_num_workers_done.value = 0
        segmenter.mp_active.set()
        wait_until_done(segmenter, 2)
        segmenter.mp_active.clear()
        np.testing.assert_array_equal(slots[chunk].mask, slots[chunk].image < 100)
        assert slots[0].mask.any() == (chunk == 0)
    assert all(worker.is_alive() for worker in workers)
    segmenter.mp_shutdown.set()
    for worker in workers:
        worker.join(LONG)
        assert not worker.is_alive()


def wait_until_done(segmenter: ours.MPOSegmenter, count: int) -> None:
    """Wait until `count` workers are done; there is no event for that, here as in dcnum."""
    pause = threading.Event()
    for _ in range(3000):
        with segmenter.mp_num_workers_done:
            if segmenter.mp_num_workers_done.value == count:
                return
        pause.wait(0.01)
    pytest.fail("the workers do nothing")


def test_worker_can_be_run_in_any_thread() -> None:
    """The base class has the work, and nothing of a process or a thread."""
    segmenter = SegmentDark(num_workers=1)
    segmenter.slot_list = [dark_slot()]
    worker = ours.MPOSegmenterWorker(segmenter, sl_start=1, sl_stop=3)
    assert (worker.sl_start, worker.sl_stop) == (1, 3)
    for name in ("mp_slot_index", "mp_active", "mp_num_workers_done", "mp_shutdown"):
        assert getattr(worker, name) is getattr(segmenter, name)
    segmenter.mp_active.set()
    thread = threading.Thread(target=worker.run)
    thread.start()
    wait_until_done(segmenter, 1)
    segmenter.mp_shutdown.set()
    thread.join(LONG)
    assert segmenter.slot_list[0].mask.any(axis=(1, 2)).tolist() == [False, True, True, False, False, False]


def test_debugging_is_one_thread_and_pickles_nothing() -> None:
    """Whatever keywords, algorithm, slots and errors are, one thread of this process has them as they are."""
    threads: set[int] = set()
    lock = threading.Lock()

    class SegmentLocal(SegmentDark):
        """It cannot be pickled, and neither can its keyword."""

        @staticmethod
        def segment_algorithm(image: Any, *, level: Any = None) -> Any:
            with level:
                threads.add(threading.get_ident())
            if image.max() == 0:
                raise ZeroDivisionError("nothing to see")
            return image < 100

    class Slot(ChunkSlotData):
        """A slot of this process only."""

        def __getstate__(self) -> dict[str, Any]:
            raise TypeError("this slot stays here")

    before = threading.active_count()
    slot = Slot((6, 9, 14))
    slot.image[:] = dark_slot().image
    slot.chunk = 0
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        pickle.dumps(SegmentLocal(level=lock))
    with SegmentLocal(num_workers=4, debug=True, level=lock) as segmenter:
        for _ in range(2):
            np.testing.assert_array_equal(segmenter.segment_chunk(0, [slot]), slot.image < 100)
        assert threading.active_count() == before + 1
        assert [type(worker) for worker in segmenter._workers] == [ours.MPOSegmenterWorkerThread]
        assert segmenter._workers[0].pid == os.getpid()
        assert threads == {segmenter._workers[0].ident}
        slot.image[:] = 0
        with pytest.raises(WorkerError, match="ZeroDivisionError: nothing to see"):
            segmenter.segment_chunk(0, [slot])
    assert threading.active_count() == before


PICKLING = """
import pickle, sys
from dcnumd.logic.chunk_slot_data import ChunkSlotData
from dcnumd.segm.segm_thresh import SegmentThresh

if __name__ == "__main__":
    with SegmentThresh(num_workers=2, thresh=-9, kwargs_mask={"closing_disk": 0}) as segmenter:
        segmenter.reinitialize_workers([ChunkSlotData((4, 9, 14), ["image_bg"])])
        segmenter.mp_active.set()
        sys.stdout.buffer.write(pickle.dumps(segmenter))
"""


@pytest.mark.slow
def test_pickled_segmenter_outlives_the_original(tmp_path: Any) -> None:
    """Its settings come back, with events, numbers and workers of its own."""
    script = tmp_path / "pickling.py"
    script.write_text(PICKLING)
    done = subprocess.run([sys.executable, script], capture_output=True, check=True, timeout=60)
    loaded = pickle.loads(done.stdout)  # noqa: S301 -- of the process above
    assert loaded.get_ppid() == "thresh:t=-9:cle=1^f=1^clo=0"
    assert (loaded.num_workers, loaded.debug, loaded.slot_list, loaded._workers) == (2, False, None, [])
    assert not loaded.mp_active.is_set()
    again = pickle.loads(pickle.dumps(loaded))  # noqa: S301 -- likewise
    again.mp_active.set()
    again.mp_slot_index.value = 5
    assert not loaded.mp_active.is_set()
    assert loaded.mp_slot_index.value == 0
    slot = ChunkSlotData((4, 9, 14), ["image_bg"])
    slot.image_corr[:, 3:6, 4:7] = -10
    slot.chunk = 0
    with loaded:
        np.testing.assert_array_equal(loaded.segment_chunk(0, [slot]), slot.image_corr < -9)


FORGETTING = """
import sys
from dcnumd.logic.chunk_slot_data import ChunkSlotData
from dcnumd.segm.segm_thresh import SegmentThresh

if __name__ == "__main__":
    segmenter = SegmentThresh(num_workers=2, debug=sys.argv[1] == "debug")
    slot = ChunkSlotData((4, 9, 14), ["image_bg"])
    slot.chunk = 0
    print(segmenter.segment_chunk(0, [slot]).shape)
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["debug", "processes"])
def test_program_ends_without_joining_the_workers(tmp_path: Any, mode: str) -> None:
    """It does not wait for workers that wait for it."""
    script = tmp_path / "forgetting.py"
    script.write_text(FORGETTING)
    done = subprocess.run([sys.executable, script, mode], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "(4, 9, 14)\n"
    assert not done.stderr


def test_forgotten_segmenter_leaves_no_worker() -> None:
    """Its workers end when it does."""
    segmenter = SegmentDark(num_workers=1)
    segmenter.segment_chunk(0, [dark_slot()])
    (worker,) = segmenter._workers
    del segmenter
    worker.segmenter = worker.slot_list = None
    gc.collect()
    assert not worker.is_alive()


def test_batches_are_corrected_by_their_offsets_and_post_processed() -> None:
    """The offset is subtracted before the segmentation, and the mask is processed after it."""
    images = np.zeros((2, 11, 12), np.int16)
    images[:, 2:7, 3:8] = -5
    images[:, 4, 5] = 0
    images[:, 9:, 9:] = -20
    given = images.copy()
    segmenter = SegmentThresh(kwargs_mask={"closing_disk": 0})
    mask = segmenter.segment_batch(images=images, bg_off=np.array([1.5, 0.5]))
    assert (mask.dtype, mask.shape) == (np.dtype(bool), images.shape)
    assert mask[0, 2:7, 3:8].all(), "the hole is filled"
    assert mask[0].sum() == 25, "what touches the border is gone"
    assert not mask[1].any(), "the offset is too small"
    np.testing.assert_array_equal(images, given)
    for index, offset in enumerate((1.5, 0.5)):
        single = segmenter.segment_single(image=images[index], bg_off=offset)
        assert (single.dtype, single.shape) == (np.dtype(bool), images.shape[1:])
        np.testing.assert_array_equal(single, mask[index])
    np.testing.assert_array_equal(segmenter.segment_batch(images), segmenter.segment_batch(images, np.zeros(2)))


def test_batches_must_have_the_documented_shapes() -> None:
    """Anything else is refused, and so are offsets that a segmenter of raw images has no use for."""
    images = np.zeros((2, 11, 12), np.int16)
    with pytest.raises(ValueError, match=r"bg_off has the shape \(3,\), expected \(2,\)"):
        SegmentThresh().segment_batch(images, np.zeros(3))
    with pytest.raises(ValueError, match=r"images have the shape \(11, 12\), expected \(frame, y, x\)"):
        SegmentThresh().segment_batch(images[0])
    segmenter = SegmentThresh()
    segmenter.requires_background_correction = False  # type: ignore[misc]  # an instance may decide
    with pytest.raises(ValueError, match="does not employ background correction"):
        segmenter.segment_batch(images, np.zeros(2))
    with pytest.raises(ValueError, match="does not employ background correction"):
        SegmentDark().segment_single(images[0], 0.0)
    dcnum_segmenter = theirs_thresh()
    with pytest.raises(ValueError, match="does not employ background correction"):
        dcnum_segmenter.segment_batch(images, np.zeros(2))


def theirs_thresh() -> Any:
    """Return dcnum's threshold segmenter, told to take raw images."""
    segmenter = dcnum.segm.segm_thresh.SegmentThresh(debug=True)
    segmenter.requires_background_correction = False
    return segmenter


@pytest.mark.parametrize("debug", [False, True])
def test_chunks_are_segmented_as_in_dcnum(debug: bool) -> None:
    """Where nothing is post-processed, the masks are dcnum's, with and without offsets."""

    def images(slot: Any) -> Any:
        rng = np.random.default_rng(3)
        slot.image_corr[:] = rng.integers(-12, 12, slot.image_corr.shape)
        if slot.bg_off is not None:
            slot.bg_off[:] = rng.normal(0, 2, len(slot.bg_off))
        slot.chunk = 4
        return slot

    for features in (["image_bg"], ["image_bg", "bg_off"]):
        expected = images(DcnumSlot((5, 9, 14), features))
        slot = images(ChunkSlotData((5, 9, 14), features))
        with dcnum_class(theirs.MPOSegmenter)(debug=True) as segmenter:
            segmenter.segment_chunk(4, [expected])
        with SegmentThreshOnly(num_workers=2, debug=debug) as segmenter:
            np.testing.assert_array_equal(segmenter.segment_chunk(4, [slot]), expected.mask)
        assert 0 < slot.mask.mean() < 1


def below(image: Any, *, thresh: float = -6) -> Any:
    """Segment by a threshold."""
    return image < thresh


class SegmentThreshOnly(ours.MPOSegmenter):
    """The threshold without post-processing."""

    requires_background_correction = True
    mask_postprocessing = False
    segment_algorithm = staticmethod(below)


def dcnum_class(base: type) -> type:
    """Return the same, of dcnum."""
    attributes = {"requires_background_correction": True, "mask_postprocessing": False}
    return type("SegmentThreshOnly", (base,), {"segment_algorithm": staticmethod(below), **attributes})
