"""How long a measurement that was copied into a watched folder takes from the end of its settle time to its result."""

from __future__ import annotations

import os
import shutil

from benchmarks.bench import Bench, Figure, Outcome, tell
from benchmarks.cases import SHORT, STANDARD, settings, within
from benchmarks.daemon import Daemon, moment
from benchmarks.measurements import Measurement

SETTLE_SECONDS = 5.0


def measure_early(bench: Bench) -> Outcome:
    """Copy measurements into the folders of two daemons in turns, one with early start and one without."""
    rows = []
    for measurement in (SHORT, STANDARD):
        frames = bench.scaled(measurement).spec.frames
        values: dict[bool, list[float]] = {True: [], False: []}
        for number in range(bench.runs):
            for early, seconds in values.items():
                seconds.append(_seconds_after_settling(bench, measurement, early=early))
            told = ", ".join(
                f"{'early' if early else 'usual'} {seconds[-1]:.3f} s" for early, seconds in values.items()
            )
            tell(f"  round {number + 1}, {frames:,} frames: {told}")
        bound = bench.target(within(0.3))
        rows += [
            Figure("early", f"{frames:,} frames, after their settle time, early start", values[True], "s", 3, bound),
            Figure("early", f"{frames:,} frames, after their settle time, usual start", values[False], "s", 3),
        ]
    return Outcome(figures=rows)


def _seconds_after_settling(bench: Bench, measurement: Measurement, *, early: bool) -> float:
    """Return the time from the end of the settle time, which begins with the last byte, to the result [s]."""
    source = bench.path(measurement)
    given = {"output.basin_strategy": "tap", "watch.settle_seconds": SETTLE_SECONDS, "watch.early_start": early}
    folder = bench.new_folder("early")
    with Daemon(folder, settings(given), bench.workers, bench.timeout) as daemon:
        # The first measurement finds a process that has not worked yet.
        for name in ("first", "second"):
            path = daemon.watched / f"{name}.rtdc"
            shutil.copyfile(source, path)
            written = path.stat().st_mtime
            finished = daemon.wait_for("job.finished", path=os.fspath(path))
            daemon.wait_for("report.written", path=os.fspath(path))
    if finished["early"] is not early:
        raise SystemExit(f"early start was {early}, but the result was not made so: {finished}")
    shutil.rmtree(folder)
    return moment(finished) - (written + SETTLE_SECONDS)
