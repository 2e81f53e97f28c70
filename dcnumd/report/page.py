"""The report as one self-contained page, without network, scripts or further files."""

from __future__ import annotations

import base64
import datetime as dt
import functools
import math
import pathlib
import urllib.parse
from collections.abc import Sequence

import jinja2
import numpy as np
from matplotlib.colors import to_hex

from dcnumd import __version__
from dcnumd.errors import printable
from dcnumd.report.figures import Check, FeatureFigures, Figures
from dcnumd.report.fluorescence import in_words
from dcnumd.report.gallery import BackgroundPictures, Gallery
from dcnumd.report.marks import RADIUS
from dcnumd.report.request import Light
from dcnumd.report.scale_bar import ScaleBar, scale_bar
from dcnumd.report.scatter import DENSITY_COLOURS
from dcnumd.report.views import Drawings
from dcnumd.report.wording import VERDICTS, count_of, percent
from dcnumd.words import UNKNOWN, duration_parts

TEMPLATES = pathlib.Path(__file__).parent / "templates"

STATE_COLOURS = {"ok": "green", "warning": "yellow", "alarm": "red", "unknown": "grey"}
STATE_WORDS = {"ok": "fine", "warning": "check", "alarm": "bad", "unknown": "unknown"}
SEVERITY = ("alarm", "warning", "unknown", "ok")
LIGHT_HEX = {"green": "#1a7f37", "yellow": "#ffd33d", "red": "#b3261e", "grey": "#5d6671"}
CELL_RULES = (
    (
        "#point-{0}:target~.panel .k{0},main:has(#cell-{0}:target) .mark.k{0}",
        "--number:visible;--disc:var(--accent);--digits:var(--card)",
    ),
    ("main:has(.cell.k{0}:hover) .mark.k{0},main:has(.cell.k{0} a:focus) .mark.k{0}", "--number:visible"),
    ("main:has(#point-{0}:target) .cell.k{0}", "outline:3px solid var(--accent)"),
)
"""Selectors and declarations for each cell: a link from a cell highlights its point, one from a point its cell, and a
cell under the pointer or in focus has its number in the plot."""
MANY_CELLS = 60
"""Number of cells above which only points are marked, because numbers would hide the plot."""

STAGES = {
    "begin": "preparation",
    "load": "reading",
    "segment": "segmentation",
    "extract": "features",
    "pack": "compression",
    "write": "writing",
    "commit": "collection of events",
}
"""Stages of the processing in words; others are shown as they are."""


def render(figures: Figures, drawings: Drawings, data_name: str = "") -> str:
    """Return the page.

    Parameters
    ----------
    figures
        The figures of the report.
    drawings
        The pictures of the report.
    data_name
        Name of the JSON file with the same figures, in the same folder; empty if there is none.
    """
    light_word, light_text = VERDICTS[figures.light]
    unknown = sum(check.state == "unknown" for check in figures.checks)
    if unknown and figures.light != "grey":
        light_text += f" {count_of(unknown, 'check')} could not be made, see below."
    gallery, background = drawings.gallery, drawings.background
    bar_of = functools.partial(scale_bar, pixel_size_um=figures.pixel_size_um)
    cell_bar = bar_of(gallery.tile[0]) if gallery else None
    return template().render(
        figures=figures,
        title=printable(figures.sample or figures.result),
        where=_where(figures),
        light_word=light_word,
        light_text=light_text,
        reasons=_reasons(figures),
        colours=STATE_COLOURS,
        words=STATE_WORDS,
        keys=_keys(figures),
        missing=(*figures.missing, *drawings.missing),
        warnings=[printable(text) for text in figures.processing.warnings],
        pairs=drawings.pairs,
        cells=drawings.cells,
        many=len(drawings.cells) > MANY_CELLS,
        mark_radius=RADIUS,
        gallery=gallery,
        sheet=data_uri(gallery.sheet, "jpeg") if gallery else "",
        scale_bar=bar_of,
        cell_bar=cell_bar,
        bar_pixels=round(cell_bar.share * gallery.tile[0], 1) if cell_bar and gallery else 0,
        gallery_note=_gallery_note(gallery, cell_bar, values=drawings.cells[0].marked) if gallery else "",
        histograms=drawings.histograms,
        courses=drawings.courses,
        background=_background(background) if background else None,
        search=drawings.search,
        data_uri=data_uri,
        features=[_feature_row(feature) for feature in figures.features] if figures.events else [],
        measurement=_measurement(figures),
        fluorescence=[(f"Channel {channel.number}", in_words(channel)) for channel in figures.fluorescence],
        processing=_processing(figures),
        gradient=",".join(to_hex(colour) for colour in DENSITY_COLOURS(np.linspace(0, 1, 7))),
        rules=_rules(drawings),
        style=_style(),
        icon=_icon(figures.light),
        version=__version__,
        made=_as_words(figures.made),
        data_link=data_name and "./" + urllib.parse.quote(data_name, errors="surrogateescape"),
    )


