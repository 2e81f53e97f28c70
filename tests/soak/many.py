"""Sends many small files through one daemon, which must hold no more after the last than after the hundredth.

Example: ``python -m tests.soak.many --files 2000``
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

from tests.soak.processes import Family, Usage
from tests.soak.results import RESULT_PATTERN, temporary_files
from tests.support.daemon import START_SECONDS, Daemon, draw_measurement

SHAPES = ((48, 96), (60, 150), (40, 80))
FRAMES = 20
FILE_SECONDS = 5.0
QUIET_SECONDS = 3.0
"""After the last job: threads end, and what was read ahead is let go."""
AHEAD = 25
"""So many files wait at most, so that the queue is as long at the end as at the beginning."""


@dataclasses.dataclass(frozen=True)
class Held:
    """What was held after some files."""

    files: int
    everything: Usage
    supervisor: Usage
    names: tuple[tuple[str, int], ...]
    """Number of processes of each role."""
    named_shared_memory: int

    def __str__(self) -> str:
        usage = self.everything
        mebibytes = {name: getattr(usage, name) / 2**20 for name in ("rss", "pss", "shared")}
        sizes = ", ".join(f"{name} {value:.1f} MiB" for name, value in mebibytes.items())
        return (
            f"after {self.files} files: {usage.processes} processes, {usage.threads} threads, "
            f"{usage.open_files} open files, {sizes}, supervisor {self.supervisor.rss / 2**20:.1f} MiB"
        )


def run(folder: pathlib.Path, *, files: int, first: int, tolerance: float) -> tuple[list[Held], list[str]]:
    """Process `files` measurements; return what was held after `first` and after all, and what went wrong."""
    watched, results = folder / "acquisition", folder / "results"
    for place in (watched, results, folder / "tmp"):
        place.mkdir()
    config = folder / "config.toml"
    config.write_text(
        f"[watch]\nfolders = [{json.dumps(str(watched))}]\nsettle_seconds = 0.1\nrescan_seconds = 5.0\n"
        f"[output]\nfolder = {json.dumps(str(results))}\n"
        f"[state]\nfolder = {json.dumps(str(folder / 'state'))}\n"
        "[resources]\nnum_workers = 2\nmin_free_gb = 0.01\nnice = 0\n"
        # Reports come later than the results, so that what their process holds would depend on the moment.
        "[report]\nenabled = false\n"
    )
    family = Family({"TMPDIR": str(folder / "tmp")})
    daemon = Daemon.start(config, environment=family.environment)
    try:
        daemon.wait_for("daemon.ready", timeout=START_SECONDS)
        held = []
        for start, stop in ((0, first), (first, files)):
            publish(daemon, watched, start, stop)
            held.append(measure(daemon, family, stop))
        code = daemon.stop()
        left = family.wait_until_gone(5.0)
    finally:
        family.kill_all()
        daemon.close()
    faults = [
        *compare(*held, tolerance),
        *([f"exit code {code}"] if code else []),
        *(f"outlives the daemon: {process}" for process in left),
        *(f"left over: {path}" for path in temporary_files([watched, results])),
        *(f"left over in the folder for temporary files: {path}" for path in (folder / "tmp").iterdir()),
        *(f"said in the log: {event}" for name in ("job.failed", "not json") for event in daemon.matching(name)),
    ]
    count = sum(1 for _ in results.rglob(RESULT_PATTERN))
    if count != files or len(daemon.matching("job.finished")) != files:
        faults.append(f"{count} results, {len(daemon.matching('job.finished'))} finished jobs of {files} files")
    return held, faults


def publish(daemon: Daemon, watched: pathlib.Path, start: int, stop: int) -> None:
    """Put measurements into the watched folder, no faster than they are processed, and wait for the last."""
    for number in range(start, stop):
        hidden = watched / ".writing"
        draw_measurement(hidden, frames=FRAMES, shape=SHAPES[number % len(SHAPES)], seed=number)
        hidden.rename(watched / f"M{number:05d}_data.rtdc")
        if number > AHEAD:
            daemon.wait_for("job.finished", count=number - AHEAD, timeout=FILE_SECONDS * AHEAD)
    daemon.wait_for("job.finished", count=stop, timeout=FILE_SECONDS * AHEAD)


def measure(daemon: Daemon, family: Family, files: int) -> Held:
    """Return what is held when nothing is to be done."""
    time.sleep(QUIET_SECONDS)
    processes = family.processes()
    roles = [process.role for process in processes]
    return Held(
        files,
        Usage.of(process.pid for process in processes),
        Usage.of([daemon.process.pid]),
        tuple(sorted((role, roles.count(role)) for role in set(roles))),
        len(family.named_memory()),
    )


def compare(first: Held, last: Held, tolerance: float) -> Iterator[str]:
    """Yield what has grown."""
    for name in ("processes", "threads", "open_files"):
        before, after = getattr(first.everything, name), getattr(last.everything, name)
        if before != after:
            yield f"{before} {name} after {first.files} files, {after} after {last.files}"
    if first.names != last.names:
        yield f"processes {first.names} after {first.files} files, {last.names} after {last.files}"
    if first.named_shared_memory != last.named_shared_memory:
        yield f"{first.named_shared_memory} names in shared memory before, {last.named_shared_memory} after"
    for name in ("rss", "pss", "shared"):
        before, after = getattr(first.everything, name), getattr(last.everything, name)
        if after > before * (1 + tolerance):
            yield f"{name} has grown by {after / before - 1:.1%}, from {before} to {after} bytes"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--first", type=int, default=100, help="compare with what is held after so many files")
    parser.add_argument("--tolerance", type=float, default=0.02, help="memory may grow by this part")
    options = parser.parse_args(arguments)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="many-"))
    held, faults = run(folder, files=options.files, first=options.first, tolerance=options.tolerance)
    lines = [*map(str, held), *(faults or ["nothing went wrong"])]
    sys.stdout.write("\n".join(lines) + "\n")
    shutil.rmtree(folder)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
