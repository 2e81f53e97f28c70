"""The live page of a real daemon in a real browser when something goes wrong: it says what, and is calm afterwards."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from dcnumd.reasons import CATALOGUE
from tests.browser.conftest import config_in
from tests.support.browser import PHONE, Sight, looking
from tests.support.daemon import HANG_SECONDS, START_SECONDS, Daemon
from tests.support.faults import published
from tests.support.places import mounted, needs_mount
from tests.support.web import TOKEN, write_token

SECONDS = HANG_SECONDS


@pytest.fixture
def place(tmp_path):
    """Run a daemon whose page has buttons and whose disk for results is small; yield its folders and address."""
    watched = tmp_path / "acquisition"
    watched.mkdir()
    token = write_token(tmp_path / "token")
    with mounted(tmp_path / "results", megabytes=16) as results:
        extra = f"[output]\nfolder = '{results.folder}'\n[web]\nlisten = '127.0.0.1:0'\ntoken_file = '{token}'\n"
        config = config_in(tmp_path, watched, extra)
        config.write_text(config.read_text().replace("min_free_gb = 0.01", "min_free_gb = 0.0"))
        daemon = Daemon.start(config, "--set", "resources.nice=0", "--set", "report.enabled=false")
        try:
            address = daemon.wait_for("web.started", timeout=START_SECONDS)["address"]
            daemon.wait_for("daemon.ready", timeout=START_SECONDS)
            yield watched, results, f"http://{address}/"
            daemon.stop(timeout=60)
        finally:
            daemon.close()


@needs_mount
def test_page_tells_what_is_wrong_until_it_is_cured_or_acknowledged(browser, place):
    """A full disk is red, with cause and cure, and calm again by itself; a failure is yellow until the button."""
    watched, results, url = place
    with looking(browser, url) as sight:
        page = sight.page
        headline(page, "green", "Ready")
        ballast = results.fill()
        waiting = published(watched, "M001_data.rtdc")
        headline(page, "red", "No place for results")
        cause = CATALOGUE["no_space"]
        banner = page.locator("#part-banner")
        expect(banner).to_contain_text(f"{cause.what}, 1 measurement waits. {cause.cure}")
        expect(page.locator("#part-waiting li")).to_contain_text(waiting.name)
        expect(page).to_have_title("No place for results - dcnumd")
        look(sight, "live-full")
        ballast.unlink()
        headline(page, "green", "Ready")
        expect(page.locator("#part-done")).to_contain_text(waiting.name)

        (watched / "bad.rtdc").write_bytes(b"no measurement")
        headline(page, "yellow", "1 failure")
        cause = CATALOGUE["not_hdf5"]
        expect(banner).to_contain_text(f"bad.rtdc: {cause.what}. {cause.cure}")
        expect(banner.get_by_role("button")).to_have_count(0)
        page.locator("summary", has_text="Sign in").click()
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Sign in").click()
        acknowledge = page.get_by_role("button", name="Acknowledge")
        expect(acknowledge).to_be_visible()
        look(sight, "live-failure")
        acknowledge.click()
        headline(page, "green", "Ready")
        expect(page.locator("#part-failed")).to_contain_text("bad.rtdc")
        expect(page.get_by_role("button", name="Acknowledge")).to_have_count(0)
        sight.check()


def headline(page: Page, light: str, title: str) -> None:
    """Wait until the headline has a colour and a title, without a reload."""
    banner = page.locator(f"section.banner-{light}", has_text=title)
    expect(banner.get_by_role("heading", level=1)).to_have_text(title, timeout=1000 * SECONDS)


def look(sight: Sight, name: str) -> None:
    """Fail if the page is not laid out well, on a desk and on a phone."""
    width = sight.page.viewport_size["width"]
    sight.look(name, "light", width)
    sight.look(name, "dark", PHONE)
    sight.page.set_viewport_size({"width": width, "height": 900})
