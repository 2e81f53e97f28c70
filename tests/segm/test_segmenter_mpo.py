"""Segmenters with workers: documented calls, persistence, death and foreign algorithms."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from dcnumd.errors import MethodError, WorkerError
from dcnumd.segm.methods import get_segmenter
from dcnumd.segm.segm_thresh import SegmentThresh
from dcnumd.segm.segmenter_mpo import MPOSegmenter
from dcnumd.segm.session import SegmentTask
from dcnumd.shared_memory.slot import ChunkSlotData


class SegmentBright(MPOSegmenter):
    """A third-party segmenter on raw frames that wants no post-processing."""

    mask_postprocessing = False

    @staticmethod
    def segment_algorithm(image, *, level: int = 200):
        return image >= level


class SegmentBothSides(SegmentThresh):
    """A third-party variant of the threshold segmenter with an algorithm of its own."""

    @staticmethod
    def segment_algorithm(image, *, thresh: float = -6):
        return np.abs(image) > -thresh


class SegmentFragile(MPOSegmenter):
    """Kills its process on bright frames, raises on dark ones."""

    mask_postprocessing = True

    @staticmethod
    def segment_algorithm(image, *, deadly: int = 255):
        if image.max() >= deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if image.max() == 0:
            raise ZeroDivisionError("nothing to see")
        return image < 130


def blobs(count=12, shape=(30, 44)):
    """Return frames and backgrounds with a dark rectangle that moves."""
    images = np.full((count, *shape), 150, np.uint8)
    for index in range(count):
        images[index, 8:20, 5 + index : 17 + index] = 120
    return images, np.full_like(images, 150)


def filled_slot(images, backgrounds, chunk=0):
    """Return a slot that holds frames, ready for segmentation."""
    slot = ChunkSlotData(images.shape, ["image_bg"])
    slot.image[:] = images
    slot.image_bg[:] = backgrounds
    slot.image_corr[:] = images.astype(np.int16) - backgrounds
    slot.chunk, slot.state = chunk, "s"
    return slot


@pytest.mark.parametrize("debug", [False, True])
def test_segment_chunk_equals_segment_batch(debug):
    """Workers fill the slot's mask with what one process computes by itself."""
    slot = filled_slot(*blobs())
    with SegmentThresh(num_workers=2, debug=debug) as segmenter:
        mask = segmenter.segment_chunk(0, [slot])
        assert mask.base is not None
        np.testing.assert_array_equal(mask, segmenter.segment_batch(slot.image_corr))
        np.testing.assert_array_equal(mask[3], segmenter.segment_single(slot.image_corr[3]))
        assert mask.any()
        assert segmenter.mp_num_workers_done.value == (1 if debug else 2)
    assert not segmenter._workers


def test_workers_stay_for_the_next_file():
    """The same processes go on with slots of another shape and with other parameters."""
    first = SegmentThresh(num_workers=2)
    one, other = filled_slot(*blobs()), filled_slot(*blobs(7, (45, 100)))
    first.segment_chunk(0, [one])
    pids = [worker.pid for worker in first._workers]
    with SegmentThresh(num_workers=2, thresh=-40) as second:
        second.take_workers(first)
        assert not second.segment_chunk(0, [other]).any(), "the new threshold finds nothing"
        assert [worker.pid for worker in second._workers] == pids
        second.reinitialize_workers([one])
        assert [worker.pid for worker in second._workers] == pids


def test_worker_passes_over_slots_that_were_let_go_before_it_saw_them():
    """A worker that was slow to read about the slots of one file goes on with those of the next."""
    last = filled_slot(*blobs())
    with SegmentThresh(num_workers=1) as segmenter:
        expected = segmenter.segment_chunk(0, [last]).copy()
        pid = segmenter._workers[0].pid
        os.kill(pid, signal.SIGSTOP)
        segmenter.reinitialize_workers([filled_slot(*blobs(7, (45, 100)))])
        segmenter.reinitialize_workers([last])
        os.kill(pid, signal.SIGCONT)
        last.mask[:] = False
        np.testing.assert_array_equal(segmenter.segment_chunk(0, [last]), expected)
        assert segmenter._workers[0].pid == pid


def test_killed_worker_is_replaced_and_the_others_stay(caplog):
    """A dead worker costs one process start and is reported; the chunk is segmented all the same."""
    slot = filled_slot(*blobs())
    with SegmentThresh(num_workers=2) as segmenter:
        expected = segmenter.segment_chunk(0, [slot]).copy()
        pids = [worker.pid for worker in segmenter._workers]
        os.kill(pids[1], signal.SIGKILL)
        slot.mask[:] = False
        np.testing.assert_array_equal(segmenter.segment_chunk(0, [slot]), expected)
        assert segmenter._workers[0].pid == pids[0]
        assert segmenter._workers[1].pid != pids[1]
    (record,) = caplog.records
    assert record.fields == {"event": "worker.lost", "pid": pids[1], "role": "segmenter"}


