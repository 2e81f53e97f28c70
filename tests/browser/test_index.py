"""An index in a real browser: light and dark, on a phone, on a desk and on paper."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import BROKEN, MEASUREMENTS
from tests.support.browser import THEMES, WIDTHS, looking, serious_faults

GOOD = next(iter(MEASUREMENTS))


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_index_looks_right(browser, results, theme, width):
    """Nothing overlaps, is cut, empty or wider than the window, and nothing is asked from elsewhere."""
    with looking(browser, results.index, theme, width) as sight:
        expect(sight.page.locator("tbody tr")).to_have_count(len(MEASUREMENTS) + 1)
        sight.keep(f"index-{theme}-{width}")
        sight.check()
        assert not serious_faults(sight.page)


def test_rows_lead_to_reports(browser, results):
    """Each measurement but the broken one, whatever it is called."""
    with looking(browser, results.index) as sight:
        page = sight.page
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


def test_failed_measurement_has_its_reason(browser, results):
    """Its name is text, whatever is in it."""
    with looking(browser, results.index) as sight:
        row = sight.page.locator("tr").filter(has_text=BROKEN)
        expect(row).to_contain_text("not_hdf5")
        expect(row.locator("a, b")).to_have_count(0)


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


def test_index_is_complete_without_script(browser, results):
    """All rows and links; the box to find some is not there, as it would do nothing."""
    with looking(browser, results.index, java_script_enabled=False) as sight:
        expect(sight.page.locator("tbody tr:visible")).to_have_count(len(MEASUREMENTS) + 1)
        expect(sight.page.get_by_role("searchbox")).to_be_hidden()
        sight.page.locator("tbody a", has_text=GOOD).click()
        expect(sight.page.get_by_role("heading", level=1)).to_have_text("bone marrow")


@pytest.mark.parametrize("theme", THEMES)
def test_index_is_printed(browser, results, theme):
    """On A4, with every measurement."""
    with looking(browser, results.index, theme) as sight:
        document = sight.print(f"index-{theme}")
    whole = "".join("".join(page.extract_text() for page in document.pages).split())
    assert 1 <= len(document.pages) <= 3
    # The table begins right below its heading.
    assert "Looks good" in document.pages[0].extract_text().partition("Verdict")[2]
    assert not [name for name in ("M001_data", "M002_data", "M003_data", "not_hdf5") if name not in whole]
