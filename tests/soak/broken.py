"""Puts damaged measurements among good ones into the folder of one daemon.

Each damaged one must end with a reason or a result, all good ones be done, and the daemon live, with flat memory.

Example: ``python -m tests.soak.broken --count 2000 --good 20``
"""

from __future__ import annotations

import argparse
import collections
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Sequence

from tests.soak.damage_files import Material, damage_material, write_layouts
from tests.soak.processes import Family, Usage
from tests.soak.results import temporary_files
from tests.support.daemon import START_SECONDS, Daemon, draw_measurement

FILE_SECONDS = 10.0
"""On average no file takes longer; some send HDF5 into an endless loop, which is ended after 20 s."""
GROWTH = 1.25
"""The supervisor remembers what it knows of each file, which takes some memory."""


def run(folder: pathlib.Path, *, count: int, good: int, seed: int) -> tuple[collections.Counter[str], list[str]]:
    """Return how damaged measurements ended, and what went wrong."""
    watched, sound = folder / "acquisition", folder / "sound"
    for place in (watched, sound, folder / "tmp"):
        place.mkdir()
    config = folder / "config.toml"
    config.write_text(
        f"[watch]\nfolders = [{json.dumps(str(watched))}]\nsettle_seconds = 0.1\nrescan_seconds = 2.0\n"
        f"[state]\nfolder = {json.dumps(str(folder / 'state'))}\n"
        "[resources]\nnum_workers = 1\nmin_free_gb = 0.01\nnice = 0\njob_timeout_seconds = 60.0\n"
        "[report]\nenabled = false\n[retry]\nattempts = 2\nbackoff_seconds = 0.2\n"
    )
    damaged = _write(watched, sound, count, good, seed)
    family = Family({"TMPDIR": str(folder / "tmp")})
    daemon = Daemon.start(config, environment=family.environment)
    try:
        daemon.wait_for("daemon.ready", timeout=START_SECONDS)
        early = _supervisor_bytes(daemon)
        ends = _wait_for_ends(daemon, set(damaged) | set(_good(watched)), FILE_SECONDS * (count + good))
        late = _supervisor_bytes(daemon)
        faults = [f"{path} has no end" for path, end in ends.items() if not end]
        faults += [f"{path}: {ends[path]}, but it is good" for path in _good(watched) if ends[path] != "done"]
        faults += [f"{event} is no event" for event in daemon.matching("not json")]
        faults += [f"nobody foresaw {event}" for event in daemon.matching("job.failed", reason="internal")]
        if late > GROWTH * early + 50_000 * (count + good):
            faults.append(f"the supervisor grew from {early / 2**20:.0f} to {late / 2**20:.0f} MiB")
        if (code := daemon.stop(timeout=60)) != 0:
            faults.append(f"the daemon ended with {code}")
    finally:
        daemon.close()
    faults += [f"left over: {path}" for path in temporary_files([watched])]
    return collections.Counter(ends[path] for path in damaged), faults


def _good(watched: pathlib.Path) -> list[str]:
    return [str(path) for path in watched.glob("good*.rtdc") if not path.stem.endswith("_dcn")]


def _write(watched: pathlib.Path, sound: pathlib.Path, count: int, good: int, seed: int) -> list[str]:
    """Write all files, the good ones spread among the damaged ones; return the damaged ones."""
    materials = [Material.of(path) for path in write_layouts(sound)]
    damaged = []
    for number in range(count):
        path = watched / f"damaged{number:05d}.rtdc"
        path.write_bytes(damage_material(materials[number // 3 % len(materials)], number, seed)[1])
        damaged.append(str(path))
        if number % (count // good) == 0:
            draw_measurement(watched / f"good{number:05d}.rtdc", frames=40, seed=number)
    return damaged


def _wait_for_ends(daemon: Daemon, paths: set[str], seconds: float) -> dict[str, str]:
    """Return how each file ended; an empty text stands for one that did not within the time."""
    ends = dict.fromkeys(paths, "")
    deadline = time.monotonic() + seconds
    seen = 0
    while not all(ends.values()) and time.monotonic() < deadline and not daemon.ended:
        with daemon.heard:
            if len(daemon.events) == seen:
                daemon.heard.wait(1.0)
            news, seen = daemon.events[seen:], len(daemon.events)
        for event in news:
            if event.get("path") not in ends:
                continue
            if event["event"] == "job.failed" and not event["will_retry"]:
                ends[event["path"]] = event["reason"]
            elif event["event"] == "job.finished":
                ends[event["path"]] = "done"
            elif event["event"] in {"file.ignored", "job.skipped"}:
                ends[event["path"]] = event["reason"]
    return ends


def _supervisor_bytes(daemon: Daemon) -> int:
    return Usage.of([daemon.process.pid]).rss


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return 1 if a fault was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="number of damaged measurements")
    parser.add_argument("--good", type=int, default=20, help="number of good ones among them")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="broken-") as folder:
        ends, faults = run(pathlib.Path(folder), count=options.count, good=options.good, seed=options.seed)
    sys.stdout.write("\n".join(f"{number:6d} {end}" for end, number in ends.most_common()) + "\n")
    sys.stdout.write("".join(f"FAULT {fault}\n" for fault in faults) or "no faults\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