def test_worker_that_is_busy_when_work_is_stopped_is_replaced_without_a_report(caplog):
    """It is killed because nobody needs its answer any more, so it counts as no loss."""
    slot = filled_slot(*blobs())
    with SegmentThresh(num_workers=1) as segmenter:
        expected = segmenter.segment_chunk(0, [slot]).copy()
        pid = segmenter._workers[0].pid
        os.kill(pid, signal.SIGSTOP)

        def stop():
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            list(segmenter.pool.run(["a task that the stopped worker never sees"], stop))
        slot.mask[:] = False
        np.testing.assert_array_equal(segmenter.segment_chunk(0, [slot]), expected)
        assert segmenter._workers[0].pid != pid
    assert caplog.records == []


def test_batch_that_kills_two_workers_is_an_error():
    """Deadly frames end in an error that names the batch; the workers go on with the next chunk."""
    images, backgrounds = blobs()
    deadly = images.copy()
    deadly[2] = 255
    with SegmentFragile(num_workers=1) as segmenter:
        with pytest.raises(WorkerError, match="two worker processes died") as caught:
            segmenter.segment_chunk(0, [filled_slot(deadly, backgrounds)])
        assert caught.value.transient
        assert segmenter.segment_chunk(0, [filled_slot(images, backgrounds)]).any()


def test_exception_in_an_algorithm_reaches_the_caller():
    """The error says what the foreign code raised."""
    images, backgrounds = blobs()
    with (
        SegmentFragile(num_workers=2) as segmenter,
        pytest.raises(WorkerError, match="ZeroDivisionError: nothing to see"),
    ):
        segmenter.segment_chunk(0, [filled_slot(np.zeros_like(images), backgrounds)])


def test_foreign_segmenter_gets_raw_frames():
    """Raw frames are given when no correction is asked for."""
    images, backgrounds = blobs()
    images[:, 2:5, 2:5] = 220
    slot = filled_slot(images, backgrounds)
    segmenter = SegmentBright(level=210)
    segmenter.label_batch(slot, 0, len(images), slot.image_bg, np.arange(len(images)))
    np.testing.assert_array_equal(slot.labels, images >= 210)
    assert segmenter.get_ppid() == "bright:l=210"
    assert SegmentBright.get_ppkw_from_ppid("bright:l=30") == {"level": 30}


def test_subclass_of_a_fused_segmenter_keeps_its_own_algorithm():
    """What is overridden counts, also where the parent has a kernel for everything at once."""
    images, backgrounds = blobs()
    images[:, 10:18, 30:38] = 190
    slot = filled_slot(images, backgrounds)
    segmenter = SegmentBothSides(thresh=-20)
    segmenter.label_batch(slot, 0, len(images), slot.image_bg, np.arange(len(images)))
    np.testing.assert_array_equal(slot.labels > 0, segmenter.segment_batch(slot.image_corr))
    assert slot.labels[0, 14, 34] > 0


def test_answers_of_an_abandoned_file_never_count_for_the_next():
    """A worker that still has tasks is not bound to another file; a new one is."""
    slot, other = filled_slot(*blobs()), filled_slot(*blobs(), chunk=1)
    with SegmentThresh(num_workers=2) as segmenter:
        expected = segmenter.segment_chunk(0, [slot]).copy()
        pids = [worker.pid for worker in segmenter._workers]
        segmenter.pool.submit(1, SegmentTask(0, 0, 12))
        np.testing.assert_array_equal(segmenter.segment_chunk(1, [other]), expected)
        assert segmenter._workers[0].pid == pids[0]
        assert segmenter._workers[1].pid != pids[1]
        assert segmenter.pool.idle


def test_wrong_keywords_are_refused_by_name():
    """A misspelt keyword is an error that lists what there is."""
    with pytest.raises(MethodError, match=r"no keyword 'threshold' .* expected one of thresh"):
        SegmentThresh(threshold=3)
    with pytest.raises(MethodError, match="does not support mask postprocessing"):
        SegmentBright(kwargs_mask={"closing_disk": 2})
    with pytest.raises(MethodError, match=r"unknown segmenter 'tresh', available are .*thresh"):
        get_segmenter("tresh")
