"""Events of labelled frames: features against dcnum, mahotas and numpy; selection and order."""

from __future__ import annotations

import mahotas.features
import numpy as np
import numpy.typing as npt
import pytest
from dcnum.feat.feat_brightness import brightness_features
from dcnum.feat.feat_contour import moments_based_features, volume_from_contours
from dcnum.feat.feat_texture import haralick_texture_features
from scipy import ndimage

from dcnumd.feat.events import (
    FEATURES,
    FEATURES_BRIGHTNESS,
    FEATURES_CONTOUR,
    FEATURES_TEXTURE,
    FEATURES_VOLUME,
    Events,
    Workspace,
    extract_events,
    feature_names,
)
from tests.support.frames import SPECIAL_PICTURES

PIXEL_SIZE = 0.2645
NO_OFFSET = np.empty(0)

Bytes = npt.NDArray[np.uint8]
Masks = npt.NDArray[np.bool_]


def extract(
    images: Bytes,
    backgrounds: Bytes,
    labels: npt.NDArray[np.uint16],
    bg_off: npt.NDArray[np.float64] = NO_OFFSET,
    size_thresh: int = 10,
    **switches: bool,
) -> Events:
    """Extract the events of frames that each have their own background."""
    return extract_events(
        images,
        backgrounds,
        np.arange(len(images)),
        bg_off,
        labels,
        np.zeros(len(images), bool),
        pixel_size=PIXEL_SIZE,
        size_thresh=size_thresh,
        **switches,
    )