def number(value: float | None, digits: int = 4) -> str:
    """Return a number as text, with `digits` significant digits; a dash if it is not known."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1e9 or abs(value) < 1e-4:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def with_unit(label: str, unit: str) -> str:
    """Return the label of an axis; dimensionless features, whose unit is ``1``, have no unit in their labels."""
    return f"{label} [{unit}]" if unit not in {"", "1"} else label


def data_uri(image: bytes, kind: str = "png") -> str:
    """Return an image as a ``data:`` URI."""
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


@functools.cache
def template() -> jinja2.Template:
    """Return the template of the page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html.j2")


@functools.cache
def _style() -> str:
    return "".join((TEMPLATES / name).read_text("utf-8") for name in ("style.css", "report.css"))


def _rules(drawings: Drawings) -> str:
    """Return the style rules that depend on the numbers of plots and cells: the chosen plot, highlighted points."""
    rules = []
    for place in range(len(drawings.pairs)):
        chosen = f"#pick-{place}:checked~" if len(drawings.pairs) > 1 else ""
        rules.append(f"{chosen}#panel-{place}{{display:block}}")
        if chosen:
            lit = "background:var(--fg);color:var(--card);border-color:var(--fg)"
            rules.append(f"{chosen}.tabs #tab-{place}{{{lit}}}")
            rules.append(f"#pick-{place}:focus-visible~.tabs #tab-{place}{{outline:3px solid var(--accent)}}")
    marked = [cell.number for cell in drawings.cells if cell.marked]
    rules += [f"{','.join(rule.format(cell) for cell in marked)}{{{lit}}}" for rule, lit in CELL_RULES if marked]
    return "".join(rules)


def _icon(light: Light) -> str:
    """Return the page's icon, which shows the traffic light in the browser's tab."""
    drawing = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><circle cx="8" cy="8" r="7" '
        f'fill="{LIGHT_HEX[light]}"/></svg>'
    )
    return "data:image/svg+xml," + urllib.parse.quote(drawing)


def _where(figures: Figures) -> list[str]:
    """Return the parts of the line below the title."""
    parts = [_as_words(figures.recorded), figures.instrument, figures.result]
    return [printable(part) for part in parts if part]


def _as_words(moment: str) -> str:
    """Return a date and time in words; text that is neither is returned unchanged."""
    try:
        time = dt.datetime.fromisoformat(moment)
    except ValueError:
        return moment
    text = f"{time.day} {time:%B %Y}, {time:%H:%M:%S}"
    return f"{text} UTC" if time.tzinfo is not None and not time.utcoffset() else text


def _reasons(figures: Figures) -> list[Check]:
    """Return the checks that warn, the most severe first."""
    found = [check for check in figures.checks if check.state in {"alarm", "warning"}]
    return sorted(found, key=lambda check: SEVERITY.index(check.state))


def _keys(figures: Figures) -> list[tuple[str, str, str]]:
    """Return name, value and unit of each key figure."""
    headline = figures.headline
    recording = [
        ("Duration", *_duration(figures.duration_s)),
        ("Frames", number(figures.frames), ""),
    ]
    rows = [("Events", number(figures.events), "")]
    if not figures.events:
        if figures.online_events is not None:
            rows.append(("Online events", number(figures.online_events), ""))
        return _without_unknown([*rows, *recording])
    rows += [
        ("Event rate", number(figures.events_per_second, 3), "/s"),
        *recording,
        ("Events per frame", number(figures.yield_per_frame, 3), ""),
    ]
    if headline.max_area_ratio is not None and headline.share is not None:
        rows.append((f"Porosity ≤ {headline.max_area_ratio:g}", percent(headline.share).removesuffix(" %"), "%"))
    rows += [
        ("Median area", number(headline.area_um, 4), "µm²"),
        ("Median deformation", number(headline.deform, 3), ""),
    ]
    return _without_unknown(rows)


