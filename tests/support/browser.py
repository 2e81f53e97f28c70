"""Checks pages in a real browser: faults while they load, and faults in their layout."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import pathlib
import shutil
import urllib.parse
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import PIL.Image
import pypdf
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Page,
    Playwright,
    Request,
    Response,
    sync_playwright,
)

Theme = Literal["light", "dark"]

PHONE, DESK = 390, 1400
"""Widths of the window [px]."""
HEIGHT = 900

FOLDER = pathlib.Path(__file__).parents[2]
FEW_COLOURS = 12
"""Number of colours that a picture has at least; an empty frame has fewer."""
COLOURFUL = 60
"""Difference of the largest and smallest of red, green and blue above which a pixel counts as data, and not as axes,
grid or text."""
INK = 5
"""Smallest number of pixels that the data of a plot cover, even a single point."""


def find_chromium() -> str | None:
    """Return the path of an installed Chromium or Chrome; None if there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for name in names if (path := shutil.which(name))), None)


def launch(playwright: Playwright, chromium: str) -> Browser:
    """Start the browser, for root without its sandbox, which is not available to root."""
    return playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"] if os.geteuid() == 0 else [])


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Yield a browser. Why not for the session: tests of other modules have event loops of their own."""
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("there is no Chromium on this computer (apt install chromium)")
    with sync_playwright() as playwright:
        started = launch(playwright, chromium)
        yield started
        started.close()


def artefact(name: str) -> pathlib.Path:
    """Return the path for a picture or file that is kept for inspection."""
    folder = pathlib.Path(os.environ.get("DCNUMD_ARTEFACTS") or FOLDER / "build" / "artefacts")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


@dataclasses.dataclass
class Sight:
    """A page in a window, and the faults that were observed while it was open."""

    page: Page
    origin: str
    faults: list[str] = dataclasses.field(default_factory=list)

    def listen(self) -> None:
        """Record faults from now on."""
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.faults.append(f"error of a script: {error}"))
        self.page.on("dialog", self._dismiss)
        self.page.on("request", self._follow)
        self.page.on("requestfailed", self._miss)
        self.page.on("response", self._answer)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.faults.append(f"console: {message.text}")

    def _dismiss(self, dialog: Dialog) -> None:
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _follow(self, request: Request) -> None:
        if not is_near(request.url, self.origin):
            self.faults.append(f"request to another host: {request.url}")

    def _miss(self, request: Request) -> None:
        # Requests that are still in progress are aborted when another page is opened.
        if request.failure != "net::ERR_ABORTED":
            self.faults.append(f"request failed: {request.url}: {request.failure}")

    def _answer(self, response: Response) -> None:
        if response.status >= 400:
            self.faults.append(f"answer {response.status}: {response.url}")

    def check(self) -> None:
        """Fail if faults were recorded, or if the present layout has faults."""
        found = [*self.faults, *self.page.evaluate(LOOK)]
        assert not found, "\n".join(found)

    def check_access(self) -> None:
        """Fail if axe-core finds serious or critical faults of accessibility."""
        results = Axe().run(self.page, options={"resultTypes": ["violations"], "preload": False})
        found = [
            f"{one['impact']} {one['id']}: {one['help']}: {node['target']} {node['failureSummary']}"
            for one in results.response["violations"]
            if one["impact"] in {"serious", "critical"}
            for node in one["nodes"]
        ]
        assert not found, "\n".join(found)

    def keep(self, name: str) -> None:
        """Save a screenshot of the whole page, and fail if one of the plots or pictures in it is empty."""
        # The browser may skip rendering what is outside of the window, so the window is made as high as the page.
        high = self.page.evaluate("document.documentElement.scrollHeight")
        self.page.set_viewport_size({"width": self.page.viewport_size["width"], "height": max(high, HEIGHT)})
        content = self.page.screenshot(path=artefact(f"{name}.png"), full_page=True)
        if self.page.locator(".marks").count():
            # The numbers cover the points, so without hiding them a missing point would not be noticed.
            content = self.page.screenshot(
                full_page=True, animations="disabled", style=".marks { opacity: 0 !important }"
            )
        picture = PIL.Image.open(io.BytesIO(content)).convert("RGB")
        found = empty_in(picture, self.page.evaluate(PICTURES))
        assert not found, "\n".join(found)

    def look(self, name: str, theme: Theme, width: int) -> None:
        """Fail if the page, shown in a theme at a width, has faults or empty pictures; keep a screenshot."""
        self.page.emulate_media(color_scheme=theme)
        self.page.set_viewport_size({"width": width, "height": HEIGHT})
        self.keep(f"{name}-{theme}-{width}")
        self.check()

    def look_everywhere(self, name: str) -> list[pypdf.PdfReader]:
        """Look at the page in each theme at each width; return what is printed in the themes.

        Axe looks at each theme and at each width, but as it takes longer than all else, not at each pair of them.
        """
        printed = []
        for theme, widths in (("light", (DESK, PHONE)), ("dark", (PHONE, DESK))):
            for width in widths:
                self.look(name, theme, width)
            self.check_access()
            printed.append(self.print(f"{name}-{theme}"))
        return printed

    def print(self, name: str) -> pypdf.PdfReader:
        """Print the page on A4, save the PDF, and return its reader."""
        content = self.page.pdf(path=artefact(f"{name}.pdf"), format="A4", print_background=True)
        return pypdf.PdfReader(io.BytesIO(content))


def is_near(url: str, origin: str) -> bool:
    """Return whether a URL needs no other host: it is inline, a local file, or of the page's own origin."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme in {"data", "blob", "about"}:
        return True
    if not origin:
        return parts.scheme == "file" and not parts.netloc
    return f"{parts.scheme}://{parts.netloc}" == origin


