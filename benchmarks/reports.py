"""What reports cost: one of them, a batch of measurements with and without them, and the index of many."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import statistics
import time

from benchmarks.bench import Bench, Figure, Outcome, tell
from benchmarks.cases import STANDARD, Target, at_least, settings, within
from benchmarks.daemon import Daemon, moment
from benchmarks.measurements import Measurement
from benchmarks.programs import DCNUMD, process_command, timed
from benchmarks.special import Special
from dcnumd.config.values import PlotSettings
from dcnumd.report.request import IndexRow, ReportRequest

TEN_THOUSAND_EVENTS = Measurement(dataclasses.replace(STANDARD.spec, frames=16_000))
"""STANDARD has 0.65 events a frame."""
BATCH = 20
INDEX_ROWS = 5_000


def measure_report(bench: Bench) -> Outcome:
    """Make the report of one measurement again and again, and once in a process of its own."""
    from dcnumd.report.make import make_report, rate  # noqa: PLC0415 -- cases that need no plots load none

    folder = bench.new_folder("report")
    command, result = process_command(bench.path(TEN_THOUSAND_EVENTS), folder, settings(), bench.workers)
    timed(command, bench.timeout)
    request = ReportRequest(result, folder / "warm", plot=PlotSettings(isoelastics=False))
    make_report(request)
    wall, cpu, rating = [], [], []
    for _ in range(2 * bench.runs):
        begin, begin_cpu = time.perf_counter(), time.process_time()
        summary = make_report(request)
        wall.append(time.perf_counter() - begin)
        cpu.append(time.process_time() - begin_cpu)
        begin_cpu = time.process_time()
        rate(request)
        rating.append(time.process_time() - begin_cpu)
    tell(f"  report of {summary.events} events: {statistics.median(wall):.3f} s")
    options = ["-o", os.fspath(folder / "cold"), "--set", "report.plot.isoelastics=false"]
    cold = [timed([*DCNUMD, "report", os.fspath(result), *options], bench.timeout)[0] for _ in range(bench.runs)]
    size = sum(path.stat().st_size for path in summary.paths) / 1000
    events = f"{summary.events:,} events"
    return Outcome(
        figures=[
            Figure("report", f"one more, {events}", wall, "s", 2, bench.target(within(1.0))),
            Figure("report", f"one more, {events}, CPU", cpu, "s", 2),
            Figure("report", f"rating alone, {events}, CPU", rating, "s", 2),
            Figure("report", f"`dcnumd report`, {events}", cold, "s", 2),
            Figure("report", "size of page and data", [size], "kB", 0),
        ]
    )


def measure_batch(bench: Bench) -> Outcome:
    """Let daemons with and without reports take turns at a batch of measurements."""
    path = bench.path(STANDARD)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    ratios, lights = [], list[float]()
    for number in range(bench.runs):
        # Who is first changes, so that a computer that becomes slower favours neither.
        for enabled in (True, False) if number % 2 else (False, True):
            taken, waited = batch_seconds(bench, path, enabled=enabled)
            seconds[enabled].append(taken)
            lights += waited
        ratios.append(seconds[False][-1] / seconds[True][-1])
        tell(f"  round {number + 1}  with {seconds[True][-1]:.2f} s, without {seconds[False][-1]:.2f} s")
    frames = f"{BATCH} files of {bench.scaled(STANDARD).spec.frames:,} frames"
    return Outcome(
        figures=[
            Figure("batch", f"{frames}, with reports", seconds[True], "s"),
            Figure("batch", f"{frames}, without", seconds[False], "s"),
            Figure("batch", "throughput with reports / without", ratios, "x", 3, bench.target(at_least(0.95))),
            Figure("batch", "from a result to its traffic light", lights, "s", 2, bench.target(within(1.0))),
        ]
    )


def batch_seconds(bench: Bench, measurement: pathlib.Path, *, enabled: bool) -> tuple[float, list[float]]:
    """Let a daemon process a batch.

    Returns
    -------
    taken, waited
        Time from the first ``job.started`` to the last ``job.finished`` [s]; and, with reports, that from each
        ``job.finished`` to ``report.rated`` [s].
    """
    daemon = Daemon(bench.new_folder("batch"), settings({"report.enabled": enabled}), bench.workers, bench.timeout)
    # All before it starts: a further link to a file changes the stat of all.
    paths = [daemon.watched / f"B{number:03d}_data.rtdc" for number in range(BATCH)]
    for path in paths:
        path.hardlink_to(measurement)
    with daemon:
        finished = [daemon.wait_for("job.finished", path=os.fspath(path)) for path in paths]
        started = [daemon.wait_for("job.started", path=os.fspath(path)) for path in paths]
        taken = max(map(moment, finished)) - min(map(moment, started))
        waited = []
        for event in finished if enabled else ():
            waited.append(moment(daemon.wait_for("report.rated", path=event["path"])) - moment(event))
            # The pages may come later, but they must come.
            daemon.wait_for("report.written", path=event["path"])
    for event in finished:
        pathlib.Path(event["output"]).unlink()
    return taken, waited


def measure_index(bench: Bench) -> Outcome:
    """Change one row of an index of many."""
    from dcnumd.report.index import update_index  # noqa: PLC0415 -- see `measure_report`

    folder = bench.new_folder("index")
    update_index(folder, [index_row(number) for number in range(INDEX_ROWS)], [])
    seconds = []
    for number in range(4 * bench.runs):
        begin = time.perf_counter()
        update_index(folder, [index_row(INDEX_ROWS + number)], None)
        seconds.append(time.perf_counter() - begin)
    bound = Target("at most", 50, "ms")
    return Outcome(
        figures=[
            Figure("index", f"one more measurement, {INDEX_ROWS:,} rows", [1000 * x for x in seconds], "ms", 1, bound)
        ]
    )


def index_row(number: int) -> IndexRow:
    """Return the row of a measurement that does not exist."""
    return IndexRow(
        key=f"day/M{number:05d}_data_dcn.rtdc",
        name=f"M{number:05d}_data.rtdc",
        sample=f"sample {number}",
        recorded="2026-11-21 10:00:00",
        finished=f"2026-11-21T{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}+00:00",
        state="done",
        events=number,
        light="yellow",
        texts=("Only few events were found.",),
        link=f"day/M{number:05d}_data_dcn.html",
        thumbnail=os.urandom(750),
    )


def report_cases() -> list[Special]:
    """Return the cases."""
    return [
        Special("report", "one report, and one in a process of its own", 40, measure_report),
        Special("batch", f"{BATCH} measurements with and without reports", 600, measure_batch),
        Special("index", f"one more row in an index of {INDEX_ROWS:,}", 5, measure_index),
    ]
