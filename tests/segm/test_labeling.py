"""Labels are dcnum's, pixel for pixel, whatever the frames look like."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Callable

import h5py
import hdf5plugin  # noqa: F401 -- registers the filters of real measurements
import numpy as np
import pytest
import scipy.ndimage
from dcnum.segm.segm_thresh import SegmentThresh
from dcnum.segm.segmenter import Segmenter
from hypothesis import given, settings
from hypothesis import strategies as st

from dcnumd.segm import kernels_frames, kernels_labeling, labeling
from tests.support.frames import SPECIAL_PICTURES, Picture, mask_stacks

EIGHT_CONNECTED = np.ones((3, 3))
NO_OFFSET = np.empty(0, np.float64)


mask_settings = st.fixed_dictionaries(
    {
        "clear_border": st.booleans(),
        "fill_holes": st.booleans(),
        "closing_disk": st.sampled_from([0, 1, 2, 3, 5, 9, 70]),
    }
)


def draw_blobs(frames, height, width):
    """Return smooth masks, each another one."""
    return np.array([Picture(height, width, ("blobs",), seed=seed).mask for seed in range(frames)])


def reference_labels(masks):
    return np.array([scipy.ndimage.label(mask, EIGHT_CONNECTED)[0] for mask in masks])


def threshold(masks, **mask_kwargs):
    """Label frames that are 20 grey values darker inside the masks."""
    images = np.where(masks, 100, 120).astype(np.uint8)
    backgrounds = np.full((1, *masks.shape[1:]), 119, np.uint8)
    index = np.zeros(len(masks), np.int64)
    labels = np.full(masks.shape, 7, np.uint16)
    labeling.label_thresholded(images, backgrounds, index, NO_OFFSET, -6, **mask_kwargs, labels=labels)
    return labels


def dcnum_threshold(masks, **mask_kwargs):
    corrected = np.where(masks, -19, 1).astype(np.int16)
    segmenter = SegmentThresh(thresh=-6, kwargs_mask=mask_kwargs)
    return segmenter.segment_batch_with_labeling(corrected, None)


@settings(max_examples=150, deadline=None)
@given(mask_stacks())
def test_label_masks_any_mask(masks):
    """Masks are labelled as by scipy."""
    labels = np.full(masks.shape, 7, np.uint16)
    labeling.label_masks(masks, labels)
    np.testing.assert_array_equal(labels, reference_labels(masks))


@pytest.mark.slow
@settings(max_examples=250, deadline=None)
@given(mask_stacks(least_height=2), mask_settings)
def test_label_thresholded_any_frame(masks, mask_kwargs):
    """Thresholded frames have dcnum's labels, in dcnum's order."""
    np.testing.assert_array_equal(threshold(masks, **mask_kwargs), dcnum_threshold(masks, **mask_kwargs))


@pytest.mark.parametrize("disk", [0, 2, 5])
@pytest.mark.parametrize("fill_holes", [False, True])
@pytest.mark.parametrize("clear_border", [False, True])
def test_label_thresholded_special_frames(clear_border, fill_holes, disk):
    """Objects at all edges, nested rings, lines, full and empty frames of all widths have dcnum's labels."""
    mask_kwargs = {"clear_border": clear_border, "fill_holes": fill_holes, "closing_disk": disk}
    for picture in SPECIAL_PICTURES:
        # dcnum cannot fill holes in a single row
        if picture.height > 1 or not fill_holes:
            masks = picture.mask[np.newaxis]
            expected = dcnum_threshold(masks, **mask_kwargs)
            np.testing.assert_array_equal(threshold(masks, **mask_kwargs), expected, err_msg=str(picture))


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(mask_stacks(least_height=2), mask_settings, st.integers(0, 2**32 - 1))
def test_process_labels_any_labels(masks, mask_kwargs, seed):
    """Labels of any kind, with gaps, in any order and in several parts, become what dcnum makes of them."""
    rng = np.random.default_rng(seed)
    renamed = rng.choice([0, 1, 3, 400, 65535], 1 + masks.size)
    labels = (renamed[reference_labels(masks)] * masks).astype(np.uint16)
    expected = np.array([Segmenter.process_labels(frame.copy(), **mask_kwargs) for frame in labels])
    labeling.process_labels(labels, **mask_kwargs)
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2), (3, 3), (9, 1), (5, 200)])
def test_label_thresholded_tiny_frames(shape):
    """Every mask setting works on the smallest frames, full and empty."""
    masks = np.array([np.ones(shape, bool), np.zeros(shape, bool)])
    for clear_border, fill_holes, disk in itertools.product((True, False), (True, False), (0, 1, 2)):
        mask_kwargs = {"clear_border": clear_border, "fill_holes": fill_holes, "closing_disk": disk}
        labels = threshold(masks, **mask_kwargs)
        if shape[0] == 1 and fill_holes:
            # dcnum refuses such frames; by the rule for row 0 nothing remains
            assert not labels.any()
        else:
            np.testing.assert_array_equal(labels, dcnum_threshold(masks, **mask_kwargs))


