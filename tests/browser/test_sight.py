"""What the tests of pages look for is found in pages that have it."""

from __future__ import annotations

import re

import pytest

from tests.support.browser import Sight, serious_faults, window

AXES = '<svg width="200" height="120"><path d="M20 0V100H200" stroke="#667"/>{}<text x="90" y="118">area</text></svg>'


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ('<p style="width: 2000px">wide</p>', "the page is"),
        ('<p>first</p><p style="margin-top: -34px">second</p>', "text on text"),
        ('<section>a</section><section style="margin-top: -15px">b</section>', "box on box"),
        ('<p style="width: 40px; overflow: hidden; white-space: nowrap">much too long</p>', "cut"),
        ('<svg width="200" height="90"><text x="-9" y="50">events</text></svg>', "text beyond the edge"),
        ('<svg width="200" height="90"></svg><p style="margin-top: -60px">note</p>', "text on a picture"),
        (f'<div class="plot">{AXES.format("")}</div>', "empty: svg"),
        ('<img src="data:image/png;base64,AAAA" width="50" height="50" alt="">', "empty: img"),
        ("<script>console.error('no')</script>", "console: no"),
        ("<script>nothing.at.all</script>", "error of a script"),
        ("<script>alert(1)</script>", "dialog"),
        ('<img src="http://192.0.2.1/spy.png" alt="">', "request to another host"),
        ('<p style="color: #bbb">pale</p>', "serious color-contrast"),
        ('<img src="data:," alt="" width="9"><input>', "critical label"),
        (f'<div class="plot">{AXES.format("<circle cx=90 cy=50 r=3 fill=blue />")}</div>', None),
    ],
)
def test_faults_of_pages_are_found(browser, monkeypatch, tmp_path, body, fault):
    """Each on a page with this one fault, and none on a page without."""
    monkeypatch.setenv("DCNUMD_ARTEFACTS", str(tmp_path))
    with window(browser, width=400) as context:
        context.route(re.compile("^http://192"), lambda route: route.abort())
        sight = Sight(context.new_page(), "")
        sight.listen()
        sight.page.set_content(f'<!DOCTYPE html><html lang="en"><title>t</title><body><main><h1>t</h1>{body}</main>')
        found = []
        for check in (sight.check, lambda: sight.keep("page")):
            try:
                check()
            except AssertionError as error:
                found.append(str(error))
        found += serious_faults(sight.page)
    assert fault in "\n".join(found) if fault else not found
