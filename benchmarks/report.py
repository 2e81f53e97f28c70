"""Numbers as text: a table for the terminal and the README."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

Results = dict[str, Any]
"""What a benchmark measured, as it goes into the JSON file."""


SECTION_BEGIN, SECTION_END = "<!-- benchmark: begin -->", "<!-- benchmark: end -->"


def fill_section(readme: str, report: str) -> str:
    """Put a report between the two marks of a README.

    Raises
    ------
    ValueError
        When the README lacks the marks.
    """
    before, begin, rest = readme.partition(SECTION_BEGIN)
    _, end, after = rest.partition(SECTION_END)
    if not (begin and end):
        raise ValueError(f"the README has no section from {SECTION_BEGIN} to {SECTION_END}")
    return f"{before}{begin}\n{report}\n{end}{after}"


def spread(values: Sequence[float], digits: int) -> str:
    """Return median, minimum and maximum."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def ratios(results: Results, key: str) -> list[float]:
    """Return dcnum's value over dcnumd's, run by run."""
    pairs = zip(results["runs"]["dcnum"], results["runs"]["dcnumd"], strict=True)
    return [other[key] / ours[key] for other, ours in pairs]


def markdown(results: Results) -> str:
    """Return the table for the README.

    Parameters
    ----------
    results
        What `benchmarks.run` measured.
    """
    options, machine, runs = results["options"], results["machine"], results["runs"]
    setting = (
        f"{options['frames']} frames of {options['size']}, {results['events_per_frame']:.2f} events a frame, input "
        f"{options['compression']}, output {options['output_compression']}, strategy {options['strategy']}, background "
        f"{options['background']}; {options['runs']} runs of each in alternation, each in a new process; median "
        f"(minimum to maximum)."
    )
    computer = (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']:.0f} GB; "
        f"Python {machine['python']}; load before the start {machine['load']:.1f}."
    )
    lines = [
        setting,
        "",
        computer,
        "",
        f"| | dcnumd {machine['dcnumd']} | dcnum {machine['dcnum']} | ratio |",
        "|---|---|---|---|",
        row("wall time [s]", runs, "seconds", 2, spread(ratios(results, "seconds"), 1) + "x"),
        row("frames/s", runs, "frames_per_second", 0, ""),
        row("CPU time [s]", runs, "cpu_seconds", 1, spread(ratios(results, "cpu_seconds"), 1) + "x"),
    ]
    memory = results["memory"]
    mebibytes = {name: f"{memory[name]['peak_bytes'] / 2**20:.0f}" for name in memory}
    smaller = memory["dcnum"]["peak_bytes"] / memory["dcnumd"]["peak_bytes"]
    lines.append(
        f"| peak memory, all processes [MiB] | {mebibytes['dcnumd']} | {mebibytes['dcnum']} | {smaller:.1f}x |"
    )
    if warm := [run["seconds"] for run in results["warm"][1:]]:
        warm_ratio = statistics.median(run["seconds"] for run in runs["dcnum"]) / statistics.median(warm)
        lines.append(f"| wall time in a running daemon [s] | {spread(warm, 2)} | - | {warm_ratio:.1f}x |")
    lines += ["", "Seconds in each stage, added up over all workers, median:", ""]
    for name in ("dcnumd", "dcnum"):
        stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in median_stages(runs[name]).items())
        lines.append(f"- {name}: {stages or 'not told'}")
    lines += ["", f"Differences between the results: {len(results['differences'])}."]
    return "\n".join(lines)


def row(label: str, runs: dict[str, list[dict[str, Any]]], key: str, digits: int, ratio: str) -> str:
    """Return one row of the table."""
    ours, other = (spread([run[key] for run in runs[name]], digits) for name in ("dcnumd", "dcnum"))
    return f"| {label} | {ours} | {other} | {ratio} |"


def median_stages(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Return the median seconds of each stage that every run told."""
    common = [stage for stage in runs[0]["stages"] if all(stage in run["stages"] for run in runs)]
    return {stage: statistics.median(run["stages"][stage] for run in runs) for stage in common}
