"""What all cases of one run share, and what they tell."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import statistics
import sys
from collections.abc import Mapping

from benchmarks.cases import Lineup, Target
from benchmarks.measurements import Measurement, Stock


@dataclasses.dataclass(frozen=True, slots=True)
class Timing:
    """How long one variant of a lineup took, beside the reference."""

    case: str
    label: str
    frames: int
    frame_size: tuple[int, int]
    events_per_frame: float
    seconds: list[float]
    reference: str
    """Label of the reference."""
    reference_seconds: list[float]
    ratios: list[float]
    """Frames per second, relative to the reference in the same round."""
    ratio_target: Target | None
    seconds_target: Target | None
    output_bytes: int
    stages: Mapping[str, float]
    """Median seconds in each stage, all workers together; empty when they were not told."""

    def met(self) -> dict[str, bool]:
        """Return which targets the medians keep."""
        checks = {"ratio": (self.ratio_target, self.ratios), "seconds": (self.seconds_target, self.seconds)}
        return {
            name: target.met(statistics.median(values))
            for name, (target, values) in checks.items()
            if target is not None and values
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """Another number with its repetitions."""

    case: str
    what: str
    values: list[float]
    unit: str
    digits: int = 2
    target: Target | None = None

    def met(self) -> bool | None:
        """Return whether the median keeps the target; None without a target."""
        return None if self.target is None else self.target.met(statistics.median(self.values))


@dataclasses.dataclass(slots=True)
class Outcome:
    """What a case found."""

    timings: list[Timing] = dataclasses.field(default_factory=list)
    figures: list[Figure] = dataclasses.field(default_factory=list)
    differences: list[str] = dataclasses.field(default_factory=list)
    """Where results differ from dcnum's."""

    def add(self, other: Outcome) -> None:
        """Take in what another case found."""
        self.timings += other.timings
        self.figures += other.figures
        self.differences += other.differences


@dataclasses.dataclass(slots=True)
class Bench:
    """The place where cases work, and the options that concern them all."""

    folder: pathlib.Path
    runs: int = 5
    frames: int = 10_000
    """What stands for 10,000 frames."""
    workers: int = 2
    timeout: float = 900.0
    """Of one run [s]."""
    idle_seconds: float = 120.0
    model: pathlib.Path | None = None
    """Of the case torch; None for that in ``../shared/data``."""
    device: str = "cpu"
    """Of the case torch."""
    stock: Stock = dataclasses.field(init=False)
    _numbers: itertools.count[int] = dataclasses.field(init=False, default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        stock = self.folder / "measurements"
        stock.mkdir()
        self.stock = Stock(stock)

    def scaled(self, measurement: Measurement) -> Measurement:
        """Return a measurement with the number of frames that was asked for."""
        return measurement.scaled(self.frames)

    def path(self, measurement: Measurement) -> pathlib.Path:
        """Return the file of a measurement with the number of frames that was asked for."""
        return self.stock.path(self.scaled(measurement))

    def new_folder(self, name: str) -> pathlib.Path:
        """Return a new, empty folder."""
        folder = self.folder / f"{next(self._numbers):04d}_{name}"
        folder.mkdir()
        return folder

    def target(self, target: Target | None) -> Target | None:
        """Return a target, or None when the number of frames is not that for which it was set."""
        return target if self.frames == 10_000 else None


def lineup_seconds(lineup: Lineup, bench: Bench) -> float:
    """Estimate how long a lineup takes [s]."""
    return lineup.seconds * max(bench.frames / 10_000, 0.05) * (bench.runs + 1) / 6


def tell(text: str) -> None:
    """Report progress; the results alone go to stdout."""
    print(text, file=sys.stderr, flush=True)
