"""The page in a real browser: it follows what happens, can be used by everybody, and asks no other computer."""

from __future__ import annotations

import dataclasses

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from dcnumd.status import Recording
from tests.support.browser import browser
from tests.support.web import TOKEN, busy, done, failed, png, running, snapshot

__all__ = ["browser"]


@pytest.fixture
def open_page(browser):
    """Return a function that opens a page; at the end, nothing may have gone wrong in it."""
    contexts, faults = [], []

    def open_(served, **options) -> Page:
        served.desk.picture = png()
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("request", lambda asked: faults.append(asked.url) if served.address not in asked.url else None)
        page.goto(f"http://{served.address}/")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not faults


def state(page, text):
    return expect(page.locator("#link")).to_have_text(text, timeout=20_000)


def test_page_follows_a_measurement_from_recording_to_report(serve, open_page):
    """Its name is text at each step, whatever is in it."""
    served = serve()
    page = open_page(served)
    state(page, "Live")
    expect(page.locator("h1")).to_have_text("Ready")

    name = "<img src=x onerror=alert(1)><b>.rtdc"
    path = f"/srv/acquisition/{name}"
    served.show(snapshot(recording=(Recording(path, 1_000_000, 2e6, 0.5),)))
    expect(page.locator("h1")).to_have_text("Recording")
    expect(page.locator("#part-now")).to_contain_text(name)
    served.show(snapshot(recording=(Recording(path, 3_000_000, 2e6, 1.5),)))
    expect(page.locator("#part-now")).to_contain_text("3.0 MB")

    for frames in (100, 900):
        served.show(snapshot(running=running(1, path=path, frames=1000, frames_done=frames)))
        expect(page.locator("progress")).to_have_js_property("value", frames)
    expect(page).to_have_title(f"90 % - {name} - dcnumd")
    expect(page.locator("#part-now .job strong")).to_have_text(name)

    served.show(snapshot(done=(done(1, name, sample=name),), counts={"done": 1}, plot_id=1))
    expect(page.locator("h1")).to_have_text("Ready")
    expect(page.locator("#part-done a")).to_have_attribute("href", "/measurements/1/")
    expect(page.locator("#part-plot img")).to_have_js_property("naturalWidth", 90)
    expect(page.locator("main img")).to_have_count(1)


def test_what_somebody_looks_at_stays_while_the_rest_changes(serve, open_page):
    """Open details, the focus and the order of rows survive updates."""
    served = serve(busy())
    page = open_page(served)
    state(page, "Live")
    page.locator("#part-failed").get_by_text("Details").first.click()
    page.locator("#part-done a").first.focus()
    older = served.desk.shown
    newer = dataclasses.replace(
        older,
        done=(done(110, "new.rtdc"), *older.done[:-1]),
        failed=(failed(111, "no_images", "no events/image"), *older.failed),
        running=None,
    )
    served.show(newer)
    expect(page.locator("#part-done li").first).to_contain_text("new.rtdc")
    expect(page.locator("#part-failed details[open]")).to_contain_text("chunk 12 of 40")
    assert page.evaluate("document.activeElement.textContent") == "M099_data.rtdc"
    names = page.locator("#part-done .what > :first-child").all_text_contents()
    assert names == [one.name for one in newer.done]
    assert page.locator("#part-failed li").count() == 3
    served.show(older)
    expect(page.locator("#part-failed li")).to_have_count(2)
    assert page.locator("#part-done .what > :first-child").all_text_contents() == [one.name for one in older.done]


def test_buttons(serve, open_page, token_file):
    served = serve(busy(), token_file=token_file)
    page = open_page(served)
    state(page, "Live")
    assert page.get_by_role("button", name="Pause").count() == 0
    page.get_by_text("Sign in").first.click()
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("h1")).to_have_text("Paused")
    expect(page.locator(".said")).to_contain_text("Paused")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("h1")).to_have_text("Processing")
    page.get_by_role("button", name="Retry M094_data.rtdc").click()
    expect(page.locator(".said")).to_contain_text("M094_data.rtdc: is processed again")
    assert served.desk.retried == [94]
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("button", name="Pause")).to_have_count(0)


def test_page_says_when_nobody_answers(serve, browser):
    served = serve(busy())
    page = browser.new_page()
    try:
        page.goto(f"http://{served.address}/")
        state(page, "Live")
        served.run(served.page.close())
        state(page, "No answer from dcnumd; what you see may be old")
    finally:
        page.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 1400)])
def test_page_can_be_used_by_everybody(serve, open_page, token_file, scheme, width):
    """No fault that axe knows, and nothing wider than the window, with what is shown in each state."""
    served = serve(busy(), token_file=token_file)
    page = open_page(served, color_scheme=scheme, viewport={"width": width, "height": 900}, reduced_motion="reduce")

    def check() -> None:
        found = Axe().run(page, options={"resultTypes": ["violations"], "preload": False})
        assert found.violations_count == 0, found.generate_report()
        for one in (390, 1400, width):
            page.set_viewport_size({"width": one, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") == one

    state(page, "Live")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.get_by_text("Sign in").first.click()
    page.get_by_label("Token").fill(TOKEN)
    check()
    for shown, heading in (
        (snapshot(), "Ready"),
        (snapshot(faults=("worker.failed",)), "Out of order"),
        (snapshot(paused=True), "Paused"),
    ):
        served.show(shown)
        expect(page.locator("h1")).to_have_text(heading)
        check()
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    check()
