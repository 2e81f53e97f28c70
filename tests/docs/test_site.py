"""The documents become a site: no warning, no dead link, nothing from elsewhere."""

from __future__ import annotations

import html
import html.parser
import os
import pathlib
import re
import subprocess
import sys
import urllib.parse

import pytest

from dcnumd.cli import COMMANDS
from tests.support.browser import PHONE, browser, window

__all__ = ["browser"]

TOP = pathlib.Path(__file__).parents[2]
LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "object": "data"}
SHARED = {"canonical", "prev", "next", "alternate"}
"""Kinds of links that a browser does not load."""

pytestmark = pytest.mark.skipif(
    not (TOP / "mkdocs.yml").exists(), reason="the documents are not part of an installation"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site; every warning is an error."""
    pytest.importorskip("material", reason="mkdocs-material is in the extra 'docs'")
    folder = tmp_path_factory.mktemp("docs") / "site"
    # It would otherwise advertise another program as a warning.
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", folder]
    done = subprocess.run(command, cwd=TOP, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return folder


class References(html.parser.HTMLParser):
    """What a page loads, and where it leads."""

    def __init__(self, path):
        super().__init__()
        self.loaded, self.links, self.names, self.pictures = [], [], set(), []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        """Collect one element's references."""
        given = dict(attrs)
        self.names.update(given[key] for key in ("id", "name") if given.get(key))
        if tag in LOADS and given.get(LOADS[tag]):
            self.loaded.append(given[LOADS[tag]])
        if tag == "link" and not SHARED & set(given.get("rel", "").split()):
            self.loaded.append(given["href"])
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if tag == "img":
            self.pictures.append((given.get("src"), given.get("alt")))


def pages(site):
    """Return the references of each page."""
    return {path: References(path) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}


def test_nothing_is_loaded_from_elsewhere(site):
    """Every script, style and picture is a file of the site, also those that styles name."""
    for path, page in pages(site).items():
        for reference in page.loaded:
            assert not urllib.parse.urlsplit(reference).netloc, f"{path.name} loads {reference}"
            if not reference.startswith("data:"):
                assert (path.parent / urllib.parse.urlsplit(reference).path).exists(), f"{path.name}: {reference}"
    for path in site.rglob("*.css"):
        for reference in re.findall(r"url\(['\"]?([^'\")]+)", path.read_text("utf-8")):
            assert not reference.startswith(("http:", "https:", "//")), f"{path.name} loads {reference}"


def test_links_lead_somewhere(site):
    """Each link within the site has its page and its heading there."""
    known = pages(site)
    for path, page in known.items():
        for link in page.links:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            assert target.exists(), f"{path.name}: {link}"
            if parts.fragment and target in known:
                fragment = urllib.parse.unquote(parts.fragment)
                assert fragment in known[target].names, f"{path.name}: {link}"


def test_all_guides_are_there_with_pictures_that_are_described(site):
    """One for each reader; and each picture says in words what it shows."""
    names = {str(path.relative_to(site)) for path in pages(site)}
    assert {"index.html", "operator.html", "operations.html", "scientist.html", "developer.html"} <= names
    for path, page in pages(site).items():
        for source, description in page.pictures:
            assert description, f"{path.name}: {source} has no description"
    assert len(References(site / "operator.html").pictures) >= 4


def test_it_has_a_logo_of_its_own(site):
    """Head and tab of each page show it; it is drawn in a few shapes."""
    start = References(site / "index.html")
    for name in ("logo.svg", "favicon.svg"):
        assert name in start.loaded
        assert len((site / name).read_bytes()) < 2000


SIDEWAYS = """() => {
  const found = [];
  const wide = document.documentElement.scrollWidth;
  if (wide > innerWidth) found.push(`the page is ${wide} px wide`);
  for (const e of document.querySelectorAll(".md-typeset__scrollwrap, .md-typeset__table, .md-content table"))
    if (e.scrollWidth > e.clientWidth + 1 || e.getBoundingClientRect().right > innerWidth + 1)
      found.push(`a table is ${e.scrollWidth} px wide: ${e.textContent.trim().slice(0, 40)}`);
  return found;
}"""


def test_no_page_scrolls_sideways_on_a_phone(site, browser):
    """Neither a page nor a table is wider than the window; cells below each other have the names of their columns."""
    with window(browser, width=PHONE) as context:
        page = context.new_page()
        for path in pages(site):
            page.goto(path.as_uri())
            assert page.evaluate(SIDEWAYS) == [], path.name
        page.goto((site / "reference" / "config.html").as_uri())
        row = page.locator("tr", has_text="watch.settle_seconds").locator("td")
        assert [row.nth(number).get_attribute("data-label") for number in range(4)] == [
            *("key", "default", "value", "meaning")
        ]
        assert "default" in page.evaluate("td => getComputedStyle(td, '::before').content", row.nth(1).element_handle())


def test_each_command_has_its_options(site):
    """The list of commands shows what `-h` shows."""
    text = html.unescape(re.sub(r"<[^>]+>", "", (site / "reference" / "commands.html").read_text("utf-8")))
    assert [name for name in COMMANDS if f"Usage: dcnumd {name} " not in text] == []
    assert "--recursive" in text
