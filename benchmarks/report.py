"""Numbers as text: tables for the terminal and docs/performance.md."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.bench import Figure, Outcome, Timing

SECTION_BEGIN, SECTION_END = "<!-- benchmark: begin -->", "<!-- benchmark: end -->"


def fill_section(page: str, report: str) -> str:
    """Put a report between the two marks of a page.

    Raises
    ------
    ValueError
        When the page lacks the marks.
    """
    before, begin, rest = page.partition(SECTION_BEGIN)
    _, end, after = rest.partition(SECTION_END)
    if not (begin and end):
        raise ValueError(f"the page has no section from {SECTION_BEGIN} to {SECTION_END}")
    return f"{before}{begin}\n{report}\n{end}{after}"


def as_json(outcome: Outcome, machine: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """Return all numbers, every repetition, as JSON."""
    return json.dumps({"options": options, "machine": machine, **dataclasses.asdict(outcome)}, indent=2) + "\n"


def markdown(outcome: Outcome, machine: Mapping[str, Any], runs: int) -> str:
    """Return the tables.

    Parameters
    ----------
    outcome
        What the cases found.
    machine
        What `machine.describe_machine` tells.
    runs
        Repetitions that were asked for.
    """
    compared = [timing for timing in outcome.timings if timing.reference == "dcnum"]
    alone = [timing for timing in outcome.timings if timing.reference != "dcnum"]
    lines = [
        (
            f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']:.0f} GB, {machine['workers']} "
            f"worker processes; Python {machine['python']}; load before the start {machine['load']:.1f}. "
            f"Median (minimum to maximum) of {runs} runs, unless a number n says otherwise."
        )
    ]
    if compared:
        lines += ["", *comparison_table(compared, machine)]
    if alone:
        lines += ["", *lineup_table(alone)]
    if outcome.figures:
        lines += ["", *figure_table(outcome.figures)]
    lines += missed_lines(outcome)
    lines += stage_lines(outcome.timings)
    if compared:
        lines += ["", f"Differences between the results of dcnumd and dcnum: {len(outcome.differences)}."]
    return "\n".join(lines)


def comparison_table(timings: Sequence[Timing], machine: Mapping[str, Any]) -> list[str]:
    """Return the table of dcnumd beside dcnum."""
    ours, other = (f"{name} {machine[name]} [s]" for name in ("dcnumd", "dcnum"))
    lines = [
        f"| case | measurement | {ours} | {other} | ratio | target |",
        "|---|---|---|---|---|---|",
    ]
    for timing in timings:
        runs = len(timing.seconds)
        lines.append(
            f"| {timing.label} | {measurement_text(timing)} | {spread(timing.seconds, 2, runs)} "
            f"| {spread(timing.reference_seconds, 2, runs)} | {spread(timing.ratios, 1, runs)} "
            f"| {targets_text(timing)} |"
        )
    return lines


def lineup_table(timings: Sequence[Timing]) -> list[str]:
    """Return the table of dcnumd, a running daemon, beside itself."""
    lines = [
        "| running daemon | measurement | [s] | frames/s | relative speed | result [MB] | target |",
        "|---|---|---|---|---|---|---|",
    ]
    for timing in timings:
        rate = timing.frames / statistics.median(timing.seconds)
        relative = f"{spread(timing.ratios, 2, len(timing.ratios))} of {timing.reference}"
        if timing.label.endswith(f": {timing.reference}"):
            relative = "1"
        lines.append(
            f"| {timing.label} | {measurement_text(timing)} | {spread(timing.seconds, 2, len(timing.seconds))} "
            f"| {rate:.0f} | {relative} | {timing.output_bytes / 1e6:.1f} | {targets_text(timing)} |"
        )
    return lines


def figure_table(figures: Sequence[Figure]) -> list[str]:
    """Return the table of everything else."""
    lines = ["| case | what | value | target |", "|---|---|---|---|"]
    for figure in figures:
        value = f"{spread(figure.values, figure.digits)} {figure.unit}".strip()
        if len(figure.values) > 1:
            value += f", n = {len(figure.values)}"
        lines.append(f"| {figure.case} | {figure.what} | {value} | {figure.target or ''} |")
    return lines


def missed_lines(outcome: Outcome) -> list[str]:
    """Tell which targets the medians miss; nothing if there are no targets."""
    met = [kept for timing in outcome.timings for kept in timing.met().values()]
    met += [kept for figure in outcome.figures if (kept := figure.met()) is not None]
    if not met:
        return []
    if all(met):
        return ["", "All targets are met."]
    missed = [f"- {timing.label}: {text}" for timing in outcome.timings if (text := missed_text(timing))]
    for figure in outcome.figures:
        if figure.met() is False:
            value = f"{statistics.median(figure.values):.{figure.digits}f} {figure.unit}"
            missed.append(f"- {figure.case}, {figure.what}: {value}, target {figure.target}")
    return ["", "These miss their targets:", "", *missed]


def missed_text(timing: Timing) -> str:
    """Return the medians of a timing that miss their targets; an empty text if none does."""
    met = timing.met()
    texts = []
    if met.get("ratio") is False:
        texts.append(f"{statistics.median(timing.ratios):.1f}x, target {timing.ratio_target}")
    if met.get("seconds") is False:
        texts.append(f"{statistics.median(timing.seconds):.2f} s, target {timing.seconds_target}")
    return "; ".join(texts)


def stage_lines(timings: Sequence[Timing]) -> list[str]:
    """Tell where the time goes, with the shares of each stage."""
    lines = []
    for timing in timings:
        total = sum(timing.stages.values())
        if timing.case in ("main", "tap") and total:
            shares = ", ".join(
                f"{stage} {seconds:.2f} ({100 * seconds / total:.0f} %)" for stage, seconds in timing.stages.items()
            )
            lines.append(f"- {timing.label}: {shares}")
    return ["", "Where the time goes, seconds of all workers together, median:", "", *lines] if lines else []


def measurement_text(timing: Timing) -> str:
    """Return what a measurement is like."""
    height, width = timing.frame_size
    return f"{timing.frames:,} frames of {height}x{width}, {timing.events_per_frame:.2f} events a frame"


def targets_text(timing: Timing) -> str:
    """Return the targets of a timing."""
    return ", ".join(str(target) for target in (timing.ratio_target, timing.seconds_target) if target is not None)


def spread(values: Sequence[float], digits: int, usual: int | None = None) -> str:
    """Return median, minimum and maximum; their number, too, when it is not the `usual` one."""
    if not values:
        return "-"
    text = f"{statistics.median(values):.{digits}f}"
    if len(values) > 1:
        text += f" ({min(values):.{digits}f} to {max(values):.{digits}f})"
    return text if usual is None or len(values) == usual else f"{text}, n = {len(values)}"
