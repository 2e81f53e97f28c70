"""The page: rendered here alone, for the first view as for each update."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jinja2
from markupsafe import Markup

from dcnumd.errors import printable
from dcnumd.report.wording import cause_of, explained
from dcnumd.status import Snapshot, Totals
from dcnumd.web import words
from dcnumd.words import duration

HERE = pathlib.Path(__file__).parent
COMMON_STYLE = HERE.parent / "report" / "templates" / "style.css"
"""The look that the reports and the index have, too."""


class Page:
    """Renders the page and its parts.

    Parameters
    ----------
    writable
        Whether anybody may change something.
    """

    def __init__(self, *, writable: bool) -> None:
        self._writable = writable
        self.files = _static_files()
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "templates"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        environment.globals.update(LIGHTS=words.LIGHTS, STAGES=words.STAGES, cause_of=cause_of)
        environment.filters.update(
            clock=words.clock,
            duration=duration,
            explained=explained,
            file_name=words.file_name,
            folder_name=words.folder_name,
            left=words.time_left,
            number=words.number,
            printable=printable,
            size=words.size,
            warnings=words.warning_words,
        )
        self._whole = environment.get_template("page.html.j2")
        self._refusal = environment.get_template("refusal.html.j2")
        self._parts = {name: environment.get_template(f"{name}.html.j2") for name in _SOURCES}
        self._build = hashlib.sha256(b"".join(content for content, _ in self.files.values())).hexdigest()[:12]
        self._rendered: dict[tuple[str, bool], tuple[object, str]] = {}

    def whole(self, snapshot: Snapshot, totals: Totals, *, trusted: bool, said: str = "") -> bytes:
        """Return the page.

        Parameters
        ----------
        snapshot, totals
            What it shows.
        trusted
            Whether it has buttons.
        said
            What came of the last one that was pressed.
        """
        parts = {name: Markup(html) for name, html in self.parts(snapshot, totals)[trusted].items()}  # noqa: S704
        text = self._whole.render(
            parts=parts,
            build=self._build,
            trusted=trusted,
            writable=self._writable,
            said=said,
            title=_title(snapshot),
        )
        return encoded(text)

    def refusal(self, title: str, text: str) -> bytes:
        """Return a small page that says why something was not done."""
        return encoded(self._refusal.render(title=title, text=text, build=self._build))

    def parts(self, snapshot: Snapshot, totals: Totals) -> Mapping[bool, Mapping[str, str]]:
        """Return the parts of the page by their names, without and with buttons."""
        kinds = (False, True) if self._writable else (False,)
        return {
            trusted: {name: self._part(name, snapshot, totals, trusted=trusted) for name in _SOURCES}
            for trusted in kinds
        }

    def _part(self, name: str, snapshot: Snapshot, totals: Totals, *, trusted: bool) -> str:
        """Render a part if what it shows has changed."""
        values = _SOURCES[name](snapshot, totals)
        # Times of day are shown with the day from the next day on.
        key = (words.local_day(snapshot.time), values)
        before, html = self._rendered.get((name, trusted), (None, ""))
        if key != before:
            html = self._parts[name].render(**values, now=snapshot.time, trusted=trusted).strip()
            self._rendered[name, trusted] = key, html
        return html


def _banner(snapshot: Snapshot, _: Totals) -> dict[str, Any]:
    return {
        "headline": words.headline(snapshot),
        "title": _title(snapshot),
        "paused": snapshot.paused,
        "recording": len(snapshot.recording),
        "waiting": max(snapshot.queue, len(snapshot.waiting)),
        "counts": dict(snapshot.counts),
    }


def _now(snapshot: Snapshot, _: Totals) -> dict[str, Any]:
    jobs = (snapshot.running, *snapshot.also_running) if snapshot.running else ()
    return {"jobs": jobs, "recording": snapshot.recording, "held": snapshot.held_for_recording}


def _waiting(snapshot: Snapshot, _: Totals) -> dict[str, Any]:
    return {"waiting": snapshot.waiting, "more": max(0, snapshot.queue - len(snapshot.waiting))}


def _plot(snapshot: Snapshot, _: Totals) -> dict[str, Any]:
    shown = [ended for ended in snapshot.done if ended.id == snapshot.plot_id]
    return {"plot_id": snapshot.plot_id, "ended": shown[0] if shown else None}


def _done(snapshot: Snapshot, _: Totals) -> dict[str, Any]:
    return {"done": snapshot.done, "all": snapshot.counts.get("done", 0)}


def _failed(snapshot: Snapshot, _: Totals) -> dict[str, Any]:
    return {"failed": snapshot.failed, "all": snapshot.counts.get("failed", 0)}


def _about(snapshot: Snapshot, totals: Totals) -> dict[str, Any]:
    return {
        "folders": snapshot.folders,
        "outputs": snapshot.outputs,
        "blocked": [blocked.folder for blocked in snapshot.blocked],
        "totals": totals,
        "version": snapshot.version,
        "pid": snapshot.pid,
        "started": snapshot.started,
    }


_SOURCES: dict[str, Callable[[Snapshot, Totals], dict[str, Any]]] = {
    "banner": _banner,
    "now": _now,
    "waiting": _waiting,
    "plot": _plot,
    "done": _done,
    "failed": _failed,
    "about": _about,
}
"""What each part of the page depends on."""


def _title(snapshot: Snapshot) -> str:
    """Return what the browser's tab says."""
    running = snapshot.running
    state = words.headline(snapshot).title
    if running and running.frames and not running.held:
        return f"{100 * running.frames_done // running.frames} % - {words.file_name(running.path)} - dcnumd"
    return f"{state} - dcnumd"


def _static_files() -> dict[str, tuple[bytes, str]]:
    """Return the files that belong to the page, with their types; nothing else is ever read for a request."""
    style = COMMON_STYLE.read_bytes() + (HERE / "static" / "live.css").read_bytes()
    return {
        "live.css": (style, "text/css"),
        "live.js": ((HERE / "static" / "live.js").read_bytes(), "text/javascript"),
        "icon.svg": ((HERE / "static" / "icon.svg").read_bytes(), "image/svg+xml"),
    }


def encoded(text: str) -> bytes:
    """Return text as UTF-8; names of files that are not stay readable."""
    return text.encode("utf-8", "backslashreplace")
