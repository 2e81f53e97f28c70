"""Pictures for a terminal."""

from __future__ import annotations

import numpy as np

from dcnumd.simulate.picture import frame_picture, scatter_picture


def test_frame_picture_draws_the_contour():
    """The picture has the asked width, half as many lines as rows, and the contour's colour."""
    image = np.full((80, 320), 147, np.uint8)
    mask = np.zeros((80, 320), bool)
    mask[30:45, 290:319] = True
    picture = frame_picture(image, mask, columns=90)
    lines = picture.plain.splitlines()
    assert len(lines) == 20
    assert {len(line) for line in lines} == {90}
    assert any("64,255,128" in str(span.style) for span in picture.spans)


def test_scatter_picture_shows_points_where_they_are():
    """A point at the lower left sets the lower left dot; values that are not finite are left out."""
    picture = scatter_picture(np.array([0.0, 10.0, np.nan]), np.array([0.0, 1.0, 0.5]), columns=20, rows=5)
    lines = picture.plain.splitlines()
    assert lines[4][9] == "⡀"
    assert lines[0].rstrip()[-1] == "⠈"
    assert lines[-1].split() == ["0.0", "10.0"]


def test_scatter_picture_of_nothing():
    """Without a finite point the picture says so."""
    assert "nothing" in scatter_picture(np.array([np.nan]), np.array([1.0]), columns=20, rows=5).plain
