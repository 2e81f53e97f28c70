"""The gallery: which cells are chosen, what their tiles show, and what happens without images or masks."""

from __future__ import annotations

import dataclasses
import io
import re

import numpy as np
import pytest
from PIL import Image

from dcnumd.report.cloud import cloud
from dcnumd.report.gallery import background_pictures, choose, contour_path, make_gallery


@dataclasses.dataclass
class Pictures:
    """Frames and masks in memory, some of which cannot be read."""

    frames: list
    masks: list
    backgrounds: list = dataclasses.field(default_factory=list)

    def image(self, index):
        return self.frames[index]

    def mask(self, index):
        return self.masks[index]

    def background(self, index):
        return self.backgrounds[index]


def with_cell(top, left, size=(10, 16), shape=(80, 320)):
    """Return a frame with a dark cell, and its mask."""
    mask = np.zeros(shape, bool)
    mask[top : top + size[0], left : left + size[1]] = True
    return np.where(mask, 100, 180).astype(np.uint8), mask


def pictures_of(*cells, **keywords):
    frames, masks = zip(*(with_cell(*cell, **keywords) for cell in cells), strict=True)
    return Pictures(list(frames), list(masks))


def sheet_of(gallery):
    return np.asarray(Image.open(io.BytesIO(gallery.sheet)))


def tile_of(gallery, cell):
    width, height = gallery.tile
    return sheet_of(gallery)[cell.top : cell.top + height, cell.left : cell.left + width]


def spread(events=4000, seed=7):
    rng = np.random.default_rng(seed)
    return cloud(rng.normal(60, 10, events), np.abs(rng.normal(0.08, 0.02, events)))


def test_cells_come_from_all_over_the_plot():
    """Each quarter of the cloud is there, and no two lie side by side; the first events are nothing special."""
    points = spread()
    chosen = choose(points, 24)
    assert len(set(chosen.tolist())) == 24
    assert chosen.max() > 2000
    at = np.searchsorted(points.index, chosen)
    x, y = points.x[at], points.y[at]
    for side_x in (x < 60, x >= 60):
        for side_y in (y < 0.08, y >= 0.08):
            assert (side_x & side_y).sum() >= 3
    spots = np.column_stack([x / 60, y / 0.08])
    apart = np.linalg.norm(spots[:, None] - spots[None], axis=-1)[~np.eye(24, dtype=bool)]
    assert apart.min() > 0.03
    assert (np.diff(x) >= 0).all(), "they stand in the order of the plot"


def test_the_usual_event_is_among_them_and_the_choice_is_the_same_each_time():
    """Also when only one cell is shown."""
    points = spread()
    densest = points.index[np.argmax(points.density)]
    assert choose(points, 1).tolist() == [densest]
    assert densest in choose(points, 24)
    assert choose(points, 24).tolist() == choose(spread(), 24).tolist()


@pytest.mark.parametrize(("events", "wanted", "found"), [(1, 24, 1), (5, 24, 5), (10, 0, 0), (600, 500, 500)])
def test_no_more_cells_than_there_are(events, wanted, found):
    """Each at most once, even where all are equal."""
    same = cloud(np.full(events, 50.0), np.full(events, 0.1))
    chosen = choose(same, wanted)
    assert len(chosen) == len(set(chosen.tolist())) == found


def test_huge_measurements_are_looked_at_in_part():
    """From the first to the last event."""
    points = cloud(np.linspace(1, 2, 200_000), np.linspace(1, 2, 200_000))
    chosen = choose(points, 50)
    assert len(chosen) == 50
    assert chosen.min() < 20_000
    assert chosen.max() > 180_000


