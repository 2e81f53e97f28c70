"""Takes the pictures of the documents anew: ``python -m docs.pictures``, with Chromium installed.

A daemon processes simulated measurements, and a browser looks at what comes of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import io
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import PIL.Image
from playwright.sync_api import Browser, Page, sync_playwright

from dcnumd.simulate.measurement import write_measurement
from dcnumd.simulate.spec import MeasurementSpec
from tests.support.browser import DESK, PHONE, find_chromium, launch, window
from tests.support.daemon import START_SECONDS, Daemon

FOLDER = pathlib.Path(__file__).parent
SECONDS = 300.0
PLACE = pathlib.Path(tempfile.gettempdir()) / "dcnumd"
"""Where the measurements lie, as some pictures show; it must not be there yet."""

WHOLE = MeasurementSpec(frames=12_000, density=0.8)
MEASUREMENTS = {
    "M001_data": dataclasses.replace(WHOLE, seed=1, run_index=1, sample="bone marrow, donor 12"),
    "M002_data": dataclasses.replace(
        WHOLE, seed=2, run_index=2, frames=6000, flicker=4.0, sample="bone marrow, donor 13"
    ),
    "M003_data": dataclasses.replace(WHOLE, seed=3, run_index=3, frames=3000, density=0.01, sample="buffer only"),
    "M004_data": dataclasses.replace(WHOLE, seed=4, run_index=4, frames=9000, sample="bone marrow, donor 14"),
    "M005_data": dataclasses.replace(WHOLE, seed=5, run_index=5, sample="HL60, control"),
}
RUNNING = dataclasses.replace(WHOLE, seed=6, run_index=6, frames=30_000, sample="HL60, cytochalasin D")


def main() -> None:
    """Take all pictures."""
    chromium = find_chromium()
    if chromium is None:
        sys.exit("docs.pictures: there is no Chromium on this computer (apt install chromium)")
    with workplace() as place, sync_playwright() as playwright:
        browser = launch(playwright, chromium)
        with daemon_over(place) as (daemon, url):
            folder = place / "acquisition"
            for number, (measurement, spec) in enumerate(MEASUREMENTS.items()):
                started = spec.started + number * dt.timedelta(minutes=7)
                write_measurement(folder / f"{measurement}.rtdc", dataclasses.replace(spec, started=started))
                daemon.wait_for("report.written", timeout=SECONDS, path=str(folder / f"{measurement}.rtdc"))
            (folder / "M006_data.rtdc").write_bytes(b"\x89HDF\r\n\x1a\nand then the power failed")
            daemon.wait_for("job.failed", timeout=SECONDS)
            take_live(browser, url, folder)
            take_pages(browser, folder)
        browser.close()
    with workplace() as place, sync_playwright() as playwright:
        browser = launch(playwright, chromium)
        with daemon_over(place, "[live]\nenabled = true\n") as (daemon, url):
            daemon.wait_for("worker.started", timeout=START_SECONDS, role="report")
            take_recorded(browser, url, place / "acquisition")
        browser.close()


@contextlib.contextmanager
def workplace() -> Iterator[pathlib.Path]:
    """Make a folder to work in, always of the same name, and remove it at the end."""
    try:
        PLACE.mkdir(mode=0o700)
    except FileExistsError:
        sys.exit(f"docs.pictures: {PLACE} is there already; move it away")
    try:
        yield PLACE
    finally:
        shutil.rmtree(PLACE)


@contextlib.contextmanager
def daemon_over(place: pathlib.Path, extra: str = "") -> Iterator[tuple[Daemon, str]]:
    """Run a daemon that watches a folder; yields it and the address of its page.

    Parameters
    ----------
    place
        Where to put the folder and the state.
    extra
        Further sections of the config.
    """
    (place / "acquisition").mkdir()
    config = place / "config.toml"
    config.write_text(
        f"[watch]\nfolders = [{json.dumps(str(place / 'acquisition'))}]\nsettle_seconds = 0.5\n"
        f"[state]\nfolder = {json.dumps(str(place / 'state'))}\n"
        f"[resources]\nnice = 0\nnum_workers = 1\nmin_free_gb = 0.1\n[web]\nlisten = '127.0.0.1:0'\n{extra}"
    )
    daemon = Daemon.start(config)
    try:
        address = daemon.wait_for("web.started", timeout=START_SECONDS)["address"]
        yield daemon, f"http://{address}/"
    finally:
        daemon.close()


def take_live(browser: Browser, url: str, folder: pathlib.Path) -> None:
    """Take the live page while one measurement is recorded, one is processed and one waits."""
    for name, spec in (("M007_data", RUNNING), ("M008_data", dataclasses.replace(RUNNING, frames=2000, seed=7))):
        write_measurement(folder / f"{name}.rtdc", spec)
    command = [sys.executable, "-m", "dcnumd", "simulate", folder, "--realtime", "--frames", "100000", "--rate", "500"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as recorder, window(browser) as context:
        try:
            page = context.new_page()
            page.goto(url)
            page.locator("section[aria-labelledby=recording] li").get_by_text("/s").wait_for(timeout=1000 * SECONDS)
            half = "(bar => bar && bar.value > 0.3 * bar.max)(document.querySelector('#part-now progress'))"
            page.wait_for_function(half, timeout=1000 * SECONDS)
            save(page, "live", 1000)
            page.set_viewport_size({"width": PHONE, "height": 844})
            save(page, "live-phone", 844)
        finally:
            recorder.kill()


def take_recorded(browser: Browser, url: str, folder: pathlib.Path) -> None:
    """Take the live page while a measurement is processed as it is recorded, after its cells have become rare."""
    command = [sys.executable, "-m", "dcnumd", "simulate", folder, "--swmr", "--flush", "0.5", "--frames", "40000"]
    command += ["--rate", "500", "--size", "80x320", "--density", "0.8", "--clog-at", "0.6"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as recorder, window(browser) as context:
        try:
            page = context.new_page()
            page.goto(url)
            page.get_by_text("Clogging since").wait_for(timeout=1000 * SECONDS)
            save(page, "live-recorded", 750)
        finally:
            recorder.kill()


def take_pages(browser: Browser, folder: pathlib.Path) -> None:
    """Take the index, a report, and cells of the latter."""
    with window(browser) as context:
        page = context.new_page()
        page.goto((folder / "index.html").as_uri())
        save(page, "index", 760)
        page.goto((folder / "M001_data_dcn.html").as_uri())
        save(page, "report", 1000)
        shrink(page.locator(".cells").screenshot(), "gallery")
    for name, theme, width, height in (("report-dark", "dark", DESK, 1000), ("report-phone", "light", PHONE, 844)):
        with window(browser, theme, width) as context:
            page = context.new_page()
            page.goto((folder / "M001_data_dcn.html").as_uri())
            save(page, name, height)


def save(page: Page, name: str, height: int) -> None:
    """Keep the upper part of a page; less if the page is shorter."""
    shrink(page.screenshot(full_page=True, animations="disabled"), name, height)


def shrink(content: bytes, name: str, height: int | None = None) -> None:
    """Write a picture, or its upper part, as small as that goes."""
    picture = PIL.Image.open(io.BytesIO(content)).convert("RGB")
    part = picture.crop((0, 0, picture.width, min(picture.height, height or picture.height)))
    part.save(FOLDER / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
