"""The plots of a report: limits, density, what is drawn where, and that nothing is drawn from nothing."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib.path import Path
from PIL import Image

from dcnumd.config.values import PlotSettings
from dcnumd.report import plots, scatter
from dcnumd.report.axes import standard_limits
from dcnumd.report.cloud import cloud, limits

LABELS = ("area [µm²]", "deformation")
NOTHING = np.empty(0, np.int64)


def two_clouds(events=3000):
    rng = np.random.default_rng(4)
    few = events // 10
    x = np.concatenate([rng.normal(50, 4, events - few), rng.normal(120, 9, few)])
    y = np.concatenate([rng.normal(0.05, 0.006, events - few), rng.normal(0.15, 0.02, few)])
    return cloud(x, np.abs(y))


def parsed(plot):
    """Return the drawing as XML, as strict as can be."""
    return ET.fromstring(f'<svg xmlns:xlink="http://www.w3.org/1999/xlink">{plot.svg}</svg>')  # noqa: S314 -- our own


def texts(plot):
    return [element.text for element in parsed(plot).iter("text")]


@pytest.mark.parametrize(
    "values", [[], [np.nan] * 5, [np.inf, -np.inf, np.nan]], ids=["no events", "all NaN", "nothing finite"]
)
def test_nothing_to_show_gives_no_plot(values):
    """Empty axes would look as if something had been measured."""
    values = np.array(values, np.float64)
    assert limits(values) is None
    assert cloud(values, values) is None
    assert plots.histogram(values, "area", None, "a") is None
    assert plots.course(values, values, "events/s", "c", rate=True) is None


def test_one_interval_is_no_course():
    """A line needs two points, of which NaN and None are none."""
    assert plots.course([1.0, 2.0, 3.0], [5.0, None, float("nan")], "events/s", "c", rate=True) is None
    assert plots.course([1.0, 2.0, 3.0], [5.0, None, 6.0], "events/s", "c", rate=True) is not None


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 1e12, 1e-12])
def test_a_single_event_gets_axes_around_it(value):
    """So do many equal events."""
    low, high = limits(np.full(4, value))
    assert low <= value < high
    one = cloud(np.array([value]), np.array([value]))
    assert one.index.tolist() == [0]
    assert one.density.tolist() == [1.0]
    plot = scatter.plot(one, scatter.dots(one), LABELS, one.index, "s")
    assert 0 < plot.points[0, 0] < plot.width
    assert 0 < plot.points[0, 1] < plot.height


def test_outliers_do_not_squeeze_the_plot():
    """Those beyond the axes are counted; values that cannot be negative begin at zero."""
    x = np.concatenate([np.linspace(20, 60, 1000), [1e6, 2e6]])
    low, high = limits(x)
    assert low == 0
    assert 60 < high < 100
    found = cloud(x, np.linspace(0.0, 0.1, 1002))
    assert found.outside == 2
    assert not found.has(1000)
    assert found.has(999)


def test_events_without_both_values_are_passed_over():
    """The others keep their number in the result."""
    x = np.array([1.0, np.nan, 2.0, 3.0, np.inf])
    y = np.array([0.1, 0.2, np.nan, 0.3, 0.4])
    assert cloud(x, y).index.tolist() == [0, 3]


WANTED = ((0.0, 200.0), (0.0, 0.2))


def test_axes_of_measurements_compare():
    """The limits that were asked for hold for whatever is measured, as long as nearly all events are within."""
    rng = np.random.default_rng(1)
    for area, deform in ((30, 0.02), (120, 0.12)):
        x, y = rng.normal(area, 5, 1000), np.abs(rng.normal(deform, 0.01, 1000))
        x[:8], y[8] = 900, np.nan
        found = cloud(x, y, WANTED)
        assert (found.limits_x, found.limits_y) == WANTED
        assert (found.outside, found.incomplete, found.unusual) == (8, 1, 0.0)


@pytest.mark.parametrize(
    ("place", "value", "limits_x", "limits_y"),
    [
        (0, 210, (0, 300), (0, 0.2)),
        (0, 500, (0, 600), (0, 0.2)),
        (1, 0.35, (0, 200), (0, 0.4)),
        (1, -0.05, (0, 200), (-0.1, 0.2)),
    ],
)
def test_axes_are_widened_where_much_is_outside(place, value, limits_x, limits_y):
    """By factors that make them often the same again; the share of events that made it necessary is known."""
    values = [np.full(500, 60.0), np.full(500, 0.05)]
    values[place][:20] = value
    found = cloud(*values, WANTED)
    assert found.limits_x == pytest.approx(limits_x)
    assert found.limits_y == pytest.approx(limits_y)
    assert found.outside == 0
    assert found.unusual == pytest.approx(0.04)


@pytest.mark.parametrize("largest", [1e307, 1.7e308])
def test_axes_are_finite_or_there_is_no_plot(largest):
    """Whatever numbers are in a file."""
    values = np.full(500, 60.0)
    values[:20] = largest
    for wanted in (None, WANTED):
        found = cloud(values, np.full(500, 0.05), wanted)
        assert found is None or np.isfinite(found.limits_x).all()
        assert (found is None) == (largest > 1e308)


@pytest.mark.parametrize(
    ("width", "area"), [(20, 200), (10, 50), (15, 112.5), (30, 450), (40, 800), (None, 200), (0, 200)]
)
def test_limits_grow_with_the_channel(width, area):
    """The largest cells do, too; what cannot be a width is none."""
    assert standard_limits(PlotSettings(), width) == ((0, area), (0, 0.2))
    assert standard_limits(PlotSettings((20.0, 90.0), (0.01, 0.5)), width) == ((20, 90), (0.01, 0.5))


def test_density_is_higher_where_events_are_many():
    """Its colours are relative to the densest place."""
    found = two_clouds()
    usual = np.median(found.density[found.x < 80])
    lonely = np.median(found.density[found.x > 100])
    assert found.density.max() == 1.0
    assert usual > 10 * lonely


def enclosed(found, contour):
    """Return the number of events within a contour line; of a part within a part, those between both."""
    at = np.column_stack([(found.x - found.limits_x[0]) / np.ptp(found.limits_x), found.y / found.limits_y[1]])
    inside = np.zeros(len(at), bool)
    for part in contour.parts:
        inside ^= Path(part).contains_points(at)
    return np.count_nonzero(inside)


def test_contours_enclose_the_share_of_events_that_they_name():
    """Of all events, also if some lie beyond the axes."""
    rng = np.random.default_rng(5)
    x, y = rng.normal(60, 8, 5000), np.abs(rng.normal(0.05, 0.01, 5000))
    x[:40] = 900
    found = cloud(x, y, WANTED)
    assert [contour.share for contour in found.contours] == [0.95, 0.5]
    for contour in found.contours:
        assert enclosed(found, contour) == pytest.approx(5000 * contour.share, rel=0.02)


@pytest.mark.parametrize("events", [1, 99])
def test_few_events_have_no_contours(events):
    """These would follow single events."""
    rng = np.random.default_rng(5)
    assert cloud(rng.normal(60, 8, events), rng.normal(0.1, 0.01, events), WANTED).contours == ()


def test_equal_events_need_no_contours():
    """A plot of one point that stands for many is still drawn."""
    found = cloud(np.full(500, 60.0), np.full(500, 0.05), WANTED)
    scatter.plot(found, scatter.dots(found), LABELS, NOTHING, "s")
    scatter.picture(found, scatter.dots(found), LABELS)


def test_contours_are_drawn_in_each_picture_of_the_plot():
    """Within the axes, and readable on points and on the background."""
    found = two_clouds()
    plot = scatter.plot(found, scatter.dots(found), LABELS, NOTHING, "s")
    image = next(parsed(plot).iter("image")).attrib
    lines = [path.attrib for path in parsed(plot).findall("path")]
    assert len(lines) == 4
    for line in lines:
        x, y = np.array(re.findall(r"[\d.]+", line["d"]), float).reshape(-1, 2).T
        assert float(image["x"]) - 0.1 <= x.min() < x.max() <= float(image["x"]) + float(image["width"]) + 0.1
        assert float(image["y"]) - 0.1 <= y.min() < y.max() <= float(image["y"]) + float(image["height"]) + 0.1
    bare = dataclasses.replace(found, contours=())
    pictures = [scatter.picture(points, scatter.dots(found), LABELS, paper=True) for points in (found, bare)]
    lined, plain = (np.asarray(Image.open(io.BytesIO(one)).convert("L"), int) for one in pictures)
    assert np.count_nonzero(plain - lined > 60) > 300


def test_marked_points_lie_where_the_axes_say():
    """The place of a point follows from the ticks, which matplotlib has placed."""
    found = two_clouds()
    event = int(found.index[len(found.index) // 2])
    plot = scatter.plot(found, scatter.dots(found), LABELS, np.array([event]), "s")
    at = {"middle": {}, "end": {}}
    for element in parsed(plot).iter("text"):
        anchor = re.search(r"text-anchor: (\w+)", element.attrib["style"])
        if anchor and re.fullmatch(r"[\d.]+", element.text or ""):
            at[anchor[1]][float(element.text)] = float(element.attrib["x" if anchor[1] == "middle" else "y"])
    place = found.index.tolist().index(event)
    for axis, anchor, value in ((0, "middle", found.x[place]), (1, "end", found.y[place])):
        ticks = sorted(at[anchor].items())
        (v0, p0), (v1, p1) = ticks[0], ticks[-1]
        # the text of a tick on the upward axis stands a little below it
        assert plot.points[0, axis] == pytest.approx(p0 + (value - v0) / (v1 - v0) * (p1 - p0), abs=6)


def test_points_are_where_the_raster_has_them():
    """What is laid over the raster fits it, at either end of the axes."""
    found = cloud(np.array([1.0, 2.0, 9.0]), np.array([0.2, 0.5, 0.9]))
    raster = np.asarray(scatter.dots(found))
    plot = scatter.plot(found, scatter.dots(found), LABELS, found.index, "s")
    image = next(parsed(plot).iter("image"))
    x, y, width, height = (float(image.attrib[name]) for name in ("x", "y", "width", "height"))
    for px, py in plot.points:
        column, row = int((px - x) / width * raster.shape[1]), int((py - y) / height * raster.shape[0])
        assert raster[row, column, 3] == 255
    assert Image.open(io.BytesIO(base64.b64decode(image.attrib["href"].partition(",")[2]))).size == raster.shape[1::-1]


def test_drawings_stay_apart_on_one_page():
    """Names in two drawings differ, nothing holds for the whole page, and the same drawing is the same each time."""
    values = np.random.default_rng(1).normal(50, 4, 200)
    one, other, again = (plots.histogram(values, "area", 50.0, key) for key in ("one", "other", "one"))
    names = [set(re.findall(r'\bid="([^"]+)"', plot.svg)) for plot in (one, other)]
    assert names[0]
    assert not names[0] & names[1]
    assert one.svg == again.svg
    for drawing in (one, other):
        used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', drawing.svg))
        assert used <= set(re.findall(r'\bid="([^"]+)"', drawing.svg))
        assert "<style" not in drawing.svg
        assert "http" not in drawing.svg


def test_colours_come_from_the_style_sheet():
    """Dark mode and print change them; a fixed black would vanish."""
    found = two_clouds(300)
    drawn = [
        scatter.plot(found, scatter.dots(found), LABELS, NOTHING, "s"),
        plots.histogram(found.x, "area", 50.0, "h"),
        plots.course([0, 1, 2], [5, 6, 7], "events/s", "c", rate=True),
        plots.course([0, 1, 2], [5, 6, 7], "grey level", "c", rate=False),
    ]
    for plot in drawn:
        assert not re.search(r"(?:fill|stroke|stop-color): ?#", plot.svg)
        assert "var(--muted)" in plot.svg
        assert all("var(--muted)" in element.attrib["style"] for element in parsed(plot).iter("text"))


@pytest.mark.parametrize("name", ["a $x_1$ b", "<script>alert(1)</script>", 'say "µm²" & more'])
def test_names_are_text_and_nothing_else(name):
    """Neither formulas nor markup."""
    plot = plots.histogram(np.arange(50.0), name, None, "h")
    assert name in texts(plot)
    assert "<script" not in plot.svg


def test_thumbnail_is_tiny_and_shows_the_cloud():
    """It fits into a row of an index of thousands."""
    found = two_clouds(10_000)
    png = scatter.thumbnail(found)
    image = Image.open(io.BytesIO(png))
    assert len(png) < 900
    assert image.size == (96, 64)
    alpha = np.asarray(image.convert("RGBA"))[..., 3]
    assert 0.01 < (alpha > 0).mean() < 0.6
    # the usual events are in the lower left, the others in the upper right
    assert alpha[40:, :48].any()
    assert alpha[:30, 48:].any()
    assert not alpha[:30, :48].any()


def test_thumbnail_of_a_wide_cloud_is_tiny_too():
    """Noise all over is the worst that there is."""
    rng = np.random.default_rng(2)
    assert len(scatter.thumbnail(cloud(rng.random(100_000), rng.random(100_000)))) < 900


def test_picture_is_a_png_for_any_ground():
    """Transparent for pages, white for paper."""
    found = two_clouds()
    live = Image.open(io.BytesIO(scatter.picture(found, scatter.dots(found), LABELS))).convert("RGBA")
    paper = Image.open(io.BytesIO(scatter.picture(found, scatter.dots(found), LABELS, paper=True))).convert("RGBA")
    assert live.size == paper.size == (900, 634)
    assert live.getpixel((2, 2))[3] == 0
    assert min(paper.getpixel((2, 2))) >= 250
    assert np.asarray(paper)[..., 3].min() == 255
    assert np.ptp(np.asarray(live)[..., :3].astype(int), axis=-1).max() > 60, "no colours"


def test_many_points_are_thinned_only_where_they_hide_each_other():
    """A hundred thousand events cost little more than ten thousand, and the plot looks the same."""
    rng = np.random.default_rng(3)
    found = cloud(rng.normal(50, 5, 100_000), rng.normal(0.5, 0.05, 100_000))
    few = scatter.dots(found)
    assert np.asarray(few)[..., 3].mean() > 40
