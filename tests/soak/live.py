"""Records random measurements that are processed while they grow; each result must be that of the finished file.

Example: ``python -m tests.soak.live --recordings 60 --seed 1``
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence

from dcnumd.errors import DcnumdError
from dcnumd.logic.job import Job, PipelineSettings
from dcnumd.simulate.spec import MeasurementSpec
from tests.support.live_results import compare_results, record_live
from tests.support.recorder import Peculiarities

SHAPES = ((40, 80), (48, 100), (80, 320), (64, 200), (80, 250), (100, 110))
GATES = {
    "online_filter:area_um min": 15.0,
    "online_filter:area_um max": 90.0,
    "online_filter:area_um soft limit": 0,
    "online_filter:deform max": 0.2,
    "online_filter:deform soft limit": 0,
}


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A random recording and its job."""

    spec: MeasurementSpec
    peculiar: Peculiarities
    steps: tuple[int, ...]
    job: Job


def draw(rng: random.Random, folder: pathlib.Path) -> Drawn:
    """Draw a recording: length, shape, content, flushes, pipeline and kind of result."""
    frames = rng.choice((rng.randint(5, 400), rng.randint(400, 6000), rng.randint(2000, 6000)))
    gated = rng.random() < 0.2
    spec = MeasurementSpec(
        size=rng.choice(SHAPES),
        frames=frames,
        rate=rng.choice((500.0, 1000.0, 3450.0)),
        density=rng.choice((0.05, 0.7, 2.0, 4.0)),
        flicker=rng.choice((0.0, 0.0, 3.0)),
        drift=rng.choice((0.0, 0.0, 20.0, -20.0)),
        clog_at=rng.choice((1.0, 1.0, 0.5)),
        compression=rng.choice(("zstd-1", "zstd-5", "gzip", "none")),
        fletcher32=rng.random() < 0.8,
        chunk=rng.choice((0, 1, 7, 20, 100, 333)),
        seed=rng.randrange(10**6),
    )
    peculiar = Peculiarities(
        repeated=tuple(sorted(rng.sample(range(1, frames), min(rng.choice((0, 0, 12)), frames - 1)))),
        background=rng.random() < 0.15,
        jump_at=rng.choice((None, None, frames // 2)),
        attributes=GATES if gated else {},
    )
    settings = dataclasses.replace(
        _draw_background(rng, background=peculiar.background),
        segmenter_kwargs={"thresh": rng.choice((-6, -6, -3, -12))},
        mask_kwargs={"closing_disk": rng.choice((2, 0))},
        gate_kwargs={"online_gates": gated, "size_thresh_mask": rng.choice((None, 30))},
    )
    strategy = rng.choice(("tap", "tap", "drain"))
    job = Job(folder / "M001.rtdc", folder / "live.rtdc", settings, num_workers=2, basin_strategy=strategy)
    return Drawn(spec, peculiar, _draw_steps(rng, frames), job)


def _draw_background(rng: random.Random, *, background: bool) -> PipelineSettings:
    if background:
        return PipelineSettings(background_code="copy")
    if rng.random() < 0.2:
        return PipelineSettings(background_code="rollmed", background_kwargs={"kernel_size": rng.choice((10, 100))})
    kwargs = {
        "kernel_size": rng.choice((7, 50, 200)),
        "split_time": rng.choice((0.05, 0.2, 1.0)),
        "frac_cleansing": rng.choice((0.8, 0.8, 0.5, 1)),
        "thresh_cleansing": rng.choice((0, 0, 0.3)),
        "offset_correction": rng.choice((True, True, False, "auto")),
    }
    return PipelineSettings(background_kwargs=kwargs)


def _draw_steps(rng: random.Random, frames: int) -> tuple[int, ...]:
    longest = rng.choice((60, 300, 1500))
    steps = [0]
    while steps[-1] < frames:
        steps.append(min(steps[-1] + rng.randint(1, longest), frames))
    return tuple(steps[1:])


def check(drawn: Drawn) -> tuple[str, list[str]]:
    """Record and compare; return what was done, and what is wrong."""
    done, problems = "too short to be read live", []
    spool: str | None = None
    try:
        state = record_live(drawn.job, drawn.spec, drawn.peculiar, steps=drawn.steps)
        spool = f"{state.frames_done} frames live, {state.frames_again} again"
    except DcnumdError as error:
        if error.reason != "not_live":
            problems.append(f"live: {error.reason}: {error.message}")
    try:
        live, plain, problems_found = compare_results(drawn.job)
    except DcnumdError as error:
        return f"refused: {error.reason}", problems
    problems += problems_found
    if (live.events, live.masks_dropped) != (plain.events, plain.masks_dropped):
        problems.append(f"{live.events} events and {live.masks_dropped} masks dropped, expected {plain.events}")
    if spool is not None:
        done = f"{spool}, {live.frames_known} of {live.frames} known"
    return f"{done}, {live.events} events", problems


def tell(text: str) -> None:
    """Write a line."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a number of random recordings; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.live", description=__doc__)
    parser.add_argument("--recordings", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="check only the recording with this number")
    options = parser.parse_args(arguments)
    wrong = 0
    for number in range(options.recordings) if options.only is None else [options.only]:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="dcnumd_live_"))
        begin = time.monotonic()
        try:
            drawn = draw(random.Random(f"{options.seed} {number}"), folder)
            done, problems = check(drawn)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        tell(f"{number}: {done}; {time.monotonic() - begin:.1f} s")
        if problems:
            wrong += 1
            tell("\n   ".join([f"   {drawn}", *problems[:10]]))
    tell(f"{wrong} recordings with differences")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
