"""Reports and their index in a real browser: light and dark, on a phone, on a desk and on paper."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import BROKEN, MEASUREMENTS
from tests.support.browser import DESK, PHONE, looking

GOOD, BAD, EMPTY, ONE, MOVED, ODD = MEASUREMENTS


def drawn(document):
    """Return all that is drawn on each page, with its colours; paper is white in each theme."""
    return [page.get_contents().get_data() for page in document.pages]


def test_report_looks_right(browser, results):
    """Nothing overlaps, is cut, empty or wider than the window, and nothing is asked from elsewhere.

    On paper, it has some pages of A4, none of them empty, with all that the screen shows.
    """
    with looking(browser, results.report(GOOD)) as sight:
        expect(sight.page.get_by_role("heading", level=1)).to_have_text("bone marrow")
        headings = sight.page.locator("h1, h2").all_inner_texts()
        light, dark = sight.look_everywhere("report")
    texts = [page.extract_text() for page in light.pages]
    assert 2 <= len(texts) <= 4
    assert all(len(text.split()) > 20 for text in texts)
    assert round(light.pages[0].mediabox.width) in range(590, 600)
    whole = " ".join(" ".join(texts).split())
    assert not [heading for heading in headings if heading not in whole]
    assert drawn(dark) == drawn(light)


def test_index_looks_right(browser, results):
    """Nothing overlaps, is cut, empty or wider than the window; on paper, it has every measurement."""
    with looking(browser, results.index) as sight:
        expect(sight.page.locator("tbody tr")).to_have_count(len(MEASUREMENTS) + 1)
        light, dark = sight.look_everywhere("index")
    texts = [page.extract_text() for page in light.pages]
    assert 1 <= len(texts) <= 3
    # The table begins right below its heading.
    assert "Looks good" in texts[0].partition("Verdict")[2]
    whole = "".join("".join(texts).split())
    assert not [name for name in (GOOD, BAD, EMPTY, "not_hdf5") if name not in whole]
    assert drawn(dark) == drawn(light)


@pytest.mark.parametrize(
    ("name", "looks"),
    [
        (BAD, [("dark", DESK), ("light", PHONE)]),
        (EMPTY, [("light", DESK), ("dark", PHONE)]),
        (ONE, [("light", PHONE)]),
        (MOVED, [("light", DESK)]),
        (ODD, [("dark", PHONE)]),
    ],
    ids=["bad", "empty", "one", "moved", "odd"],
)
def test_report_of_anything_looks_right(browser, results, request, name, looks):
    """Also with warnings, without events or images, and with a name that is made to break pages."""
    with looking(browser, results.report(name), *looks[0]) as sight:
        expect(sight.page.get_by_role("heading", level=1)).to_have_text(MEASUREMENTS[name].sample)
        for theme, width in looks:
            sight.look(f"report-{request.node.callspec.id}", theme, width)
        sight.check_access()


def test_reports_say_what_is_wrong(browser, results):
    """The light and its reasons are text, and what cannot be shown is named."""
    with looking(browser, results.report(BAD)) as sight:
        expect(sight.page.locator(".verdict.yellow .reasons").first).to_contain_text("flicker")
        sight.page.goto(results.report(EMPTY))
        expect(sight.page.locator(".verdict.red .reasons").first).to_contain_text("No events")
        expect(sight.page.get_by_role("heading", name="Why there are no events")).to_be_visible()
        expect(sight.page.locator(".frames img")).to_have_count(6)
        sight.page.goto(results.report(MOVED))
        expect(sight.page.locator(".missing")).to_contain_text("M005_moved.rtdc")
        expect(sight.page.locator(".gallery")).to_have_count(0)


def test_cells_and_points_lead_to_each_other(browser, results):
    """A click on an image marks its point, a click on a point its image; both stay on the page.

    Without that, the numbers are hidden, since they would hide the events.
    """
    with looking(browser, results.report(GOOD)) as sight:
        page = sight.page
        marks = page.locator(".marks:visible .mark")
        cells = page.locator(".gallery .cell")
        assert cells.count() == 24
        numbers = page.locator(".marks:visible .balloon")
        assert not any(number.is_visible() for number in numbers.all())
        cells.nth(3).hover()
        expect(numbers.nth(3)).to_be_visible()
        marks.nth(2).focus()
        expect(numbers.nth(2)).to_be_visible()
        before = (marks.nth(4).screenshot(), cells.nth(4).screenshot())
        cells.nth(4).get_by_role("link").click()
        assert page.url.endswith("#point-5")
        assert marks.nth(4).screenshot() != before[0]
        marks.nth(4).get_by_role("link").or_(marks.nth(4)).first.click()
        assert page.url.endswith("#cell-5")
        assert cells.nth(4).screenshot() != before[1]
        sight.check()


BARS_OUTSIDE = """() => Array.from(document.querySelectorAll(".ruler"), bar => {
    const inner = bar.getBoundingClientRect(), outer = bar.parentElement.querySelector("img").getBoundingClientRect();
    return outer.bottom - inner.bottom < 2 || inner.top < outer.top || inner.right > outer.right;
})"""


@pytest.mark.parametrize("name", [GOOD, ONE])
def test_scale_bars_lie_in_their_pictures(browser, results, name):
    """They do at each width of the window, and on paper, where a picture is lower than the words beside it."""
    with looking(browser, results.report(name)) as sight:
        for medium in ("screen", "print"):
            sight.page.emulate_media(media=medium)
            for width in (DESK, 1100, 700, PHONE):
                sight.page.set_viewport_size({"width": width, "height": 900})
                outside = sight.page.evaluate(BARS_OUTSIDE)
                assert outside, "there are bars"
                assert not any(outside), f"{medium}, {width} px"


def test_other_details_open_in_place(browser, results):
    """All that is folded fits when it is opened, on a phone, too."""
    with looking(browser, results.report(GOOD), width=PHONE) as sight:
        for summary in sight.page.locator("summary").all():
            summary.click()
        sight.look("report-open", "light", PHONE)
        sight.check_access()


def test_pages_are_complete_without_script(browser, results):
    """The index has all rows and links, without the box to find some; a report has no script and working switches."""
    with looking(browser, results.index, java_script_enabled=False) as sight:
        page = sight.page
        expect(page.locator("tbody tr:visible")).to_have_count(len(MEASUREMENTS) + 1)
        expect(page.get_by_role("searchbox")).to_be_hidden()
        page.locator("tbody a", has_text=GOOD).click()
        expect(page.get_by_role("heading", level=1)).to_have_text("bone marrow")
        contours = page.locator(".gallery .contour").first
        expect(contours).to_be_visible()
        page.get_by_label("Contours").uncheck()
        expect(contours).to_be_hidden()


def test_rows_lead_to_reports(browser, results):
    """Each measurement but the broken one, whose row has its reason; names are text, whatever is in them."""
    with looking(browser, results.index) as sight:
        page = sight.page
        broken = page.locator("tr").filter(has_text=BROKEN)
        expect(broken).to_contain_text("not_hdf5")
        expect(broken.locator("a, b")).to_have_count(0)
        links = page.locator("tbody a")
        assert links.count() == len(MEASUREMENTS)
        for number in range(len(MEASUREMENTS)):
            name = page.locator("tbody tr:has(a)").nth(number).locator("a").inner_text()
            links.nth(number).click()
            expect(page.locator(".verdict")).to_be_visible()
            expect(page.locator(".where")).to_contain_text(name.removesuffix(".rtdc"))
            page.go_back()
        # Further down, the head of the table lies upon the rows.
        page.evaluate("scrollTo({top: 0, behavior: 'instant'})")
        sight.check()


def test_rows_are_found_by_light_and_by_word(browser, results):
    """Only what was asked for remains, and how many is said."""
    with looking(browser, results.index) as sight:
        page = sight.page
        rows = page.locator("tbody tr:visible")
        page.locator("#light-red").check()
        expect(rows).not_to_have_count(len(MEASUREMENTS) + 1)
        for row in rows.all():
            expect(row.locator(".badge-red")).to_be_visible()
        page.get_by_role("radio").first.check()
        page.get_by_role("searchbox").fill("BONE")
        expect(rows).to_have_count(1)
        expect(rows).to_contain_text(GOOD)
        sight.check()
