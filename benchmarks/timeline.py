"""Draws who does what and when while a measurement is processed: a lane for each process, as SVG."""

from __future__ import annotations

import dataclasses
import html
import pathlib

from benchmarks.bench import Bench, tell
from benchmarks.cases import STANDARD
from dcnumd.logic.job import Job
from dcnumd.logic.process import process_measurement

COLOURS = {
    "background": "#7b61a8",
    "load": "#2f7fc1",
    "segment": "#e0a100",
    "extract": "#d9534f",
    "pack": "#3c9d5f",
    "write": "#5b6770",
    "finish": "#9aa5b1",
}
OTHER_COLOUR = "#c2c8ce"
INK, FAINT, IDLE = "#1f2933", "#7b8794", "#eef1f4"
FONT = "font-family='Helvetica, Arial, sans-serif' font-size='12'"

WIDTH, LEFT, RIGHT, TOP = 1100, 90, 70, 64
LANE, GAP = 30, 12
TICKS = 10

PARENT = -1


@dataclasses.dataclass(frozen=True, slots=True)
class Span:
    """What one process did, between two moments of one clock [s]."""

    worker: int
    """-1 is the pipeline process."""
    stage: str
    start: float
    stop: float


def write_timeline(path: pathlib.Path, bench: Bench) -> None:
    """Process the standard measurement twice in this process, and draw the second time."""
    measurement = bench.path(STANDARD)
    spans: list[Span] = []

    def note(worker: int, stage: str, start: float, stop: float) -> None:
        spans.append(Span(worker, stage, start, stop))

    for name in ("warm", "drawn"):
        spans.clear()
        output = bench.new_folder("timeline") / f"{name}_dcn.rtdc"
        job = Job(path_in=measurement, path_out=output, basin_strategy="drain", num_workers=bench.workers)
        result = process_measurement(job, on_span=note)
    frames = f"{result.frames:,} frames, {result.events:,} events"
    path.write_text(draw_timeline(spans, f"{frames}, running engine, {result.seconds:.2f} s"), encoding="utf-8")
    tell(f"{path}: {len(spans)} spans; {'; '.join(busy_texts(spans))}")


def lanes(spans: list[Span]) -> list[int]:
    """Return who has a lane: the workers, then the pipeline process."""
    return sorted({span.worker for span in spans}, key=lambda worker: (worker == PARENT, worker))


def lane_name(worker: int) -> str:
    """Return the name of a lane."""
    return "pipeline" if worker == PARENT else f"worker {worker + 1}"


def busy_share(spans: list[Span], worker: int) -> float:
    """Return the share of the whole time in which a process did something; stages may overlap."""
    begin, end = min(span.start for span in spans), max(span.stop for span in spans)
    busy, until = 0.0, begin
    for span in sorted((span for span in spans if span.worker == worker), key=lambda span: span.start):
        busy += max(0.0, span.stop - max(span.start, until))
        until = max(until, span.stop)
    return busy / (end - begin) if end > begin else 0.0


def busy_texts(spans: list[Span]) -> list[str]:
    """Return how busy each process was, as text."""
    return [f"{lane_name(worker)} busy {100 * busy_share(spans, worker):.0f} %" for worker in lanes(spans)]


def draw_timeline(spans: list[Span], title: str) -> str:
    """Return the picture; what is not coloured is waiting.

    Parameters
    ----------
    spans
        What was done, in any order; at least one.
    title
        The first line.

    Raises
    ------
    ValueError
        Without spans.
    """
    if not spans:
        raise ValueError("the engine told of no stage, so there is nothing to draw")
    begin, end = min(span.start for span in spans), max(span.stop for span in spans)
    scale = (WIDTH - LEFT - RIGHT) / max(end - begin, 1e-9)
    rows = {worker: TOP + number * (LANE + GAP) for number, worker in enumerate(lanes(spans))}
    bottom = TOP + len(rows) * (LANE + GAP)
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {bottom + 30}' width='{WIDTH}'>",
        "<rect width='100%' height='100%' fill='#ffffff'/>",
        label(LEFT, 22, title, INK),
        *draw_legend(spans),
        *draw_ticks(begin, end, scale, bottom),
    ]
    for worker, top in rows.items():
        parts.append(label(10, top + 20, lane_name(worker), INK))
        parts.append(f"<rect x='{LEFT}' y='{top}' width='{WIDTH - LEFT - RIGHT}' height='{LANE}' fill='{IDLE}'/>")
        parts.append(label(WIDTH - RIGHT + 8, top + 20, f"{100 * busy_share(spans, worker):.0f} %", FAINT))
    for span in sorted(spans, key=lambda span: span.start):
        x, width = LEFT + (span.start - begin) * scale, max((span.stop - span.start) * scale, 0.3)
        text = f"{span.stage}, {1000 * (span.stop - span.start):.1f} ms, from {span.start - begin:.3f} s"
        parts.append(
            f"<rect x='{x:.2f}' y='{rows[span.worker]}' width='{width:.2f}' height='{LANE}' "
            f"fill='{COLOURS.get(span.stage, OTHER_COLOUR)}'><title>{html.escape(text)}</title></rect>"
        )
    return "\n".join([*parts, "</svg>", ""])


def draw_legend(spans: list[Span]) -> list[str]:
    """Name the colours."""
    stages = {span.stage for span in spans}
    known = [stage for stage in COLOURS if stage in stages]
    parts = []
    for number, stage in enumerate([*known, *sorted(stages - COLOURS.keys())]):
        x = LEFT + 110 * number
        parts.append(f"<rect x='{x}' y='36' width='12' height='12' fill='{COLOURS.get(stage, OTHER_COLOUR)}'/>")
        parts.append(label(x + 18, 47, stage, FAINT))
    return parts


def draw_ticks(begin: float, end: float, scale: float, bottom: float) -> list[str]:
    """Draw the axis of time."""
    parts = []
    for number in range(TICKS + 1):
        seconds = (end - begin) * number / TICKS
        x = LEFT + seconds * scale
        parts.append(f"<path d='M{x:.1f} {TOP - 6}V{bottom}' stroke='#d9dee3'/>")
        parts.append(label(x - 14, bottom + 16, f"{seconds:.2f} s", FAINT))
    return parts


def label(x: float, y: float, content: str, colour: str) -> str:
    """Return a line of text."""
    return f"<text x='{x:.1f}' y='{y:.1f}' {FONT} fill='{colour}'>{html.escape(content)}</text>"
