"""What is measured: each case as data.

A `Lineup` lets several variants take turns and compares their speed with that of one of them; it is all that the
comparison with dcnum, the growth, the scaling and the compression need. Cases of another kind are in `special`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Literal

from benchmarks.measurements import Measurement
from dcnumd.simulate.spec import MeasurementSpec

SettingValue = str | int | float | bool
Settings = tuple[tuple[str, SettingValue], ...]
"""Keys of the config with dots, and their values."""

Program = Literal["daemon", "process", "dcnum"]
"""``daemon``: a running ``dcnumd run``; ``process``: ``dcnumd process`` and ``dcnum`` as new processes."""


def settings(given: Mapping[str, SettingValue] | None = None) -> Settings:
    """Return settings of a job: complete results with zstd-5, except where `given` says otherwise."""
    usual: dict[str, SettingValue] = {
        "output.basin_strategy": "drain",
        "output.compression": "zstd-5",
        "pipeline.background.code": "sparsemed",
        # They would need dclab, which is not a dependency of dcnumd.
        "report.plot.isoelastics": False,
    }
    return tuple(sorted((usual | dict(given or {})).items()))


USUAL_SETTINGS = settings()


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """A bound that a value should keep."""

    sense: Literal["at least", "at most"]
    bound: float
    unit: str

    def met(self, value: float) -> bool:
        """Return whether a value keeps the bound."""
        return value >= self.bound if self.sense == "at least" else value <= self.bound

    def __str__(self) -> str:
        space = "" if self.unit == "x" else " "
        return f"{'≥' if self.sense == 'at least' else '≤'} {self.bound:g}{space}{self.unit}"


def at_least(ratio: float) -> Target:
    """Return the target of a ratio."""
    return Target("at least", ratio, "x")


def within(seconds: float) -> Target:
    """Return the target of a duration [s]."""
    return Target("at most", seconds, "s")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One of those that take turns."""

    label: str
    program: Program = "daemon"
    measurement: Measurement
    settings: Settings = USUAL_SETTINGS
    since: Literal["job.started", "file.settled"] = "job.started"
    """In a daemon: the event from which the time to job.finished counts."""
    ratio: Target | None = None
    """Target of the frames per second, relative to the reference."""
    seconds: Target | None = None
    most_runs: int = 1_000_000
    """Takes part in so many rounds only."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Lineup:
    """Variants that take turns; the last one is what the others are held against."""

    name: str
    what: str
    seconds: float
    """Duration with five rounds on two cores, about [s]."""
    variants: tuple[Variant, ...]

    @property
    def with_dcnum(self) -> bool:
        """Whether results are compared with those of dcnum."""
        return self.variants[-1].program == "dcnum"


def against_dcnum(
    name: str, what: str, seconds: float, measurement: Measurement, *ours: Variant, most_dcnum_runs: int = 1_000_000
) -> Lineup:
    """Return a lineup of our variants and dcnum as a new process, with the settings of the first of ours."""
    dcnum = Variant(
        label="dcnum",
        program="dcnum",
        measurement=measurement,
        settings=ours[0].settings,
        most_runs=most_dcnum_runs,
    )
    return Lineup(name=name, what=what, seconds=seconds, variants=(*ours, dcnum))


def warm_case(
    name: str,
    what: str,
    seconds: float,
    measurement: Measurement,
    ratio: float,
    given: Mapping[str, SettingValue] | None = None,
    most_dcnum_runs: int = 1_000_000,
) -> Lineup:
    """Return the comparison of a running daemon with dcnum as a new process."""
    warm = Variant(label="running daemon", measurement=measurement, settings=settings(given), ratio=at_least(ratio))
    return against_dcnum(name, what, seconds, measurement, warm, most_dcnum_runs=most_dcnum_runs)


STANDARD_SPEC = MeasurementSpec(frames=10_000, density=0.9, compression="zstd-5", seed=1)
STANDARD = Measurement(STANDARD_SPEC)
"""80x320 pixels; the density gives about 0.7 events in a frame."""


def like_standard(contiguous: bool = False, **changes: object) -> Measurement:
    """Return the standard measurement with other properties."""
    return Measurement(dataclasses.replace(STANDARD_SPEC, **changes), contiguous=contiguous)  # type: ignore[arg-type]  # names of fields


SHORT = like_standard(frames=1000)
LONG = like_standard(frames=100_000)
DENSE = like_standard(frames=1500, size=(80, 1000), density=10.0)
"""At 80x320 cells would lie on top of each other long before there are six."""
WIDE = like_standard(frames=2500, size=(100, 1010), density=2.0)


def comparisons() -> list[Lineup]:
    """Return the cases in which dcnum takes part."""
    process = Variant(
        label="new process", program="process", measurement=STANDARD, ratio=at_least(9), seconds=within(3.0)
    )
    warm = Variant(label="running daemon", measurement=STANDARD, ratio=at_least(13), seconds=within(2.0))
    tap = Variant(
        label="running daemon",
        measurement=STANDARD,
        settings=settings({"output.basin_strategy": "tap"}),
        ratio=at_least(35),
        seconds=within(0.8),
    )
    short = Variant(
        label="running daemon, settled to finished",
        measurement=SHORT,
        since="file.settled",
        ratio=at_least(25),
        seconds=within(0.3),
    )
    rollmed = {"pipeline.background.code": "rollmed"}
    return [
        against_dcnum("main", "complete results (drain)", 240, STANDARD, process, warm),
        against_dcnum("tap", "results that refer to the measurement (tap)", 190, STANDARD, tap),
        against_dcnum("short", "a short measurement, complete result", 60, SHORT, short),
        warm_case("dense", "many cells in a frame", 190, DENSE, 8),
        warm_case("wide", "wide frames", 150, WIDE, 8),
        warm_case("flicker", "flickering light", 200, like_standard(flicker=4.0), 8),
        warm_case("contiguous", "input without chunks", 190, like_standard(compression="none", contiguous=True), 8),
        warm_case("gzip", "input packed with gzip", 200, like_standard(compression="gzip"), 8),
        warm_case("rollmed", "rolling median as background", 280, STANDARD, 10, rollmed, most_dcnum_runs=1),
    ]


def lineups(workers: int, workers_up_to: int) -> list[Lineup]:
    """Return the cases in which dcnumd is held against itself.

    Parameters
    ----------
    workers
        Worker processes of the daemon in every other case; it is the number that others are held against.
    workers_up_to
        Largest number of workers in the case ``scaling``.
    """
    compressions = [
        Variant(label=level, measurement=STANDARD, settings=settings({"output.compression": level}))
        for level in ("none", "zstd-1", "zstd-3", "zstd-5")
    ]
    numbers = [*[number for number in powers_of_two(workers_up_to) if number > 1], 1]
    scaling = [
        Variant(
            label=f"{number} workers" if number > 1 else "1 worker",
            measurement=STANDARD,
            settings=settings({"resources.num_workers": number}),
            ratio=at_least(1.8) if number == 2 and workers >= 2 else None,
        )
        for number in numbers
    ]
    growth = (
        Variant(label="ten times the frames", measurement=LONG, ratio=at_least(0.97)),
        Variant(label="usual frames", measurement=STANDARD),
    )
    return [
        Lineup(name="growth", what="does speed fall with length", seconds=260, variants=growth),
        Lineup(name="scaling", what="more workers", seconds=90, variants=tuple(scaling)),
        Lineup(name="compression", what="packing of the result", seconds=90, variants=tuple(compressions)),
    ]


def powers_of_two(last: int) -> list[int]:
    """Return 1, 2, 4 … and `last`."""
    numbers = []
    number = 1
    while number < last:
        numbers.append(number)
        number *= 2
    return [*numbers, last]


def usable_cores() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0))