def generate(kind: str, seed: int, frames: int = 24) -> tuple[Bytes, Bytes, Masks]:
    """Make images, backgrounds and one mask for each frame."""
    rng = np.random.default_rng(seed)
    height, width = 50, 90
    field = rng.normal(size=(frames, height, width))
    if kind == "cells":
        y, x = np.mgrid[:height, :width]
        centre_y, centre_x = rng.uniform(8, 40, (2, frames, 1, 1))
        radius = rng.uniform(3, 8, (frames, 1, 1))
        masks = np.hypot(y - centre_y, (x - centre_x) * rng.uniform(0.6, 1, (frames, 1, 1))) < radius
    elif kind == "blobs":
        smooth = ndimage.gaussian_filter(field, (0, 3, 3))
        masks = smooth > np.quantile(smooth, 0.7, axis=(1, 2), keepdims=True)
    elif kind == "specks":
        masks = field > rng.uniform(0.5, 2.5, (frames, 1, 1))
    else:
        masks = np.zeros(field.shape, bool)
        masks[np.arange(frames), rng.integers(0, height, frames)] = True
        masks[: frames // 2, 20:23, 10:13] = True
    spread = {"cells": 12.0, "blobs": 90.0, "specks": 4.0, "lines": 0.4}[kind]
    images = np.clip(rng.normal(140, spread, masks.shape), 0, 255).astype(np.uint8)
    backgrounds = np.clip(rng.normal(130, spread / 2, masks.shape), 0, 255).astype(np.uint8)
    return images, backgrounds, masks


def features_of_dcnum(
    images: Bytes, backgrounds: Bytes, masks: Masks, bg_off: npt.NDArray[np.float64] | None, *, haralick: bool = True
) -> tuple[dict[str, npt.NDArray[np.float64]], Masks]:
    """Compute all features with dcnum; also return which masks it calls valid."""
    corrected = images.astype(np.int16) - backgrounds
    features = moments_based_features(masks, PIXEL_SIZE, ret_contour=True)
    valid = features.pop("valid")
    contours = [contour for contour, good in zip(features.pop("contour"), valid, strict=True) if good]
    features = {name: values[valid] for name, values in features.items()}
    volume = volume_from_contours(contours, features["pos_x"], features["pos_y"], PIXEL_SIZE)
    others = brightness_features(
        images[valid],
        masks[valid],
        backgrounds[valid],
        corrected[valid],
        bg_off=None if bg_off is None else bg_off[valid],
    )
    features |= {**volume, **others}
    if haralick:
        features |= haralick_texture_features(masks[valid], image=images[valid], image_corr=corrected[valid])
    return features, valid


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("with_offset", [False, True])
@pytest.mark.parametrize("kind", ["cells", "blobs", "specks", "lines"])
def test_extract_events_generated_masks_equal_dcnum(kind: str, with_offset: bool):
    """Every feature of whole, broken, holed, border-touching, flat and high-contrast masks is dcnum's."""
    images, backgrounds, masks = generate(kind, seed=with_offset)
    bg_off = np.linspace(-3, 3, len(images)) if with_offset else None
    expected, valid = features_of_dcnum(images, backgrounds, masks, bg_off)
    offsets = NO_OFFSET if bg_off is None else bg_off
    events = extract(images, backgrounds, masks.astype(np.uint16), offsets, size_thresh=0)
    assert events.frame.tolist() == np.flatnonzero(valid).tolist()
    assert events.invalid == np.count_nonzero(~valid & masks.any(axis=(1, 2)))
    for column, name in enumerate(FEATURES):
        np.testing.assert_allclose(
            events.table[:, column], expected[name], rtol=1e-9, atol=1e-12, err_msg=name, equal_nan=True
        )


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_extract_events_special_pictures_equal_dcnum():
    """Objects at all edges, nested rings, lines, flat and extreme grey values of all widths give dcnum's features.

    Their texture is held against mahotas in `test_kernels_texture`.
    """
    workspace = Workspace()
    found = 0
    for number, picture in enumerate(picture for picture in SPECIAL_PICTURES if picture.mask.any()):
        bg_off = np.array([7.25]) if number % 2 else None
        images, backgrounds, masks = picture.image[np.newaxis], picture.background[np.newaxis], picture.mask[np.newaxis]
        expected, valid = features_of_dcnum(images, backgrounds, masks, bg_off, haralick=False)
        events = extract_events(
            images,
            backgrounds,
            np.zeros(1, np.int64),
            NO_OFFSET if bg_off is None else bg_off,
            masks.astype(np.uint16),
            np.zeros(1, bool),
            pixel_size=PIXEL_SIZE,
            size_thresh=0,
            workspace=workspace,
            haralick=False,
        )
        assert (len(events.table), events.invalid) == (valid.sum(), (~valid).sum()), picture
        found += len(events.table)
        for column, name in enumerate(feature_names(haralick=False)):
            np.testing.assert_allclose(
                events.table[:, column], expected[name], rtol=1e-9, atol=1e-12, err_msg=f"{name} of {picture}"
            )
    assert found > 80


def test_feature_names_all_cover_dcnum():
    """No feature that dcnum computes is left out, and none is invented."""
    images, backgrounds, masks = generate("cells", seed=3, frames=4)
    expected, _ = features_of_dcnum(images, backgrounds, masks, None)
    assert sorted(FEATURES) == sorted(expected)
    assert feature_names() == FEATURES


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_texture_of_generated_masks_equals_mahotas():
    """Texture features are those of mahotas, with the byte that wraps to 0 left out."""
    images, backgrounds, masks = generate("blobs", seed=9, frames=10)
    events = extract(images, backgrounds, masks.astype(np.uint16), brightness=False, volume=False)
    corrected = images.astype(np.int16) - backgrounds
    assert (corrected.max(axis=(1, 2)) - corrected.min(axis=(1, 2))).max() > 255
    for frame, row in zip(events.frame, events.table, strict=True):
        mask = masks[frame]
        grey = ((corrected[frame] - corrected[frame][mask].min() + 1) * mask).astype(np.uint8)
        both = mahotas.features.haralick(grey, ignore_zeros=True, return_mean_ptp=True)
        used = [0, 1, 2, 3, 4, 6, 7, 8, 10, 11, 12]
        np.testing.assert_allclose(row[18::2], both[used], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(row[19::2], both[13:][used], rtol=1e-9, atol=1e-12)


def test_texture_without_pairs_in_one_direction_is_nan():
    """A mask whose pixels have no neighbour in one of the four directions has no texture."""
    labels = np.zeros((1, 40, 40), np.uint16)
    diagonal = np.arange(20)
    labels[0, diagonal, diagonal] = 1
    labels[0, 0, 1] = 1
    images = np.random.default_rng(0).integers(0, 255, labels.shape).astype(np.uint8)
    without = extract(images, np.zeros_like(images), labels).table
    labels[0, 1, 0] = 1
    complete = extract(images, np.zeros_like(images), labels).table
    # (0, 1) has neighbours in the east of (0, 0), south of it, and in the south-east; only (1, 0) is south-west of it.
    assert np.isnan(without[0, -len(FEATURES_TEXTURE) :]).all()
    assert not np.isnan(complete).any()


def test_texture_of_flat_mask_is_exact():
    """One grey value: full homogeneity and correlation, no contrast, and no entropy left over by rounding."""
    labels = np.zeros((1, 30, 30), np.uint16)
    labels[0, 5:17, 4:21] = 1
    images = np.full(labels.shape, 90, np.uint8)
    events = extract(images, np.full_like(images, 100), labels)
    values = dict(zip(FEATURES, events.table[0], strict=True))
    ones = {f"tex_{name}_avg" for name in ("asm", "cor", "idm")}
    for name in FEATURES_TEXTURE:
        assert values[name] == (1 if name in ones else 0), name
    assert values["bright_sd"] == values["bright_bc_sd"] == 0
    assert values["bright_perc_10"] == values["bright_perc_90"] == values["bright_bc_avg"] == -10


def test_extract_events_threshold_is_exclusive():
    """A mask needs more pixels than the threshold."""
    labels = np.zeros((1, 20, 20), np.uint16)
    labels[0, 2:4, 2:7] = 1
    labels[0, 8:10, 2:7] = 2
    labels[0, 10, 2] = 2
    images = np.full(labels.shape, 90, np.uint8)
    assert extract(images, images, labels, size_thresh=10).label.tolist() == [2]
    assert extract(images, images, labels, size_thresh=9).label.tolist() == [1, 2]


def test_extract_events_skipped_frames_yield_nothing():
    """Frames to skip have no events; the others keep their index, order and boxes, labels ascending."""
    labels = np.zeros((4, 30, 41), np.uint16)
    labels[:, 20:30, 30:41] = 300
    labels[:, 0:5, 0:6] = 65535
    labels[:, 10:16, 7:12] = 2
    images = np.random.default_rng(1).integers(0, 255, labels.shape).astype(np.uint8)
    events = extract_events(
        images,
        images[:1],
        np.zeros(4, np.int64),
        NO_OFFSET,
        labels,
        np.array([False, True, True, False]),
        pixel_size=1.0,
        size_thresh=10,
    )
    assert events.frame.tolist() == [0, 0, 0, 3, 3, 3]
    assert events.label.tolist() == [2, 300, 65535] * 2
    assert events.box.tolist() == [[10, 16, 7, 12], [20, 30, 30, 41], [0, 5, 0, 6]] * 2
    assert events.invalid == 0


def test_extract_events_crowded_frames_outgrow_the_first_table():
    """More events than the table had room for all arrive, whatever the number of frames."""
    labels = np.zeros((3, 100, 200), np.uint16)
    tiles = np.arange(1, 801, dtype=np.uint16).reshape(20, 40)
    labels[:] = np.kron(tiles, np.ones((5, 5), np.uint16))
    images = np.random.default_rng(2).integers(0, 255, labels.shape).astype(np.uint8)
    events = extract(images, images, labels)
    assert events.label.tolist() == list(range(1, 801)) * 3
    np.testing.assert_array_equal(events.table[:, FEATURES.index("area_msd")], 16)


def test_extract_events_kept_workspace_changes_nothing():
    """Frames of other sizes may share a workspace, which leaves no trace in the next batch."""
    workspace = Workspace()
    for height, width, seed in ((50, 90, 1), (20, 130, 2), (70, 30, 3), (50, 90, 1)):
        rng = np.random.default_rng(seed)
        images = rng.integers(0, 255, (5, height, width)).astype(np.uint8)
        labels = (ndimage.gaussian_filter(rng.normal(size=images.shape), (0, 2, 2)) > 0.05).astype(np.uint16)
        arguments = (images, images[:1] // 2, np.zeros(5, np.int64), NO_OFFSET, labels, np.zeros(5, bool))
        fresh = extract_events(*arguments, pixel_size=0.34, size_thresh=0)
        kept = extract_events(*arguments, pixel_size=0.34, size_thresh=0, workspace=workspace)
        np.testing.assert_array_equal(kept.table, fresh.table)


@pytest.mark.parametrize("brightness", [False, True])
@pytest.mark.parametrize("haralick", [False, True])
@pytest.mark.parametrize("volume", [False, True])
def test_extract_events_switches_choose_columns(brightness: bool, haralick: bool, volume: bool):
    """Leaving groups out drops their columns and changes no other."""
    images, backgrounds, masks = generate("cells", seed=5, frames=5)
    switches = {"brightness": brightness, "haralick": haralick, "volume": volume}
    names = feature_names(**switches)
    everything = extract(images, backgrounds, masks.astype(np.uint16))
    events = extract(images, backgrounds, masks.astype(np.uint16), **switches)
    np.testing.assert_array_equal(events.table, everything.table[:, [FEATURES.index(name) for name in names]])
    for group, on in ((FEATURES_VOLUME, volume), (FEATURES_BRIGHTNESS, brightness), (FEATURES_TEXTURE, haralick)):
        assert set(group).issubset(names) == on
    assert set(FEATURES_CONTOUR) <= set(names)


@pytest.mark.parametrize("shape", [(9, 11), (10, 10), (1, 1), (3, 2)])
def test_background_median_equals_numpy(shape: tuple[int, int]):
    """The background's median is numpy's for odd and even numbers of pixels, also between two values."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        background = rng.choice([0, 3, 4, 200, 255], shape).astype(np.uint8)
        images = np.zeros((1, 12, 12), np.uint8)
        labels = np.zeros((1, 12, 12), np.uint16)
        if min(shape) < 9:
            background = np.tile(background, (12 // shape[0], 12 // shape[1]))
        else:
            images, labels = images[:, : shape[0], : shape[1]], labels[:, : shape[0], : shape[1]]
        labels[:, 2:8, 2:8] = 1
        events = extract(images, background[np.newaxis], labels)
        assert events.table[0, FEATURES.index("bg_med")] == np.median(background)


def test_extract_events_no_frames_gives_empty_table():
    """An empty batch is legal."""
    events = extract(np.zeros((0, 9, 9), np.uint8), np.zeros((0, 9, 9), np.uint8), np.zeros((0, 9, 9), np.uint16))
    assert events.table.shape == (0, len(FEATURES))
    assert events.box.shape == (0, 4)


@pytest.mark.parametrize(
    "change",
    [
        {"labels": np.zeros((2, 9, 8), np.uint16)},
        {"labels": np.zeros((2, 9, 9), np.int64)},
        {"images": np.zeros((2, 9, 9))},
        {"bg_off": np.zeros(1)},
        {"skip": np.zeros(3, bool)},
        {"background_index": np.array([0, 1])},
    ],
    ids="-".join,
)
def test_extract_events_arrays_that_do_not_fit_are_refused(change: dict[str, npt.NDArray[np.generic]]):
    """Wrong shapes, types and background numbers are errors, not reads beyond the end."""
    arrays = {
        "images": np.zeros((2, 9, 9), np.uint8),
        "backgrounds": np.zeros((1, 9, 9), np.uint8),
        "background_index": np.zeros(2, np.int64),
        "bg_off": NO_OFFSET,
        "labels": np.zeros((2, 9, 9), np.uint16),
        "skip": np.zeros(2, bool),
    }
    with pytest.raises(ValueError, match="got"):
        extract_events(**(arrays | change), pixel_size=1.0, size_thresh=10)


def test_extract_events_many_labels_in_large_frames():
    """Labels that begin again are in pieces all over a frame; a pixel counts once, not with each mask around it."""
    masks = np.zeros((1, 1400, 1400), bool)
    for dy, dx in np.ndindex(3, 3):
        masks[0, 1 + dy :: 5, 1 + dx :: 5] = True
    labels = ndimage.label(masks[0], np.ones((3, 3)))[0][np.newaxis].astype(np.uint16)
    images = np.where(masks, 100, 150).astype(np.uint8)
    index, skip = np.zeros(1, np.int64), np.zeros(1, np.bool_)
    events = extract_events(
        images, np.full_like(images, 150), index, np.empty(0), labels, skip, pixel_size=1.0, size_thresh=10
    )
    # 280 x 280 objects of 9 pixels: those with 18 are events, and their contour is that of the last piece
    np.testing.assert_array_equal(events.label, np.arange(1, 280**2 - 65535))
    pieces = np.arange(65536, 280**2)
    np.testing.assert_array_equal(events.table[:, FEATURES.index("pos_x")], 2 + 5 * (pieces % 280))
    np.testing.assert_array_equal(events.table[:, FEATURES.index("pos_y")], 2 + 5 * (pieces // 280))
