"""Frames are reproducible and look like those of an instrument."""

from __future__ import annotations

import numpy as np
import pytest

from dcnumd.errors import ConfigError
from dcnumd.simulate.flow import BLOCK_FRAMES
from dcnumd.simulate.scene import Scene
from dcnumd.simulate.spec import MeasurementSpec

SIZES = [(80, 320), (80, 400), (100, 1010), (45, 100)]


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """500 frames of a sparse measurement."""
    return Scene(MeasurementSpec(density=0.3, seed=11)).render(0, 500)


@pytest.mark.parametrize("size", SIZES)
def test_frames_do_not_depend_on_the_batch(size):
    """Any range of frames, rendered in any order by any scene of the same seed, is the same."""
    spec = MeasurementSpec(size=size, density=1.5, flicker=2.0, seed=4)
    whole = Scene(spec).render(0, BLOCK_FRAMES + 60)
    other = Scene(spec)
    for start, stop in ((300, 310), (0, 7), (BLOCK_FRAMES - 3, BLOCK_FRAMES + 5)):
        assert np.array_equal(other.render(start, stop), whole[start:stop])
    assert whole.shape == (BLOCK_FRAMES + 60, *size)


def test_cells_do_not_depend_on_the_batch():
    """The cells of a range of frames are those that a larger range has in these frames."""
    spec = MeasurementSpec(seed=9, density=2.0)
    whole = Scene(spec).cells(0, 600)
    assert [cell for cell in whole if 200 <= cell.frame < 300] == Scene(spec).cells(200, 300)


def test_seed_changes_everything():
    """Another seed gives other frames and other cells."""
    one, two = Scene(MeasurementSpec(seed=1)), Scene(MeasurementSpec(seed=2))
    assert not np.array_equal(one.render(0, 1), two.render(0, 1))
    assert one.cells(0, 300) != two.cells(0, 300)


def test_noise_has_the_strength_of_shot_noise(frames):
    """The noise in the channel is 2.2 grey levels at 147, and weaker in the dark walls."""
    deviation = np.median(frames.astype(float).std(axis=0), axis=1)
    assert deviation[20:28].mean() == pytest.approx(2.2, abs=0.2)
    dark = int(np.argmin(np.median(frames[0], axis=1)))
    assert deviation[dark] < 0.95 * deviation[20:28].mean()


def test_no_frame_repeats_another(frames):
    """Every frame is unique, so that none is taken for a duplicate and compression finds nothing to repeat."""
    assert len({frame.tobytes() for frame in frames}) == len(frames)


def test_flicker_moves_whole_frames():
    """Flicker of 4 grey levels shows as a standard deviation of 4 in the frames' brightness."""
    frames = Scene(MeasurementSpec(density=0, flicker=4.0, seed=2)).render(0, 600)
    assert frames.mean(axis=(1, 2)).std() == pytest.approx(4.0, rel=0.15)


def test_illumination_drifts():
    """Between two moments seconds apart the brightness differs by more than the noise of a mean."""
    scene = Scene(MeasurementSpec(density=0, rate=100, seed=3))
    means = [scene.render(start, start + 8).mean() for start in range(0, 800, 100)]
    assert 0.5 < np.ptp(means) < 6


def test_density_is_the_mean_number_of_cells_in_a_frame():
    """Counting centres within the frame gives the density that was asked for."""
    spec = MeasurementSpec(density=1.3, seed=6)
    cells = Scene(spec).cells(0, 6000)
    within = [cell for cell in cells if 0 <= cell.x < spec.size[1]]
    assert len(within) / 6000 == pytest.approx(1.3, rel=0.1)


@pytest.mark.parametrize("kind", ["bead", "cell", "doublet", "border"])
def test_a_single_kind_can_be_chosen(kind):
    """A measurement of one kind has only cells of that kind."""
    cells = Scene(MeasurementSpec(kinds=(kind,), seed=1)).cells(0, 400)
    assert {cell.kind for cell in cells} == {kind}


def test_border_cells_are_cut_by_the_edge():
    """Cells of the kind border appear cut by the left edge first."""
    spec = MeasurementSpec(kinds=("border",), density=0.3, seed=1)
    cells = Scene(spec).cells(0, 1000)
    assert sum(cell.x - cell.width / 2 < 0 < cell.x + cell.width / 2 for cell in cells) > 0.3 * len(cells)


def test_doublets_touch_and_are_not_isolated():
    """Each doublet has two cells with less than two pixels between their outlines along the flow."""
    spec = MeasurementSpec(size=(100, 1010), kinds=("doublet",), density=0.1, seed=1)
    cells = Scene(spec).cells(0, 300)
    assert cells
    assert not any(cell.isolated for cell in cells)
    inner = [cell for cell in cells if 100 < cell.x < 900]
    for cell in inner:
        gaps = [
            abs(abs(cell.x - other.x) - (cell.width + other.width) / 2)
            for other in cells
            if other is not cell and other.frame == cell.frame
        ]
        assert min(gaps) < 4


def test_inside_cells_lie_wholly_in_the_frame():
    """The outline of a cell that is inside keeps clear of all edges."""
    spec = MeasurementSpec(size=(45, 100), density=1, seed=1)
    for cell in Scene(spec).cells(0, 500):
        if cell.inside:
            assert cell.x - cell.width / 2 > 2
            assert cell.x + cell.width / 2 < 97
            assert cell.y - cell.height / 2 > 4
            assert cell.y + cell.height / 2 < 40


def test_drawn_cell_is_where_the_truth_says(frames):
    """Where an isolated cell is inside, the frame differs from the median background, with the cell's extent."""
    scene = Scene(MeasurementSpec(density=0.3, seed=11))
    background = np.median(frames[:200], axis=0)
    checked = 0
    for cell in scene.cells(0, 200):
        if not (cell.isolated and cell.inside):
            continue
        dark = np.argwhere(frames[cell.frame] - background < -12)
        near = dark[(abs(dark - [cell.y, cell.x]) < [cell.height / 2 + 5, cell.width / 2 + 5]).all(axis=1)]
        extent = (near.min(axis=0) + near.max(axis=0)) / 2
        assert extent == pytest.approx([cell.y, cell.x], abs=8)
        assert np.ptp(near[:, 0]) == pytest.approx(cell.height, abs=4)
        checked += 1
    assert checked > 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (20, 320)}, "size 20x320: expected 40x80"),
        ({"frames": -1}, "frames -1: expected 0 or more"),
        ({"rate": 0.0}, "rate 0.0: expected more than 0"),
        ({"density": float("nan")}, "density nan"),
        ({"density": float("inf")}, "density inf: expected 0 to 100"),
        ({"rate": float("inf")}, "rate inf"),
        ({"pixel_size": 0.0}, "pixel-size 0.0: expected more than 0"),
        ({"clog_at": 7.0}, "clog-at 7.0: expected 0 to 1"),
        ({"kinds": ("bead", "worm")}, "expected some of bead, cell, doublet, border"),
        ({"kinds": ()}, "expected some of"),
        ({"compression": "zstd-22"}, "expected none, gzip or zstd-1 to zstd-9"),
        ({"flicker": 50.0}, "expected 0 to 10"),
    ],
)
def test_specification_refuses_nonsense(options, message):
    """A value out of range is refused in one line that says what is expected."""
    with pytest.raises(ConfigError, match=message):
        MeasurementSpec(**options)