def test_label_thresholded_pixel_next_to_corner():
    """A ring that begins at pixel (1, 1) is opened there and its hole stays, as in dcnum."""
    masks = np.zeros((1, 9, 9), bool)
    masks[0, 1:6, 1:6] = True
    masks[0, 2:5, 2:5] = False
    mask_kwargs = {"clear_border": True, "fill_holes": True, "closing_disk": 0}
    labels = threshold(masks, **mask_kwargs)
    assert not labels[0, 1, 1]
    np.testing.assert_array_equal(labels, dcnum_threshold(masks, **mask_kwargs))


def test_label_thresholded_blob_inside_ring():
    """A blob nested in a ring melts into it when holes are filled, and is a label of its own otherwise."""
    rows, columns = np.mgrid[:60, :200]
    distance = np.hypot(rows - 30, columns - 64)
    masks = ((distance < 8) | (np.abs(distance - 20) < 4))[np.newaxis]
    assert threshold(masks, clear_border=True, fill_holes=True, closing_disk=2).max() == 1
    assert threshold(masks, clear_border=True, fill_holes=False, closing_disk=2).max() == 2


def test_label_thresholded_number_of_a_split_blob():
    """Labels count by the first pixel after the opening, not by that of the blob before."""
    masks = np.zeros((1, 30, 60), bool)
    masks[0, 10:20, 5:15] = True
    masks[0, 3:10, 10] = True
    masks[0, 6:20, 30:40] = True
    labels = threshold(masks, clear_border=True, fill_holes=True, closing_disk=2)
    assert labels[0, 15, 35] == 1
    assert labels[0, 15, 10] == 2


@pytest.mark.parametrize("clear_border", [False, True])
@pytest.mark.parametrize("fill_holes", [False, True])
@pytest.mark.parametrize("disk", [0, 2])
def test_label_thresholded_more_labels_than_numbers(clear_border, fill_holes, disk):
    """Beyond 65535 labels the numbers begin again, and each step of dcnum sees such numbers."""
    masks = np.zeros((2, 550, 550), bool)
    masks[0, ::2, ::2] = True
    masks[0, 50:90, 60:100] = masks[0, 500:520, 300:320] = True
    masks[1, 10:30, 40:60] = True
    mask_kwargs = {"clear_border": clear_border, "fill_holes": fill_holes, "closing_disk": disk}
    assert scipy.ndimage.label(masks[0], EIGHT_CONNECTED)[1] > 65535
    # in the pipeline labels are stored as uint16 between the steps
    labels = reference_labels(masks).astype(np.uint16)
    expected = np.array([Segmenter.process_labels(frame.copy(), **mask_kwargs).astype(np.uint16) for frame in labels])
    np.testing.assert_array_equal(threshold(masks, **mask_kwargs), expected)


finite_numbers = st.floats(-300, 300) | st.integers(-260, 260).map(float)


