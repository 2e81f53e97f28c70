"""Reports in a real browser: light and dark, on a phone, on a desk and on paper."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import MEASUREMENTS
from tests.support.browser import DESK, PHONE, THEMES, WIDTHS, looking, serious_faults

GOOD, BAD, EMPTY, ONE, MOVED, *NAMES = MEASUREMENTS


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_report_looks_right(browser, results, theme, width):
    """Nothing overlaps, is cut, empty or wider than the window, and nothing is asked from elsewhere."""
    with looking(browser, results.report(GOOD), theme, width) as sight:
        expect(sight.page.get_by_role("heading", level=1)).to_have_text("bone marrow")
        sight.keep(f"report-{theme}-{width}")
        sight.check()
        assert not serious_faults(sight.page)


@pytest.mark.parametrize(
    ("name", "theme", "width"),
    [
        (BAD, "dark", DESK),
        (BAD, "light", PHONE),
        (EMPTY, "light", DESK),
        (EMPTY, "dark", PHONE),
        (ONE, "light", PHONE),
        (MOVED, "light", DESK),
        (NAMES[0], "dark", PHONE),
        (NAMES[1], "light", PHONE),
        (NAMES[2], "light", PHONE),
    ],
    ids=["bad", "bad-phone", "empty", "empty-phone", "one", "moved", "markup-phone", "alphabets-phone", "long-phone"],
)
def test_report_of_anything_looks_right(browser, results, request, name, theme, width):
    """Also with warnings, without events or images, and with names that are made to break pages."""
    with looking(browser, results.report(name), theme, width) as sight:
        expect(sight.page.get_by_role("heading", level=1)).to_have_text(MEASUREMENTS[name].sample)
        sight.keep(f"report-{request.node.callspec.id}")
        sight.check()
        assert not serious_faults(sight.page)


def test_reports_say_what_is_wrong(browser, results):
    """The light and its reasons are text, and what cannot be shown is named."""
    with looking(browser, results.report(BAD)) as sight:
        expect(sight.page.locator(".verdict.yellow .reasons").first).to_contain_text("flicker")
    with looking(browser, results.report(EMPTY)) as sight:
        expect(sight.page.locator(".verdict.red .reasons").first).to_contain_text("No events")
        expect(sight.page.locator(".missing")).to_be_visible()
    with looking(browser, results.report(MOVED)) as sight:
        expect(sight.page.locator(".missing")).to_contain_text("M005_moved.rtdc")
        expect(sight.page.locator(".gallery")).to_have_count(0)


def test_cells_and_points_lead_to_each_other(browser, results):
    """A click on an image marks its point, a click on a point its image; both stay on the page."""
    with looking(browser, results.report(GOOD)) as sight:
        page = sight.page
        marks = page.locator(".marks:visible .mark")
        cells = page.locator(".gallery .cell")
        assert cells.count() == 24
        before = (marks.nth(4).screenshot(), cells.nth(4).screenshot())
        cells.nth(4).get_by_role("link").click()
        assert page.url.endswith("#point-5")
        assert marks.nth(4).screenshot() != before[0]
        marks.nth(4).get_by_role("link").or_(marks.nth(4)).first.click()
        assert page.url.endswith("#cell-5")
        assert cells.nth(4).screenshot() != before[1]
        sight.check()


def test_contours_are_put_away_without_script(browser, results):
    """The page has no script at all; its switches work with JavaScript off."""
    with looking(browser, results.report(GOOD), java_script_enabled=False) as sight:
        contours = sight.page.locator(".gallery .contour").first
        expect(contours).to_be_visible()
        sight.page.get_by_label("Contours").uncheck()
        expect(contours).to_be_hidden()


def test_other_details_open_in_place(browser, results):
    """All that is folded fits when it is opened, on a phone, too."""
    with looking(browser, results.report(GOOD), width=PHONE) as sight:
        for summary in sight.page.locator("summary").all():
            summary.click()
        sight.keep(f"report-open-{PHONE}")
        sight.check()
        assert not serious_faults(sight.page)


@pytest.mark.parametrize("theme", THEMES)
def test_report_is_printed(browser, results, theme):
    """Some pages of A4, none of them empty, with all that the screen shows."""
    with looking(browser, results.report(GOOD), theme) as sight:
        headings = sight.page.locator("h1, h2").all_inner_texts()
        document = sight.print(f"report-{theme}")
    texts = [page.extract_text() for page in document.pages]
    assert 2 <= len(texts) <= 4
    assert all(len(text.split()) > 20 for text in texts)
    assert round(document.pages[0].mediabox.width) in range(590, 600)
    whole = " ".join(" ".join(texts).split())
    assert not [heading for heading in headings if heading not in whole]
