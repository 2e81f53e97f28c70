"""The public bases for segmenters of several frames at once, beside dcnum's of the same names."""

from __future__ import annotations

from typing import Any

import dcnum.segm
import dcnum.segm.segmenter_uni
import numpy as np
import pytest
from dcnum.logic.chunk_slot_data import ChunkSlotData as DcnumSlot

from dcnumd.errors import WorkerError
from dcnumd.segm.segmenter_sto import STOSegmenter
from dcnumd.segm.segmenter_uni import UNISegmenter
from dcnumd.shared_memory.slot import ChunkSlotData
from tests.support.api import kind_of, parameters

OURS = {"sto": STOSegmenter, "uni": UNISegmenter}
THEIRS = {"sto": dcnum.segm.STOSegmenter, "uni": dcnum.segm.segmenter_uni.UNISegmenter}
CHUNK = 4


def below(images: Any, *, thresh: float = -6) -> Any:
    """Segment several frames by a threshold."""
    assert images.ndim == 3
    return images < thresh


def derived(base: type, **attributes: Any) -> type:
    """Return a segmenter with a threshold for background-corrected frames, derived from a base."""
    usual = {"requires_background_correction": True, "segment_algorithm": staticmethod(below)}
    return type("SegmentBelow", (base,), usual | attributes)


def pictures(count: int = 23) -> np.ndarray:
    """Return background-corrected frames with cells of all kinds: with holes, at the border, and close together."""
    rng = np.random.default_rng(5)
    images = np.zeros((count, 30, 40), np.int16)
    for image in images:
        for y, x, size in rng.integers((0, 0, 3), (26, 36, 12), (6, 3)):
            image[y : y + size, x : x + size] = -9
            image[y + 2, x + 1] = 0
    return images


@pytest.mark.parametrize("name", ["__init__", "segment_batch", "segment_chunk", "segment_single"])
@pytest.mark.parametrize("kind", OURS)
def test_methods_have_the_documented_parameters(kind: str, name: str) -> None:
    """Names, kinds and defaults are dcnum's; only here, workers of its own may run what is derived from the UNI."""
    found = parameters(getattr(OURS[kind], name))
    if (kind, name) == ("uni", "__init__"):
        found = [parameter for parameter in found if parameter[0] != "num_workers"]
    assert found == parameters(getattr(THEIRS[kind], name))
    assert kind_of(OURS[kind], name) == "function"
    with pytest.raises(TypeError, match="abstract"):
        OURS[kind]()


def test_bases_say_how_they_are_run() -> None:
    """A pipeline runs the one in all of its workers, and the other in one of them."""
    assert (UNISegmenter.is_exclusive, STOSegmenter.is_exclusive) == (False, True)
    for kind, theirs in THEIRS.items():
        assert OURS[kind].mask_postprocessing is theirs.mask_postprocessing is True
        assert OURS[kind].requires_background_correction is theirs.requires_background_correction is False
    assert UNISegmenter.required_batch_size == THEIRS["uni"].required_batch_size == 0


@pytest.mark.parametrize("with_offsets", [False, True])
@pytest.mark.parametrize("kind", OURS)
def test_masks_are_those_of_dcnum(kind: str, with_offsets: bool) -> None:
    """Of batches, of single frames and of the chunk in a slot; offsets are subtracted first."""
    images = pictures()
    offsets = np.random.default_rng(6).normal(0, 4, len(images)) if with_offsets else None
    ours = derived(OURS[kind], mask_postprocessing=False)(thresh=-7, debug=True)
    theirs = derived(THEIRS[kind], mask_postprocessing=False)(thresh=-7)
    assert ours.get_ppid() == theirs.get_ppid() == "below:t=-7"
    expected = theirs.segment_batch(images, offsets)
    found = ours.segment_batch(images, offsets)
    assert (found.dtype, found.shape) == (np.dtype(bool), images.shape)
    np.testing.assert_array_equal(found, expected)
    assert 0 < found.mean() < 1
    offset = None if offsets is None else offsets[3]
    np.testing.assert_array_equal(ours.segment_single(images[3], offset), theirs.segment_single(images[3], offset))
    slots = [
        slot(images.shape, ["image_bg", "bg_off"] if with_offsets else ["image_bg"])
        for slot in (ChunkSlotData, DcnumSlot)
    ]
    for slot in slots:
        slot.image_corr[:], slot.chunk = images, CHUNK
        if offsets is not None:
            slot.bg_off[:] = offsets
    with ours:
        mask = ours.segment_chunk(CHUNK, slots[:1])
    np.testing.assert_array_equal(mask, theirs.segment_chunk(CHUNK, slots[1:]))
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("mask", [{}, {"fill_holes": False}, {"clear_border": False}, {"closing_disk": 2}], ids=str)
@pytest.mark.parametrize("kind", OURS)
def test_labels_are_those_of_dcnum(kind: str, mask: dict[str, Any]) -> None:
    """With and without holes, cells at the border, and corners."""
    images = pictures()
    default = {"clear_border": True, "fill_holes": True, "closing_disk": 0}
    ours = derived(OURS[kind], mask_default_kwargs=default)(kwargs_mask=mask)
    theirs = derived(THEIRS[kind], mask_default_kwargs=default)(kwargs_mask=mask)
    assert ours.get_ppid() == theirs.get_ppid()
    expected = theirs.segment_batch_with_labeling(images)
    assert expected.max() > 1
    slot = ChunkSlotData(images.shape, ["image_bg"])
    # raw frames, from which the background is subtracted
    slot.image[:] = images + 100
    background = np.full_like(slot.image[:1], 100)
    ours.label_batch(slot, 0, len(images), background, np.zeros(len(images), np.int64))
    np.testing.assert_array_equal(slot.labels, expected)
    np.testing.assert_array_equal(ours.segment_batch(images), expected > 0)


@pytest.mark.parametrize("kind", OURS)
def test_wrong_calls_are_refused(kind: str) -> None:
    """An offset without background correction, a chunk that no slot holds, and an output of another shape."""
    images = pictures(2)
    segmenter = derived(OURS[kind], requires_background_correction=False)()
    with pytest.raises(ValueError, match="does not employ background correction"):
        segmenter.segment_batch(images, np.zeros(2))
    with segmenter, pytest.raises(ValueError, match="no slot holds chunk 7"):
        segmenter.segment_chunk(7, [ChunkSlotData(images.shape)])
    first = derived(OURS[kind], segment_algorithm=staticmethod(lambda images: images[0] < 0))()
    with pytest.raises(WorkerError, match=r"returned an array of shape \(30, 40\) for frames of shape \(2, 30, 40\)"):
        first.segment_batch(images)