def test_tiles_show_the_cell_in_their_middle_with_its_outline():
    """Wherever in the frame it lies; next to the edge the tile ends with the frame."""
    pictures = pictures_of((30, 100), (0, 0), (70, 304))
    gallery = make_gallery(pictures, np.array([0, 1, 2]))
    width, height = gallery.tile
    assert [cell.event for cell in gallery.cells] == [0, 1, 2]
    middle, corner, far = (tile_of(gallery, cell) for cell in gallery.cells)
    assert middle[height // 2, width // 2] < 50 < middle[1, 1]
    assert corner[0, 0] < 50 < corner[-1, -1]
    assert far[-1, -1] < 50 < far[0, 0]
    for cell, tile in zip(gallery.cells, (middle, corner, far), strict=True):
        rows, columns = np.nonzero(tile < 127)
        x, y = outline(cell.contour)
        assert (x.min(), x.max()) == (cell.left + columns.min(), cell.left + columns.max() + 1)
        assert (y.min(), y.max()) == (cell.top + rows.min(), cell.top + rows.max() + 1)


def outline(path):
    """Return the corners of path data that starts once and goes in steps of half pixels."""
    numbers = re.findall(r"-?\d+", re.fullmatch(r"M[-\d ]+l[-\d ]+z", path)[0])
    points = np.cumsum(np.array(numbers, float).reshape(-1, 2), axis=0) / 2
    return points[:, 0], points[:, 1]


def test_contours_of_specks_are_left_out_and_all_others_drawn():
    """A mask of two pieces has two outlines; one without pixels has none."""
    mask = np.zeros((20, 20), bool)
    assert contour_path(mask, 0, 0) == ""
    mask[2:6, 2:6] = mask[10:15, 10:15] = True
    mask[18, 1] = True
    assert contour_path(mask, 0, 0).count("M") == 2


def test_one_clump_does_not_make_all_others_tiny():
    """It is cut instead."""
    pictures = pictures_of(*[(30, 40 + step) for step in range(9)])
    pictures.frames[4], pictures.masks[4] = with_cell(10, 20, size=(60, 280))
    gallery = make_gallery(pictures, np.arange(9))
    assert gallery.tile[0] < 60


def test_cells_without_an_image_are_counted_not_shown():
    """And so are cells without a mask, which have no outline."""
    pictures = pictures_of(*[(30, 100)] * 5)
    pictures.frames[1] = None
    pictures.masks[2] = None
    pictures.masks[4] = np.ones((7, 9), bool)
    gallery = make_gallery(pictures, np.arange(5))
    assert [cell.event for cell in gallery.cells] == [0, 2, 3, 4]
    assert gallery.without_image == 1
    assert gallery.without_mask == 2
    assert [bool(cell.contour) for cell in gallery.cells] == [True, False, True, False]


def test_no_image_no_gallery():
    """Nothing is made up."""
    assert make_gallery(Pictures([None] * 3, [None] * 3), np.arange(3)) is None


@pytest.mark.parametrize("shape", [(5, 7), (1, 1), (400, 900)])
def test_frames_of_any_size(shape):
    """A tile is never larger than a frame, and a mask that fills it is shown."""
    pictures = Pictures([np.full(shape, 90, np.uint8)], [np.ones(shape, bool)])
    gallery = make_gallery(pictures, np.array([0]))
    assert gallery.tile[0] <= shape[1]
    assert gallery.tile[1] <= shape[0]


def test_frames_of_equal_brightness_stay_grey():
    """Noise of a grey level is not blown up to black and white."""
    frame = np.full((40, 60), 128, np.uint8)
    frame[::2] += 1
    gallery = make_gallery(Pictures([frame], [None]), np.array([0]))
    assert np.ptp(sheet_of(gallery).astype(int)) < 40


def test_large_galleries_stay_small():
    """500 cells in one picture, less than 2 kB each."""
    rng = np.random.default_rng(0)
    pictures = pictures_of(
        *[(int(y), int(x)) for y, x in zip(rng.integers(5, 60, 500), rng.integers(5, 290, 500), strict=True)]
    )
    pictures.frames = [frame + rng.integers(0, 4, frame.shape, np.uint8) for frame in pictures.frames]
    gallery = make_gallery(pictures, np.arange(500))
    assert len(gallery.cells) == 500
    assert len(gallery.sheet) + sum(len(cell.contour) for cell in gallery.cells) < 500 * 2000
    places = {(cell.left, cell.top) for cell in gallery.cells}
    assert len(places) == 500


def test_background_that_stays_has_no_picture_of_its_change():
    """The mean is there all the same."""
    frame = np.tile(np.arange(0, 200, 10, dtype=np.uint8), (8, 1))
    found = background_pictures(Pictures([], [], [frame] * 50), 50)
    assert found.change == b""
    assert found.largest == 0
    assert (found.width, found.height) == (20, 8)
    assert np.asarray(Image.open(io.BytesIO(found.mean)))[0, 0] == 0


def test_change_of_the_background_has_its_place_and_sign():
    """Brighter is red, darker is blue, the rest nearly white."""
    first = np.full((20, 30), 150, np.uint8)
    last = first.copy()
    last[:5], last[15:] = 190, 110
    found = background_pictures(Pictures([], [], [first] * 10 + [last] * 10), 20)
    picture = np.asarray(Image.open(io.BytesIO(found.change))).astype(int)
    assert found.largest == found.scale == 40
    assert picture[2, 3, 0] > picture[2, 3, 2] + 60
    assert picture[17, 3, 2] > picture[17, 3, 0] + 40
    assert picture[10, 3].min() > 230


@pytest.mark.parametrize("events", [0, 3])
def test_no_background_no_pictures(events):
    """As for images."""
    assert background_pictures(Pictures([], [], [None] * events), events) is None