def window(browser: Browser, theme: Theme = "light", width: int = DESK, **options: Any) -> BrowserContext:
    """Open a window with a profile of its own, and without animations."""
    viewport = {"width": width, "height": HEIGHT}
    return browser.new_context(color_scheme=theme, viewport=viewport, reduced_motion="reduce", **options)


@contextlib.contextmanager
def looking(browser: Browser, url: str, theme: Theme = "light", width: int = DESK, **options: Any) -> Iterator[Sight]:
    """Yield a page whose faults are recorded from before it is loaded."""
    with window(browser, theme, width, **options) as context:
        parts = urllib.parse.urlsplit(url)
        sight = Sight(context.new_page(), "" if parts.scheme == "file" else f"{parts.scheme}://{parts.netloc}")
        sight.listen()
        sight.page.goto(url)
        yield sight


def empty_in(picture: PIL.Image.Image, places: list[dict[str, Any]]) -> list[str]:
    """Return a line for each plot or picture of a page that is empty.

    Parameters
    ----------
    picture
        Screenshot of the whole page.
    places
        Positions of the plots and pictures, see `PICTURES`.
    """
    found = []
    for place in places:
        left, top, width, height = (round(place[key]) for key in ("x", "y", "width", "height"))
        part = picture.crop((left, top, left + width, top + height))
        colours = len(part.getcolors(maxcolors=max(width * height, 1)))
        red, green, blue = np.moveaxis(np.asarray(part), 2, 0)
        most, least = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
        ink = int(np.sum(most - least > COLOURFUL))
        if not place["loaded"] or colours < FEW_COLOURS or (place["plot"] and ink < INK):
            size = f"{width} x {height} px"
            found.append(f"empty: {place['name']}, {size}, {colours} colours, {ink} px of data")
    return found


HELPERS = """
const name = (e) => {
  const own = [e.tagName.toLowerCase(), ...e.classList].join(".") + (e.id ? "#" + e.id : "");
  return `${own} in ${e.parentElement?.tagName.toLowerCase()} "${e.textContent.trim().slice(0, 30)}"`;
};
// for eyes: neither for screen readers only, nor of no size, nor transparent
const seen = (e) => {
  if (!e.checkVisibility({opacityProperty: true, visibilityProperty: true})) return false;
  for (let at = e; at && at !== document.body; at = at.parentElement) {
    const box = at.getBoundingClientRect();
    if (getComputedStyle(at).position === "absolute" && (box.width < 2 || box.height < 2)) return false;
  }
  return true;
};
const page = (box) => ({x: box.x + scrollX, y: box.y + scrollY, width: box.width, height: box.height});
const scrolled = (e) => e.parentElement?.closest(".scroll");
"""

