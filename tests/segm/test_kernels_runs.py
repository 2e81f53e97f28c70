"""Runs and their components against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from dcnumd.segm import kernels_runs
from tests.support.frames import every_special_picture, pack_bits, pictures, unpack_bits

EIGHT_CONNECTED = np.ones((3, 3))


class Components:
    """The components of the rows `top` to `bottom` of a mask, in the kernels' arrays."""

    def __init__(self, mask, top=0, bottom=None):
        self.mask = mask
        self.top, self.bottom = top, len(mask) if bottom is None else bottom
        bits, words, stride, _ = pack_bits(mask)
        most = mask.shape[0] * ((mask.shape[1] + 1) // 2)
        # what is not written must not be read
        self.starts, self.ends, self.parent, self.following, self.number = np.full((5, most), -77, np.int32)
        self.row_first = np.full(len(mask) + 1, -77, np.int32)
        self.boxes = np.full((most, 5), -77, np.int32)
        kernels_runs.find_components(
            bits,
            self.top,
            self.bottom,
            words,
            stride,
            self.starts,
            self.ends,
            self.row_first,
            self.parent,
            self.following,
            self.boxes,
        )
        self.runs = int(self.row_first[self.bottom])
        self.roots = np.flatnonzero(self.parent[: self.runs] == np.arange(self.runs)).tolist()

    def paint(self, *, clear_border=False):
        """Return the frame of labels."""
        height, width = self.mask.shape
        frame = np.zeros(height * width, np.uint16)
        kernels_runs.paint_components(
            self.top,
            self.bottom,
            height,
            width,
            clear_border,
            self.starts,
            self.ends,
            self.row_first,
            self.parent,
            self.boxes,
            self.number,
            frame,
        )
        return frame.reshape(height, width)

    def draw(self, root):
        """Return the pixels of one component in the rows it spans, and the two around, in its own words."""
        first_row, last_row, left, right = self.boxes[root, :4].tolist()
        left_word = left // 64
        words = right // 64 - left_word + 1
        shape = last_row - first_row + 3, 64 * words
        region = np.full((shape[0] + 2) * (words + 1), 0xDEAD_BEEF_DEAD_BEEF, np.uint64)
        kernels_runs.draw_component(
            root,
            first_row,
            last_row,
            left_word,
            words + 1,
            self.starts,
            self.ends,
            self.row_first,
            self.following,
            region,
        )
        return unpack_bits(region, shape)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@every_special_picture()
@given(pictures())
def test_painted_components_equal_scipy(picture):
    """Components have scipy's pixels and numbers."""
    np.testing.assert_array_equal(Components(picture.mask).paint(), picture.labels)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@every_special_picture()
@given(pictures())
def test_boxes_and_drawings_equal_scipy(picture):
    """Each component has scipy's bounding box, and can be drawn alone."""
    components = Components(picture.mask)
    slices = ndimage.find_objects(picture.labels)
    assert len(components.roots) == len(slices)
    for number, (root, (rows, columns)) in enumerate(zip(components.roots, slices, strict=True), start=1):
        expected = [rows.start, rows.stop - 1, columns.start, columns.stop - 1]
        assert components.boxes[root, :4].tolist() == expected
        # drawing every speck of a noisy frame would show nothing new
        if number <= 20 or number == len(slices):
            region = components.draw(root)
            left = columns.start // 64 * 64
            drawn = picture.labels[rows, left : left + region.shape[1]] == number
            assert not region[[0, -1]].any()
            np.testing.assert_array_equal(region[1:-1, : drawn.shape[1]], drawn)
            assert not region[:, drawn.shape[1] :].any()


@settings(max_examples=60, deadline=None)
@given(pictures(), st.data())
def test_components_of_some_rows_equal_scipy(picture, data):
    """Only the rows that were asked for are looked at, whatever lies above and below."""
    top = data.draw(st.integers(0, picture.height))
    bottom = data.draw(st.integers(top, picture.height))
    expected = np.zeros(picture.mask.shape, np.uint16)
    expected[top:bottom] = ndimage.label(picture.mask[top:bottom], EIGHT_CONNECTED)[0]
    np.testing.assert_array_equal(Components(picture.mask, top, bottom).paint(), expected)


@settings(max_examples=60, deadline=None)
@every_special_picture()
@given(pictures())
def test_runs_equal_steps_along_rows(picture):
    """Runs begin and end where a row steps up and down, in raster order."""
    components = Components(picture.mask)
    steps = np.diff(np.pad(picture.mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    assert components.starts[: components.runs].tolist() == np.nonzero(steps == 1)[1].tolist()
    assert components.ends[: components.runs].tolist() == (np.nonzero(steps == -1)[1] - 1).tolist()
    counts = np.count_nonzero(steps == 1, axis=1)
    assert components.row_first.tolist() == [0, *np.cumsum(counts).tolist()]
