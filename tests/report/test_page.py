"""The page of a report: what stands on it, that it needs nothing else, and that no text becomes markup."""

from __future__ import annotations

import itertools
import json
import math
import os
import re

import numpy as np
import pytest

from dcnumd.config.values import PlotSettings
from dcnumd.errors import printable
from dcnumd.report.make import make_report
from dcnumd.report.page import number
from dcnumd.report.scale_bar import scale_bar
from dcnumd.report.wording import VERDICTS
from tests.support.reports import Page, columns_of, request_for, write_result

pytestmark = pytest.mark.slow

HOSTILE = [
    "<script>alert(1)</script>",
    "\"quoted\" and 'quoted' & <b>bold</b>",
    "two\nlines\tand a tab",
    "Blut 血液 кровь دم 🩸",
    "{{ 7 * 7 }} {% raw %} $x^2$ %s",
    "</title></style><img src=x onerror=alert(1)>",
]


def page_of(result, **values):
    make_report(request_for(result, **values))
    return Page(result.with_suffix(".html").read_text("utf-8"))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Return the page of a usual result, with three plots and twelve cells."""
    result = write_result(tmp_path_factory.mktemp("page") / "M001_dcn.rtdc")
    return page_of(result, gallery=12, pairs=(("area_um", "bright_avg"), ("area_um", "volume")))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\u2013"),
        (math.nan, "\u2013"),
        (math.inf, "\u2013"),
        (0, "0"),
        (5175, "5,175"),
        (10000.0, "10,000"),
        (35.98765, "35.99"),
        (0.12284, "0.1228"),
        (-0.5, "-0.5"),
        (99999.6, "100,000"),
        (0.00001234, "1.234e-05"),
        (1e20, "1.000e+20"),
    ],
)
def test_numbers_as_people_write_them(value, text):
    """Four digits that count, no zeros behind, thousands apart."""
    assert number(value) == text


def test_page_needs_nothing_else(page):
    """No script, no other host, no further file but the data beside it."""
    assert not page.of("script")
    assert not [name for _, values in page.elements for name in values if name.startswith("on")]
    outside = [address for address in page.addresses() if not address.startswith(("#", "data:image/"))]
    assert outside == ["./M001_dcn.json"]
    assert not re.search(r"url\((?!#)|@import", page.source)
    policy = next(values["content"] for values in page.of("meta") if "http-equiv" in values)
    assert policy.startswith("default-src 'none'")


def test_all_links_lead_somewhere_and_ids_are_unique(page):
    """Also those within the drawings."""
    ids = page.ids()
    assert len(ids) == len(set(ids))
    targets = {address[1:] for address in page.addresses() if address.startswith("#")}
    targets |= {values["for"] for values in page.of("label", "tab")}
    assert {"sheet", "cell-12", "point-12", "pick-2"} <= targets
    assert targets <= set(ids)


def test_each_cell_is_linked_to_its_point_and_back(page):
    """Twelve cells, the same in each of the three plots."""
    cells = {f"#cell-{number}" for number in range(1, 13)}
    marks = [values["href"] for values in page.of("a", "mark")]
    assert set(marks) == cells
    assert len(marks) == 36
    assert {f"#point-{number}" for number in range(1, 13)} <= set(page.addresses())
    assert {f"cell-{number}" for number in range(1, 13)} <= set(page.ids())
    assert len(page.of("path", "contour")) == 12


def test_plots_are_chosen_without_script(page):
    """By radio buttons, of which the first is on."""
    buttons = page.of("input", "pick")
    assert [values["type"] for values in buttons] == ["radio"] * 3
    assert ["checked" in values for values in buttons] == [True, False, False]
    for place in range(3):
        assert f"#pick-{place}:checked~#panel-{place}" in page.source


def test_one_plot_needs_no_choice(tmp_path):
    """Nor has it an empty row of buttons, nor marks if no gallery is wanted."""
    page = page_of(write_result(tmp_path / "M001_dcn.rtdc"), gallery=0)
    assert not page.of("li", "cell")
    assert not page.of("a", "mark")
    assert page.of("div", "panel")
    assert not page.of("input", "pick")
    assert not page.of("div", "tabs")
    assert "#panel-0{display:block}" in page.source


def test_page_is_for_everybody(page):
    """Language, one heading of the first rank, none skipped, names for all pictures and tables."""
    assert page.of("html") == [{"lang": "en"}]
    ranks = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert ranks.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(ranks))
    assert all(values.get("aria-label") for values in page.of("svg") if values.get("role") == "img")
    assert all(values.get("alt") for values in page.of("img"))
    assert all(values.get("scope") for values in page.of("th"))
    for part in ("header", "main", "footer"):
        assert len(page.of(part)) == 1


def test_page_tells_what_was_measured(page):
    """Name, time, instrument, numbers, features, pipeline; the traffic light on top."""
    for text in ("blood", "21 November 2026, 10:00:00", "RC-test", "M001_dcn.rtdc", "300", "Deformation", "0.06 µL/s"):
        assert text in page.text
    assert "sparsemed:k=200^s=1^t=0^f=0.8^o=1" in page.text
    assert any(word in page.text for word, _ in VERDICTS.values())
    assert page.text.index("checks") < page.text.index("Distributions")


def test_numbers_without_unit_have_none(page):
    """Neither at the axes nor in the table; what has a unit has it."""
    assert "deformation" in page.text
    assert "area [µm²]" in page.text
    assert "[1]" not in page.text
    assert re.search(r"Median of all events: [\d.]+ grey levels\.", page.text)
    row = page.source[page.source.index('<th scope="row">Deformation</th>') :].partition("</tr>")[0]
    assert "<td></td>" in row


def test_unusual_axes_are_explained(tmp_path):
    """What lies outside is told, wider axes are, and a channel whose width nobody knows; lines have a meaning."""
    columns = columns_of(300)
    columns["area_um"][:4] = 700
    columns["deform"][5] = np.nan
    result = write_result(tmp_path / "M001_dcn.rtdc", columns=columns)
    wide = page_of(result)
    assert (
        "Wider than usual: 1.3 % of the events lie outside of area 0 to 200 µm² and deformation 0 to 0.2." in wide.text
    )
    assert "1 event without finite values of both." in wide.text
    assert "The dashed line encloses 95 % of the events, the solid line encloses 50 %." in wide.text
    narrow = page_of(result, plot=PlotSettings(area=(0.0, 800.0)))
    assert "than usual" not in narrow.text
    columns["area_um"][:2] = 60
    result = write_result(tmp_path / "M002_dcn.rtdc", columns=columns, attributes={"setup:channel width": None})
    usual = page_of(result)
    assert "2 events beyond the axes." in usual.text
    assert "The width of the channel is not known; the axes are those for 20 µm." in usual.text


def test_share_of_the_events_is_beside_the_medians(tmp_path):
    ratio = np.where(np.arange(60) % 5 == 0, 1.2, 1.01)
    page = page_of(write_result(tmp_path / "M001_dcn.rtdc", 60, columns={"area_ratio": ratio}), gallery=0)
    keys = page.text[page.text.index("Porosity ≤ 1.05") : page.text.index("Distributions")]
    assert re.search(r"Porosity ≤ 1.05\s*80 %", keys)
    assert "those of the 80 % of the events with a porosity of at most 1.05." in keys


@pytest.mark.parametrize(
    ("width", "pixel_size", "length"),
    [
        (320, 0.34, 20.0),
        (100, 0.2, 5.0),
        (60, 0.34, 5.0),
        (1000, 0.1, 20.0),
        (320, None, None),
        (320, 0.0, None),
        (320, 1e-9, None),
        (0, 0.34, None),
    ],
)
def test_scale_bars_have_round_lengths(width, pixel_size, length):
    """And take up to a third of a picture; without a pixel size that can be one, there is none."""
    bar = scale_bar(width, pixel_size)
    if length is None:
        assert bar is None
    else:
        assert bar.length_um == pytest.approx(length)
        assert bar.share * width * pixel_size == pytest.approx(length)
        assert 0.1 < bar.share <= 0.36


def test_pictures_have_scale_bars(tmp_path, page):
    """Cells and backgrounds; all cells have the same."""
    assert len([values for values in page.of("use") if values.get("href") == "#bar"]) == 12
    assert re.search(r"The bar is (2|5|10) µm long", page.text)
    rulers = page.of("span", "ruler")
    assert len(rulers) == len(page.of("img")) == 2
    assert re.fullmatch(r"width:\d+(\.\d+)?%", rulers[0]["style"])
    unknown = page_of(write_result(tmp_path / "M001_dcn.rtdc", attributes={"imaging:pixel size": None}), gallery=2)
    assert not unknown.of("span", "ruler")
    assert "bar" not in unknown.ids()
    assert re.search(r"Each picture shows \d+ by \d+ pixels", unknown.text)


def test_short_recordings_have_a_duration(tmp_path):
    page = page_of(write_result(tmp_path / "M001_dcn.rtdc", 20), gallery=0)
    assert re.search(r"Duration\s*0\.02 s", page.text)


def test_names_from_files_stay_text(tmp_path):
    """Whatever field they are in, and in the name of the file."""
    keys = ("experiment:sample", "setup:medium", "setup:identifier", "setup:chip region", "setup:software version")
    attributes = dict(zip((*keys, "pipeline:dcnum gate"), HOSTILE, strict=True))
    file_name = HOSTILE[0].replace("/", "_") + HOSTILE[2] + HOSTILE[3]
    result = write_result(tmp_path / f"{file_name}.rtdc", 60, attributes=attributes)
    page = Page(make_report(request_for(result, gallery=2)).paths[0].read_text("utf-8"))
    assert not page.of("script")
    assert len(page.of("title")) == 1
    assert all(values["src"].startswith("data:image/png;") for values in page.of("img"))
    assert not [name for _, values in page.elements for name in values if name.startswith("on")]
    read = " ".join(page.text.split())
    for name in (*HOSTILE[:4], HOSTILE[5], printable(f"{file_name}.rtdc")):
        assert " ".join(name.split()) in read


def test_link_to_the_data_works_for_any_name(tmp_path):
    """It is an address, not a name; a file system allows any bytes."""
    path = os.fsdecode(os.fsencode(tmp_path) + "/a b#1?%41:ü".encode() + b"\xff_dcn.rtdc")
    result = write_result(tmp_path / "M.rtdc", 30)
    page, data = make_report(request_for(result.rename(path))).paths
    assert "./a%20b%231%3F%2541%3A%C3%BC%FF_dcn.json" in Page(page.read_text("utf-8")).addresses()
    json.loads(data.read_text("utf-8"))


@pytest.mark.parametrize(("events", "said"), [(0, "No events were found"), (1, "1 event;")])
def test_few_events(tmp_path, events, said):
    """None: no plot at all, and the page says so. One: a plot with one point."""
    page = page_of(write_result(tmp_path / "M001_dcn.rtdc", events))
    assert said in page.text
    assert len(page.of("div", "panel")) == len(page.of("li", "cell")) == events
    if not events:
        assert not [values for values in page.of("svg") if values.get("role") == "img"]


def test_values_that_are_none(tmp_path):
    """All NaN: the gallery is there, plots are not, and the page says why."""
    nothing = np.full(50, np.nan)
    columns = {name: nothing for name in columns_of(1) if name not in {"frame", "time"}}
    page = page_of(write_result(tmp_path / "M001_dcn.rtdc", 50, columns=columns), gallery=6)
    assert not page.of("div", "panel")
    assert "no event has a finite value" in page.text
    assert len(page.of("li", "cell")) == 6
    assert not page.of("a", "mark")
    assert "nan" not in page.text.lower()


def test_features_that_are_missing(tmp_path):
    """Without volume there is one plot less and a sentence more; the same for a plot that was asked for."""
    result = write_result(tmp_path / "M001_dcn.rtdc", columns={"volume": None})
    page = page_of(result, pairs=(("area_um", "volume"), ("area_um", "bright_avg")))
    assert "No distribution of volume: the result has no volume." in page.text
    assert "No plot of area and volume: the result has no volume." in page.text
    assert len(page.of("div", "panel")) == 2


def test_result_without_images(tmp_path):
    """All but the gallery is shown, and the page says what is missing."""
    page = page_of(write_result(tmp_path / "M001_dcn.rtdc", without=("image", "mask", "image_bg")))
    assert not page.of("li", "cell")
    assert not page.of("a", "mark")
    assert len(page.of("div", "panel")) == 1
    assert "What this report cannot show" in page.text
    assert re.search(r"[Ii]mages", page.text[page.text.index("What this report cannot show") :])


def test_result_without_masks(tmp_path):
    """Cells are shown without contours, and there is nothing to switch off."""
    page = page_of(write_result(tmp_path / "M001_dcn.rtdc", without=("mask",)), gallery=5)
    assert len(page.of("li", "cell")) == 5
    assert not page.of("path", "contour")
    assert "contours" not in page.ids()
    assert "without a contour" in page.text


def test_a_huge_gallery_stays_small(tmp_path):
    """500 cells: less than 1.5 MB."""
    result = write_result(tmp_path / "M001_dcn.rtdc", 700)
    page = page_of(result, gallery=500)
    assert len(page.of("li", "cell")) == 500
    assert result.with_suffix(".html").stat().st_size < 1_500_000