@settings(max_examples=300, deadline=None)
@given(
    finite_numbers | st.sampled_from([np.nan, np.inf, -np.inf]),
    finite_numbers | st.sampled_from([np.inf, -np.inf]),
    st.integers(-1, 1),
)
def test_label_thresholded_rounding(bg_off, thresh, steps):
    """The comparison is that of float64 arrays, also where the difference rounds to the threshold."""
    if np.isfinite(bg_off) and np.isfinite(thresh):
        # an offset for which the highest grey value lies next to the threshold
        bg_off = round(bg_off) - thresh
        bg_off += steps * np.spacing(bg_off)
    differences = np.arange(-255, 256)
    images = np.maximum(differences, 0).astype(np.uint8).reshape(1, 7, 73)
    backgrounds = np.maximum(-differences, 0).astype(np.uint8).reshape(1, 7, 73)
    labels = np.empty(images.shape, np.uint16)
    labeling.label_thresholded(
        images, backgrounds, np.zeros(1, np.int64), np.array([bg_off]), thresh, False, False, 0, labels
    )
    with np.errstate(invalid="ignore"):
        expected = differences.astype(np.int16) - np.array([bg_off]) < thresh
    np.testing.assert_array_equal(labels.ravel() > 0, expected)


def test_label_thresholded_offsets_and_backgrounds():
    """Each frame is compared with its own background image and its own offset."""
    rng = np.random.default_rng(1)
    masks = draw_blobs(6, 40, 90)
    backgrounds = rng.integers(100, 200, (3, 40, 90)).astype(np.uint8)
    index = np.array([2, 0, 1, 1, 0, 2])
    offsets = np.array([-20.5, 3.25, 0, 40.125, -7, 11])
    corrected = np.where(masks, -12, -2) + np.floor(offsets)[:, np.newaxis, np.newaxis].astype(int)
    images = (backgrounds[index] + corrected).astype(np.uint8)
    labels = np.empty(images.shape, np.uint16)
    labeling.label_thresholded(images, backgrounds, index, offsets, -6, True, True, 2, labels)
    segmenter = SegmentThresh(thresh=-6, kwargs_mask={"closing_disk": 2})
    expected = segmenter.segment_batch_with_labeling(corrected.astype(np.int16), offsets)
    assert expected.any()
    np.testing.assert_array_equal(labels, expected)


def test_label_thresholded_views():
    """Inputs need be neither contiguous nor writeable, and cost no second compilation."""
    masks = draw_blobs(4, 30, 70)
    images = np.where(masks, 100, 120).astype(np.uint8)
    backgrounds = np.full((1, 30, 70), 119, np.uint8)
    images.flags.writeable = False
    labels = np.empty((2, 30, 35), np.uint16)
    labeling.label_thresholded(
        images[::2, :, ::2],
        backgrounds[:, :, ::2],
        np.zeros(4, np.int64)[::2],
        np.zeros(4)[::2],
        -6,
        False,
        False,
        0,
        labels,
    )
    np.testing.assert_array_equal(labels, reference_labels(masks[::2, :, ::2]))
    np.testing.assert_array_equal(labeling.duplicate_frames(images, images[0]), [True, False, False, False])
    assert len(kernels_labeling.label_thresholded_frames.signatures) == 1
    assert len(kernels_frames.mark_duplicates.signatures) == 1


def test_label_thresholded_no_frames():
    """An empty batch is no error."""
    nothing = np.empty((0, 5, 5), np.uint8)
    labels = np.empty((0, 5, 5), np.uint16)
    labeling.label_thresholded(nothing, nothing, np.empty(0, np.int64), NO_OFFSET, -6, True, True, 2, labels)


