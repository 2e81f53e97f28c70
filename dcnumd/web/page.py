"""Renders the live page, as a whole and in parts for its updates."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jinja2
from markupsafe import Markup

from dcnumd.errors import printable
from dcnumd.report.conditions import names_of
from dcnumd.report.wording import cause_of, explained, warning_words
from dcnumd.status import Live, Snapshot, Totals
from dcnumd.web import words
from dcnumd.web.charts import Chart
from dcnumd.words import duration

HERE = pathlib.Path(__file__).parent
COMMON_STYLE = HERE.parent / "report" / "templates" / "style.css"
"""Style sheet that the live page shares with the reports and the index."""
LEAST_GREY_LEVELS = 4.0
"""Smallest range of the brightness in its chart [grey levels]; the noise of a steady light is smaller."""


class Page:
    """Renders the page and its parts.

    Parameters
    ----------
    writable
        Whether signed-in browsers may change something.
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
            folder_name=words.folder_name,
            left=words.time_left,
            number=words.number,
            printable=printable,
            short=words.short_number,
            size=words.size,
            warnings=warning_words,
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
            The values to show.
        trusted
            Whether the page has buttons.
        said
            Message about the button that was pressed last; empty for none.
        """
        parts = {name: Markup(html) for name, html in self.parts(snapshot, totals)[trusted].items()}  # noqa: S704
        text = self._whole.render(
            parts=parts,
            build=self._build,
            trusted=trusted,
            writable=self._writable,
            said=said,
            title=_title(snapshot, names_of(snapshot)),
        )
        return encoded(text)

    def refusal(self, title: str, text: str) -> bytes:
        """Return a small page that explains why a request was refused."""
        return encoded(self._refusal.render(title=title, text=text, build=self._build))

    def parts(self, snapshot: Snapshot, totals: Totals) -> Mapping[bool, Mapping[str, str]]:
        """Return the parts of the page by name, without buttons (key False) and, if writable, with them (True)."""
        kinds = (False, True) if self._writable else (False,)
        names = names_of(snapshot)
        values = {name: source(snapshot, totals, names) for name, source in _SOURCES.items()}
        return {
            trusted: {name: self._part(name, values[name], snapshot.time, trusted=trusted) for name in _SOURCES}
            for trusted in kinds
        }

    def _part(self, name: str, values: dict[str, Any], now: str, *, trusted: bool) -> str:
        """Return a part; it is rendered again only if its values have changed."""
        # The day is part of the key, because times of earlier days are shown with their date.
        key = (words.local_day(now), values)
        before, html = self._rendered.get((name, trusted), (None, ""))
        if key != before:
            html = self._parts[name].render(**values, now=now, trusted=trusted).strip()
            self._rendered[name, trusted] = key, html
        return html


Names = Mapping[str, str]
"""The name that the page shows for each path."""


def _banner(snapshot: Snapshot, _: Totals, names: Names) -> dict[str, Any]:
    return {
        "headline": words.headline(snapshot, names),
        "title": _title(snapshot, names),
        "paused": snapshot.paused,
        "news": snapshot.unacknowledged.latest is not None,
        "recording": len(snapshot.recording),
        "waiting": max(snapshot.queue, len(snapshot.waiting)),
        "counts": dict(snapshot.counts),
    }


def _now(snapshot: Snapshot, _: Totals, names: Names) -> dict[str, Any]:
    jobs = (snapshot.running, *snapshot.also_running) if snapshot.running else ()
    return {"jobs": jobs, "recording": snapshot.recording, "held": snapshot.held_for_recording, "names": names}


def _live(snapshot: Snapshot, _: Totals, names: Names) -> dict[str, Any]:
    shown = [(one, one.live) for one in snapshot.recording if one.live is not None]
    recordings = [one for one, _ in shown]
    return {"recordings": recordings, "charts": {one.id: _charts(live) for one, live in shown}, "names": names}


def _charts(live: Live) -> list[tuple[str, str, Chart]]:
    """Return title, unit and drawing of each chart of a recording."""
    rate = Chart.of(live.event_rate, from_zero=True, least=1.0)
    brightness = Chart.of(live.brightness, from_zero=False, least=LEAST_GREY_LEVELS)
    charts = (("Event rate", "events/s", rate), ("Brightness", "grey levels", brightness))
    return [(title, unit, chart) for title, unit, chart in charts if chart is not None]


def _waiting(snapshot: Snapshot, _: Totals, names: Names) -> dict[str, Any]:
    more = max(0, snapshot.queue - len(snapshot.waiting))
    return {"waiting": snapshot.waiting, "more": more, "names": names}


def _plot(snapshot: Snapshot, _: Totals, names: Names) -> dict[str, Any]:
    shown = [ended for ended in snapshot.done if ended.id == snapshot.plot_id]
    return {"plot_id": snapshot.plot_id, "ended": shown[0] if shown else None, "names": names}


def _done(snapshot: Snapshot, _: Totals, names: Names) -> dict[str, Any]:
    return {"done": snapshot.done, "all": snapshot.counts.get("done", 0), "names": names}


def _failed(snapshot: Snapshot, _: Totals, names: Names) -> dict[str, Any]:
    return {"failed": snapshot.failed, "all": snapshot.counts.get("failed", 0), "names": names}


def _about(snapshot: Snapshot, totals: Totals, _: Names) -> dict[str, Any]:
    return {
        "folders": snapshot.folders,
        "outputs": snapshot.outputs,
        "blocked": [blocked.folder for blocked in snapshot.blocked],
        "totals": totals,
        "version": snapshot.version,
        "pid": snapshot.pid,
        "started": snapshot.started,
    }


_SOURCES: dict[str, Callable[[Snapshot, Totals, Names], dict[str, Any]]] = {
    "banner": _banner,
    "live": _live,
    "now": _now,
    "waiting": _waiting,
    "plot": _plot,
    "done": _done,
    "failed": _failed,
    "about": _about,
}
"""Functions that select the values of each part of the page."""


def _title(snapshot: Snapshot, names: Names) -> str:
    """Return the title of the page, which the browser's tab shows."""
    running = snapshot.running
    state = words.headline(snapshot, names).title
    if running and running.frames and not running.held:
        return f"{100 * running.frames_done // running.frames} % - {names[running.path]} - dcnumd"
    return f"{state} - dcnumd"


def _static_files() -> dict[str, tuple[bytes, str]]:
    """Return content and type of the page's static files by name; requests read no other files."""
    style = COMMON_STYLE.read_bytes() + (HERE / "static" / "live.css").read_bytes()
    return {
        "live.css": (style, "text/css"),
        "live.js": ((HERE / "static" / "live.js").read_bytes(), "text/javascript"),
        "icon.svg": ((HERE / "static" / "icon.svg").read_bytes(), "image/svg+xml"),
    }


def encoded(text: str) -> bytes:
    """Return text as UTF-8, with escapes for file names that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace")