PICTURES = (
    "() => {"
    + HELPERS
    + """
  return [...document.querySelectorAll("svg, img")]
    .filter((e) => !e.parentElement.closest("svg") && !e.matches(".marks") && seen(e))
    .map((e) => ({
      name: name(e), ...page(e.getBoundingClientRect()),
      loaded: e.tagName !== "IMG" || (e.complete && e.naturalWidth > 0),
      plot: e.matches(".plot svg, td.plot img, [src^='/plot']"),
    }))
    .filter((p) => p.width >= 24 && p.height >= 24 || !p.loaded);
}"""
)
"""Script that returns all plots and pictures above a minimum size, and their positions on the page [px]."""

LOOK = (
    "() => {"
    + HELPERS
    + """
  const found = [];
  const all = [...document.body.querySelectorAll("*")].filter(seen);
  if (document.documentElement.scrollWidth > innerWidth)
    found.push(`the page is ${document.documentElement.scrollWidth} px wide, the window ${innerWidth} px`);

  // every line of text, without the empty space above and below its letters
  const lines = [];
  for (const e of all) {
    for (const node of e.childNodes) {
      if (node.nodeType !== Node.TEXT_NODE || !node.data.trim() || e.closest("noscript, option")) continue;
      const range = document.createRange();
      range.selectNodeContents(node);
      for (const box of range.getClientRects()) {
        if (box.width < 1 || box.height < 1) continue;
        const air = box.height * 0.2;
        lines.push({e, text: node.data.trim().slice(0, 40), left: box.left, right: box.right,
                    top: box.top + air, bottom: box.bottom - air});
      }
    }
  }
  const meet = (a, b, by) =>
    Math.min(a.right, b.right) - Math.max(a.left, b.left) > by &&
    Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > by;
  // Marks in a plot lie where the data are, and close together if the data are.
  const free = lines.filter((line) => !line.e.closest(".marks")).sort((a, b) => a.top - b.top);
  free.forEach((a, i) => {
    for (let j = i + 1; j < free.length && free[j].top < a.bottom; j++)
      if (meet(a, free[j], 1)) found.push(`text on text: "${a.text}" and "${free[j].text}"`);
  });

  for (const line of lines) {
    const drawing = line.e.closest("svg");
    const around = drawing ? drawing.getBoundingClientRect() : {left: 0, right: innerWidth};
    if (!scrolled(line.e) && (line.left < around.left - 1 || line.right > around.right + 1))
      found.push(`text beyond the edge: "${line.text}"`);
    if (drawing && (line.top < around.top - 1 || line.bottom > around.bottom + 1))
      found.push(`text beyond the edge: "${line.text}"`);
  }
  for (const e of all) {
    const {overflowX, textOverflow} = getComputedStyle(e);
    if (e.closest("svg") || !["hidden", "clip"].includes(overflowX) || textOverflow === "ellipsis") continue;
    if (e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1) found.push(`cut: ${name(e)}`);
  }

  // boxes that lie beside or below each other, and pictures with text that is not theirs
  const kinds = "h1, h2, h3, section, figure, form, table, tr, td, th, li, dl > div, .card, .badge, button";
  const boxes = all.filter((e) => e.matches(kinds));
  const siblings = new Map();
  for (const e of boxes) siblings.set(e.parentElement, [...(siblings.get(e.parentElement) ?? []), e]);
  for (const group of siblings.values()) {
    const places = group.map((e) => ({e, box: e.getBoundingClientRect()}));
    places.forEach((a, i) => {
      for (const b of places.slice(i + 1))
        if (meet(a.box, b.box, 1)) found.push(`box on box: ${name(a.e)} and ${name(b.e)}`);
    });
  }
  for (const e of all.filter((e) => e.matches("img, svg:not(.marks)") && !e.parentElement.closest("svg"))) {
    const box = e.getBoundingClientRect();
    for (const line of free) {
      // A label that belongs to a picture may lie in it.
      if (line.e.closest("svg") === e || line.e.closest("a, li, .framed")?.contains(e)) continue;
      if (meet(box, line, 1)) found.push(`text on a picture: "${line.text}" on ${name(e)}`);
    }
  }
  return [...new Set(found)];
}"""
)
"""Script that returns the faults in the layout of a page, each as a sentence."""