@pytest.mark.parametrize("name", ["fmt-hdf5_cytoshot_full-features_2023", "fmt-hdf5_cytoshot_full-features_2024"])
def test_label_thresholded_real_measurement(name: str, shared_data: Callable[[str], pathlib.Path]):
    """The frames of real measurements have dcnum's labels for all mask settings."""
    with h5py.File(shared_data(name), "r", locking=False) as file:
        images = file["events/image"][:]
        backgrounds = file["events/image_bg"][:]
    corrected = images.astype(np.int16) - backgrounds
    offsets = np.mean(images[:, :20], axis=(1, 2)) - np.mean(backgrounds[:, :20], axis=(1, 2))
    for clear_border, fill_holes, disk in itertools.product((True, False), (True, False), (0, 2, 5)):
        mask_kwargs = {"clear_border": clear_border, "fill_holes": fill_holes, "closing_disk": disk}
        segmenter = SegmentThresh(thresh=-6, kwargs_mask=mask_kwargs)
        for bg_off in (None, offsets):
            labels = np.empty(images.shape, np.uint16)
            labeling.label_thresholded(
                images,
                backgrounds,
                np.arange(len(images)),
                NO_OFFSET if bg_off is None else bg_off,
                -6,
                **mask_kwargs,
                labels=labels,
            )
            np.testing.assert_array_equal(labels, segmenter.segment_batch_with_labeling(corrected, bg_off))


def test_duplicate_frames_of_a_batch():
    """Only frames that equal the one before, the last of the previous batch included, are marked."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (7, 20, 99)).astype(np.uint8)
    images[3] = images[2]
    images[4] = images[3]
    images[6] = images[5]
    images[6, -1, -1] ^= 1
    expected = [False, False, False, True, True, False, False]
    assert labeling.duplicate_frames(images, None).tolist() == expected
    assert labeling.duplicate_frames(images, images[1]).tolist() == expected
    assert labeling.duplicate_frames(images, images[0]).tolist() == [True, *expected[1:]]


IMAGES = np.zeros((2, 4, 5), np.uint8)
INDEX = np.zeros(2, np.int64)
VALID = {
    "images": IMAGES,
    "backgrounds": IMAGES[:1],
    "background_index": INDEX,
    "bg_off": np.zeros(2),
    "thresh": -6,
    "clear_border": True,
    "fill_holes": True,
    "closing_disk": 2,
    "labels": np.zeros((2, 4, 5), np.uint16),
}


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"images": IMAGES.astype(np.int16)}, TypeError, "images has dtype int16, expected uint8"),
        ({"images": IMAGES[0]}, ValueError, r"images has shape \(4, 5\), expected \(frame, y, x\)"),
        ({"labels": np.zeros((2, 4, 6), np.uint16)}, ValueError, r"labels has shape .*expected \(2, 4, 5\)"),
        ({"labels": np.zeros((2, 5, 4), np.uint16).swapaxes(1, 2)}, ValueError, "labels is not a contiguous"),
        ({"backgrounds": IMAGES[:, :3]}, ValueError, r"frame shape \(3, 5\), expected \(4, 5\)"),
        ({"background_index": INDEX + 1}, ValueError, r"background_index has values 1…1, expected 0…0"),
        ({"background_index": INDEX - 1}, ValueError, "expected 0…0"),
        ({"background_index": INDEX.astype(np.int32)}, TypeError, "background_index has dtype int32"),
        ({"background_index": INDEX[:1]}, ValueError, r"background_index has shape \(1,\), expected \(2,\)"),
        ({"bg_off": np.zeros(1)}, ValueError, r"bg_off has shape \(1,\), expected \(2,\) or \(0,\)"),
        ({"bg_off": np.zeros(2, np.float32)}, TypeError, "bg_off has dtype float32"),
        ({"closing_disk": -1}, ValueError, "closing_disk is -1"),
        ({"closing_disk": 2.5}, ValueError, "closing_disk is 2.5"),
    ],
)
def test_label_thresholded_invalid(changed, error, message):
    """What does not fit is refused before a kernel touches memory."""
    with pytest.raises(error, match=message):
        labeling.label_thresholded(**(VALID | changed))


def test_wrappers_invalid():
    """The other functions refuse what does not fit, too."""
    with pytest.raises(TypeError, match="masks has dtype uint8, expected bool"):
        labeling.label_masks(IMAGES, VALID["labels"])
    with pytest.raises(TypeError, match="labels has dtype uint8, expected uint16"):
        labeling.process_labels(IMAGES, clear_border=True, fill_holes=True, closing_disk=0)
    with pytest.raises(ValueError, match=r"previous has shape \(5, 4\), expected \(4, 5\)"):
        labeling.duplicate_frames(IMAGES, IMAGES[0].T)
