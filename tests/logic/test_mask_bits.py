"""Masks that wait as bits are drawn as they were."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from dcnumd.feat.events import Events
from dcnumd.logic.mask_bits import draw_masks, mask_dtype, mask_offsets, pack_masks, stage_masks


def events_of(labels: npt.NDArray[np.uint16]) -> Events:
    """Return an event for each label of each frame, with the smallest box around its mask."""
    found = [
        (number, label, np.nonzero(frame == label))
        for number, frame in enumerate(labels)
        for label in np.unique(frame[frame != 0])
    ]
    boxes = [(y.min(), y.max() + 1, x.min(), x.max() + 1) for *_, (y, x) in found]
    return Events(
        np.zeros((len(found), 1)),
        np.array([number for number, *_ in found], np.int64),
        np.array([label for _, label, _ in found], np.uint16),
        np.array(boxes, np.int32).reshape(-1, 4),
        0,
    )


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (8, 8), (80, 320), (33, 129)])
def test_equals_labels(shape: tuple[int, int]) -> None:
    """Masks of any form, also with holes and in several parts, equal the labels that they were made from."""
    rng = np.random.default_rng(shape[1])
    labels = rng.integers(0, 4, (6, *shape)).astype(np.uint16)
    labels[0] = 7
    labels[1] = 0
    labels[2, 0, 0], labels[2, -1, -1] = 65535, 65535
    events = events_of(labels)
    expected = np.array(
        [
            np.where(labels[frame] == label, 255, 0)
            for frame, label in zip(events.frame.tolist(), events.label, strict=True)
        ],
        np.uint8,
    ).reshape(-1, *shape)
    masks, offsets = pack_masks(labels, events), mask_offsets(events.box)
    assert masks.size == offsets[-1]

    # in two parts, as at the end of a chunk
    waiting = np.full(len(expected), 255, mask_dtype(shape))
    cut = len(expected) // 3
    for part in (slice(0, cut), slice(cut, len(expected))):
        stage_masks(masks, offsets[part.start : part.stop + 1], events.box[part], waiting[part])
    drawn = np.full((len(expected) + 2, *shape), 9, np.uint8)
    draw_masks(waiting, drawn)
    np.testing.assert_array_equal(drawn[: len(expected)], expected)
    assert not drawn[len(expected) :].any()


def test_no_events() -> None:
    """A batch without events has no masks."""
    labels = np.zeros((2, 4, 4), np.uint16)
    events = events_of(labels)
    assert pack_masks(labels, events).size == 0
    drawn = np.ones((3, 4, 4), np.uint8)
    draw_masks(np.zeros(0, mask_dtype((4, 4))), drawn)
    assert not drawn.any()
