"""What the tests of pages look for is found in pages that have it."""

from __future__ import annotations

import contextlib
import re

import pytest

from tests.support.browser import Sight, window

AXES = '<svg width="200" height="120"><path d="M20 0V100H200" stroke="#667"/>{}<text x="90" y="118">area</text></svg>'
LOOKS = {"layout": Sight.check, "pictures": lambda sight: sight.keep("page"), "access": Sight.check_access}


@pytest.fixture(scope="module")
def context(browser):
    """Open a window in which there is no other host."""
    with window(browser, width=400) as opened:
        opened.route(re.compile("^http://192"), lambda route: route.abort())
        yield opened


@pytest.mark.parametrize(
    ("body", "fault", "look"),
    [
        ('<p style="width: 2000px">wide</p>', "the page is", "layout"),
        ('<p>first</p><p style="margin-top: -34px">second</p>', "text on text", "layout"),
        ('<section>a</section><section style="margin-top: -15px">b</section>', "box on box", "layout"),
        ('<p style="width: 40px; overflow: hidden; white-space: nowrap">much too long</p>', "cut", "layout"),
        ('<svg width="200" height="90"><text x="-9" y="50">events</text></svg>', "text beyond the edge", "layout"),
        ('<svg width="200" height="90"></svg><p style="margin-top: -60px">note</p>', "text on a picture", "layout"),
        (f'<div class="plot">{AXES.format("")}</div>', "empty: svg", "pictures"),
        ('<img src="data:image/png;base64,AAAA" width="50" height="50" alt="">', "empty: img", "pictures"),
        ("<script>console.error('no')</script>", "console: no", "layout"),
        ("<script>nothing.at.all</script>", "error of a script", "layout"),
        ("<script>alert(1)</script>", "dialog", "layout"),
        ('<img src="http://192.0.2.1/spy.png" alt="">', "request to another host", "layout"),
        ('<p style="color: #bbb">pale</p>', "serious color-contrast", "access"),
        ('<img src="data:," alt="" width="9"><input>', "critical label", "access"),
        (f'<div class="plot">{AXES.format("<circle cx=90 cy=50 r=3 fill=blue />")}</div>', None, None),
    ],
)
def test_faults_of_pages_are_found(context, monkeypatch, tmp_path, body, fault, look):
    """Each on a page with this one fault, and none on a page without."""
    monkeypatch.setenv("DCNUMD_ARTEFACTS", str(tmp_path))
    with contextlib.closing(context.new_page()) as page:
        sight = Sight(page, "")
        sight.listen()
        page.set_content(f'<!DOCTYPE html><html lang="en"><title>t</title><body><main><h1>t</h1>{body}</main>')
        if fault:
            with pytest.raises(AssertionError, match=fault):
                LOOKS[look](sight)
        else:
            for check in LOOKS.values():
                check(sight)
