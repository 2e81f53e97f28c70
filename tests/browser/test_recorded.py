"""The live page of a real daemon in a real browser, while a measurement is recorded in SWMR mode."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import pickle
import subprocess
import sys

import pytest
from playwright.sync_api import expect

from dcnumd.report.calls import summarize_live
from dcnumd.status import Course
from tests.browser.conftest import config_in
from tests.report.test_live import REQUEST, steady
from tests.support.browser import DESK, PHONE, looking
from tests.support.daemon import HANG_SECONDS, START_SECONDS, Daemon
from tests.support.web import Served, busy, recorded
from tests.web.test_recorded import CLOGGING

pytestmark = pytest.mark.timeout(900)

LIVE = "[live]\nenabled = true\n[web]\nlisten = '127.0.0.1:0'\n"
FRAMES = 24_000

OBSERVE = """() => {
  const seen = window.seen = [];
  const image = () => document.querySelector("#part-live img");
  const look = () => {
    const events = document.querySelector("#part-live .tiles dd");
    const shown = image();
    seen.push({events: events ? Number(events.innerText.replaceAll(",", "")) : null,
               plot: shown ? shown.getAttribute("src") : null,
               width: shown ? shown.naturalWidth : 0});
  };
  new MutationObserver(look).observe(document.querySelector("main"),
    {subtree: true, childList: true, characterData: true, attributes: true});
}"""
"""Notes from now on the number of events, and which plot is shown."""


@contextlib.contextmanager
def daemon_in(place):
    """Run a daemon that reads recordings; yield it, its folder and the address of its page."""
    folder = place / "acquisition"
    folder.mkdir()
    daemon = Daemon.start(config_in(place, folder, LIVE), "--set", "resources.nice=0")
    try:
        address = daemon.wait_for("web.started", timeout=START_SECONDS)["address"]
        # The process that draws starts last, and prepares its fonts once.
        daemon.wait_for("worker.started", role="report", timeout=START_SECONDS)
        yield daemon, folder, f"http://{address}/"
        daemon.stop(timeout=60)
    finally:
        daemon.close()


def test_plot_grows_while_a_measurement_is_recorded(browser, tmp_path):
    """Without a reload: ever more events, a new plot again and again, and in the end the report."""
    with daemon_in(tmp_path) as (daemon, folder, url), looking(browser, url) as sight:
        page = sight.page
        expect(page.locator("#link")).to_have_attribute("data-state", "live")
        page.evaluate(OBSERVE)
        command = [sys.executable, "-m", "dcnumd", "simulate", folder, "--swmr", "--flush", "0.5"]
        command += ["--size", "48x120", "--frames", str(FRAMES), "--rate", "1000", "--density", "0.8"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as instrument:
            live = page.locator("#part-live section")
            expect(live).to_contain_text("M001_data.rtdc", timeout=1000 * HANG_SECONDS)
            expect(live.get_by_role("img", name="Deformation against area")).to_be_visible(timeout=1000 * HANG_SECONDS)
            expect(live.get_by_role("img", name="Event rate over time")).to_be_visible(timeout=1000 * HANG_SECONDS)
            expect(page.locator("h1")).to_have_text("Recording", timeout=1000 * HANG_SECONDS)
            sight.check_access()
            assert instrument.wait(HANG_SECONDS) == 0
        row = page.locator("section[aria-labelledby=done] li", has_text="M001_data")
        expect(row.get_by_role("link")).to_be_visible(timeout=1000 * HANG_SECONDS)
        expect(live).to_have_count(0, timeout=1000 * HANG_SECONDS)
        seen = page.evaluate("window.seen")
        finished = daemon.wait_for("live.finished", timeout=HANG_SECONDS)
        assert finished["frames"] == FRAMES
        row.get_by_role("link").click()
        expect(page.locator("h1")).to_be_visible()
        sight.check()
    events = [one["events"] for one in seen if one["events"] is not None]
    # Frames that are processed again may have some events fewer.
    assert all(later > 0.95 * earlier for earlier, later in itertools.pairwise(events))
    assert len(set(events)) > 3
    plots = list(dict.fromkeys(one["plot"] for one in seen if one["plot"] is not None))
    assert len(plots) > 3
    # Once a plot is there, the next one takes its place without a gap.
    widths = [one["width"] for one in seen if one["plot"] is not None]
    assert set(widths[widths.index(900) :]) == {900}


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_recording_is_shown_well_everywhere(browser, theme, width):
    """With all that may be there: warnings, both charts with gaps, and sentences about what is left for later."""
    found = summarize_live(pickle.dumps(steady()), REQUEST)
    gaps = Course((0.5, 1.5, 5.5, 6.5), (120.0, 121.0, 119.0, 125.0))
    shown = recorded(light="red", checks=(CLOGGING,), lagging=True, spool_full=True, brightness=gaps)
    others = (dataclasses.replace(recorded(201, "M201_data.rtdc"), live=None, not_live="live_mode"),)
    with Served(shown=dataclasses.replace(busy(), recording=(shown, *others))) as served:
        served.desk.picture = served.desk.live_pictures[200] = found.plot
        with looking(browser, f"http://{served.address}/", theme, width) as sight:
            expect(sight.page.locator("#link")).to_have_attribute("data-state", "live")
            sight.look(f"recorded-{theme}-{width}", theme, width)
            sight.check_access()