def _duration(seconds: float | None) -> tuple[str, str]:
    """Return the duration of a recording and its unit, also of one much shorter than a second."""
    return (number(seconds, 2), "s") if seconds is not None and 0 < seconds < 1 else duration_parts(seconds)


def _without_unknown(rows: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Return key figures, of which those that are not known have no unit."""
    return [(name, value, "" if value == UNKNOWN else unit) for name, value, unit in rows]


def _feature_row(feature: FeatureFigures) -> dict[str, object]:
    values = (feature.median, feature.mean, feature.sd, feature.mode, feature.minimum, feature.maximum)
    return {
        "label": feature.label,
        "unit": "" if feature.unit == "1" else feature.unit,
        "numbers": [*map(number, values), number(feature.count)],
    }


def _gallery_note(gallery: Gallery, bar: ScaleBar | None, *, values: bool) -> str:
    width, height = gallery.tile
    size = f"The bar is {bar.label} long" if bar else f"Each picture shows {width} by {height} pixels"
    parts = [f"{size}; all pictures have the same scale and the same contrast."]
    if values:
        parts.insert(0, "Below each cell: area in µm² and deformation.")
    if gallery.without_image:
        parts.append(f"{count_of(gallery.without_image, 'image')} could not be read.")
    if gallery.without_mask:
        parts.append(f"{count_of(gallery.without_mask, 'cell')} without a mask, hence without a contour.")
    return " ".join(parts)


def _background(pictures: BackgroundPictures) -> dict[str, object]:
    """Return the pictures of the background, with the notes below them."""
    if pictures.change:
        change = (
            f"The last background image minus the first: red is brighter, blue is darker; the darkest colours mean "
            f"{number(pictures.scale, 3)} grey levels. The largest change of a pixel is {number(pictures.largest, 3)} "
            "grey levels."
        )
    else:
        change = "The first and the last background image are equal; the brightness over time is shown above."
    return {
        "mean": data_uri(pictures.mean),
        "change": data_uri(pictures.change) if pictures.change else "",
        "width": pictures.width,
        "height": pictures.height,
        "mean_note": "Mean background of the measurement, with enhanced contrast. Lines and spots in it are dirt in "
        "the channel or on the camera.",
        "change_note": change,
    }


def _known(rows: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in rows if value and not value.startswith(UNKNOWN)]


def _measurement(figures: Figures) -> list[tuple[str, str]]:
    """Return the rows on the measurement, as the instrument described it."""
    size = figures.frame_size
    return _known(
        [
            ("Sample", figures.sample),
            ("Recorded", _as_words(figures.recorded)),
            ("Run index", number(figures.run_index)),
            ("Instrument", figures.instrument),
            ("Chip region", figures.chip_region),
            ("Channel width", f"{number(figures.channel_width_um)} µm"),
            ("Flow rate", f"{number(figures.flow_rate_ul_s)} µL/s"),
            ("Medium", figures.medium),
            ("Temperature", f"{number(figures.temperature_c)} °C"),
            ("Frame rate", f"{number(figures.frame_rate_hz)} Hz"),
            ("Frame size", f"{size[1]} by {size[0]} pixels" if size else ""),
            ("Pixel size", f"{number(figures.pixel_size_um)} µm"),
            ("Frames", number(figures.frames)),
            ("Online events", number(figures.online_events)),
            ("Duration", " ".join(_duration(figures.duration_s))),
        ]
    )


def _processing(figures: Figures) -> list[tuple[str, str]]:
    """Return the rows on the software and the speed of the processing."""
    processing = figures.processing
    return _known(
        [
            *((name[0].upper() + name[1:] if " " in name else name, text) for name, text in figures.software.items()),
            ("Processing time", f"{number(processing.seconds, 3)} s"),
            ("Processing speed", f"{number(processing.frames_per_second, 3)} frames/s"),
            ("Masks dropped", number(processing.masks_dropped)),
            *(
                (f"Time for {STAGES.get(name, name)}", f"{number(seconds, 3)} s")
                for name, seconds in processing.stage_seconds.items()
            ),
        ]
    )
