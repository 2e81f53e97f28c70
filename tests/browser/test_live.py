"""The live page of a real daemon in a real browser, while measurements are recorded and processed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import BROKEN, MEASUREMENTS, config_in
from tests.support.browser import looking, window
from tests.support.daemon import HANG_SECONDS, START_SECONDS, Daemon
from tests.support.faults import draw_long, wait_until

SECONDS = HANG_SECONDS
GOOD, BAD, *_, ODD = MEASUREMENTS
MARKUP = ODD.partition(" 血")[0]

OBSERVE = """() => {
  const seen = window.seen = [];
  const look = () => {
    const text = (query) => document.querySelector(query)?.innerText ?? "";
    const bar = document.querySelector("#part-now progress");
    seen.push({recording: text("section[aria-labelledby=recording]"), running: text("section[aria-labelledby=running]"),
               waiting: text("section[aria-labelledby=waiting]"), done: text("section[aria-labelledby=done]"),
               progress: bar ? bar.value : null});
  };
  new MutationObserver(look).observe(document.querySelector("main"),
    {subtree: true, childList: true, characterData: true, attributes: true});
}"""
"""Notes all that the page shows from now on, so that nothing is missed that is shown for a moment only."""


OBSERVE_LIGHTS = """() => {
  const seen = window.seen = [];
  const look = () => {
    const rows = [...document.querySelectorAll("section[aria-labelledby=done] li")];
    seen.push(rows.map((row) => [row.innerText, row.querySelector(".badge") !== null]));
  };
  new MutationObserver(look).observe(document.querySelector("main"), {subtree: true, childList: true});
}"""
"""Notes from now on which results the page shows, and whether they have a traffic light."""


@dataclasses.dataclass
class Live:
    """A daemon with a live page."""

    daemon: Daemon
    folder: pathlib.Path
    url: str

    def publish(self, source: pathlib.Path, name: str = "") -> pathlib.Path:
        """Put a measurement into the watched folder as a careful instrument does."""
        target = self.folder / (name or source.name)
        hidden = self.folder / ".coming"
        hidden.write_bytes(source.read_bytes())
        return hidden.rename(target)


@contextlib.contextmanager
def running(place: pathlib.Path, nice: int) -> Iterator[Live]:
    """Run a daemon that serves its page."""
    folder = place / "acquisition"
    folder.mkdir()
    config = config_in(place, folder, "[web]\nlisten = '127.0.0.1:0'\n")
    daemon = Daemon.start(config, "--set", f"resources.nice={nice}")
    try:
        address = daemon.wait_for("web.started", timeout=START_SECONDS)["address"]
        daemon.wait_for("daemon.ready", timeout=START_SECONDS)
        yield Live(daemon, folder, f"http://{address}/")
        daemon.stop(timeout=60)
    finally:
        daemon.close()


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with running(tmp_path_factory.mktemp("live"), nice=0) as live:
        yield live


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """Return a measurement whose processing takes some seconds."""
    path = tmp_path_factory.mktemp("long") / "long.rtdc"
    draw_long(path)
    return path


@pytest.fixture(scope="module")
def record(live):
    """Return a function that lets an instrument record in real time, as a process of its own."""
    started = []

    def start(frames: int, rate: int) -> None:
        command = [sys.executable, "-m", "dcnumd", "simulate", live.folder, "--realtime", "--size", "48x120"]
        command += ["--frames", str(frames), "--rate", str(rate)]
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))

    yield start
    for process in started:
        process.kill()
        process.wait()


@contextlib.contextmanager
def stopped(daemon: Daemon):
    """Stop the process that does the work, so that the page shows in any case what is to be shown for a moment only."""
    worker = daemon.matching("worker.started", role="pipeline")[-1]["pid"]
    os.kill(worker, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(worker, signal.SIGCONT)


def part(page: Page, name: str):
    """Return a part of the page by its heading."""
    return page.locator(f"section[aria-labelledby={name}]")


def test_page_follows_a_measurement(browser, live, long, record):
    """It shows without a reload how a file grows, how it is processed and what came out, with the way to the report."""
    with window(browser, java_script_enabled=False) as plain, looking(browser, live.url) as sight:
        page, other = sight.page, plain.new_page()
        expect(page.locator("#link")).to_have_attribute("data-state", "live")
        other.goto(live.url)
        expect(part(other, "done")).not_to_contain_text("M001_data")
        page.evaluate(OBSERVE)
        record(4000, rate=500)
        with stopped(live.daemon):
            expect(part(page, "running")).to_contain_text("M001_data", timeout=1000 * SECONDS)
        row = part(page, "done").locator("li", has_text="M001_data")
        expect(row).to_be_visible(timeout=1000 * SECONDS)
        finished = live.daemon.wait_for("job.finished", timeout=SECONDS)
        expect(row.get_by_role("link")).to_be_visible(timeout=1000 * SECONDS)
        expect(row.locator(".figures")).to_contain_text(f"{finished['events']:,}")
        expect(row.locator(".badge")).to_be_visible()
        expect(part(page, "plot").get_by_role("img")).to_be_visible()
        with stopped(live.daemon):
            live.publish(long, "long.rtdc")
            expect(part(page, "running")).to_contain_text("long.rtdc", timeout=1000 * SECONDS)
        expect(part(page, "done").locator("li", has_text="long.rtdc")).to_be_visible(timeout=1000 * SECONDS)
        check_course(page.evaluate("window.seen"))
        # The page without JavaScript has come to the same by itself.
        expect(part(other, "done").get_by_role("link", name="M001_data")).to_be_visible(timeout=1000 * SECONDS)
        sight.check()
        row.get_by_role("link").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("simulated cells")
        expect(page.locator(".marks").first).to_be_visible()
        sight.check()
        page.go_back()
        expect(page.locator("#link")).to_have_attribute("data-state", "live")


def test_lights_come_while_others_wait(browser, tmp_path):
    """Of three measurements that wait, each result has its light on the page before the next one is there."""
    names = ["M0", "M1", "M2"]
    draw_long(tmp_path / "drawn.rtdc", frames=1000)
    # With any courtesy, processes may be in the idle class, in which lights would come last.
    with running(tmp_path, nice=5) as live, looking(browser, live.url) as sight:
        page = sight.page
        live.daemon.wait_for("worker.started", role="report", timeout=SECONDS)
        expect(page.locator("#link")).to_have_attribute("data-state", "live")
        page.evaluate(OBSERVE_LIGHTS)
        with stopped(live.daemon):
            for name in names:
                live.publish(tmp_path / "drawn.rtdc", f"{name}.rtdc")
            for name in names[1:]:
                expect(part(page, "waiting")).to_contain_text(name, timeout=1000 * SECONDS)
        expect(part(page, "done").locator(".badge")).to_have_count(len(names), timeout=1000 * SECONDS)
        expect(part(page, "plot").get_by_role("img")).to_be_visible()
        sight.check()
        seen = page.evaluate("window.seen")
    for rows in seen:
        # The last one comes first, and is the only one that may still lack its light.
        assert all(lit for _, lit in rows[1:]), seen
    assert [name for name in names if not any(name in text for text, _ in seen[-1])] == []


def check_course(seen) -> None:
    """Fail unless a page has shown a file that grew, then progress, then the result, in this order."""
    sizes = [one["recording"] for one in seen if "M001_data" in one["recording"] and "/s" in one["recording"]]
    steps = [one["progress"] for one in seen if "long.rtdc" in one["running"] and one["progress"] is not None]
    assert len(set(sizes)) > 1, sizes
    assert steps
    assert steps == sorted(steps)
    first = [
        next(number for number, one in enumerate(seen) if "M001_data" in one[name])
        for name in ("recording", "running", "done")
    ]
    assert first == sorted(first)


@pytest.fixture
def busy(live, results, long, record):
    """Let something be recorded, something wait and something be processed, and let it stay like that."""
    daemon = live.daemon
    paths = [live.publish(results.measurement(name)) for name in (BAD, ODD)]
    for path in paths:
        daemon.wait_for("report.written", path=str(path), timeout=SECONDS)
    broken = live.folder / f"{BROKEN}.rtdc"
    broken.write_bytes(b"no measurement")
    daemon.wait_for("job.failed", path=str(broken), timeout=SECONDS)
    running = live.publish(long, "running.rtdc")
    daemon.wait_for("job.started", path=str(running), timeout=SECONDS)
    wait_until(lambda: frames_done(live) > 0)
    with stopped(daemon):
        live.publish(results.measurement(GOOD), "M900_waits.rtdc")
        live.publish(results.measurement(GOOD), f"M901_{'waits_' * 30}.rtdc")
        record(900_000, rate=500)
        yield running.name


def frames_done(live: Live) -> int:
    """Return how many frames of the running measurement have been processed."""
    with urllib.request.urlopen(f"{live.url}api/v1/status") as answer:  # noqa: S310 -- our own server's
        running = json.load(answer)["running"]
    return running["frames_done"] if running else 0


def test_live_page_looks_right(browser, live, busy):
    """Nothing overlaps, is cut, empty or wider than the window; on paper, it has what is going on."""
    with looking(browser, live.url) as sight:
        page = sight.page
        expect(part(page, "recording").locator("li")).to_contain_text("/s", timeout=1000 * SECONDS)
        expect(part(page, "running")).to_contain_text(busy)
        expect(part(page, "waiting")).to_contain_text("M900_waits")
        expect(part(page, "failed")).to_contain_text(BROKEN)
        expect(part(page, "done").locator("li", has_text=MARKUP)).to_be_visible()
        printed = sight.look_everywhere("live")
    for document in printed:
        whole = "".join("".join(page.extract_text() for page in document.pages).split())
        assert 1 <= len(document.pages) <= 4
        assert not [text for text in ("Beingrecorded", "Beingprocessed", "M900_waits", BAD) if text not in whole]
