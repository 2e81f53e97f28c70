"""Lets the variants of a lineup take turns, and compares results and speed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import shutil
import statistics
from collections.abc import Sequence

import h5py

from benchmarks.bench import Bench, Outcome, Timing, tell
from benchmarks.cases import Lineup, Settings, Variant
from benchmarks.compare import differences
from benchmarks.daemon import Daemon
from benchmarks.programs import dcnum_command, process_command, timed


@dataclasses.dataclass(slots=True)
class Turn:
    """One variant in one round."""

    seconds: float
    output: pathlib.Path
    stages: dict[str, float]
    events: int
    output_bytes: int
    folder: pathlib.Path | None = None
    """The folder that was made for this turn alone."""

    def discard(self) -> None:
        """Remove the result."""
        if self.folder is None:
            self.output.unlink()
        else:
            shutil.rmtree(self.folder)


class Players:
    """Runs variants; daemons with the same settings are one, and stay for the whole lineup.

    Parameters
    ----------
    bench
        The shared place and options.
    name
        Of the case, for the names of folders.
    """

    def __init__(self, bench: Bench, name: str) -> None:
        self._bench = bench
        self._name = name
        self._daemons: dict[Settings, Daemon] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Players:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def prepare(self, variant: Variant) -> None:
        """Write the measurement, and warm up what stays: a first run in a daemon is not counted."""
        path = self._bench.path(variant.measurement)
        if variant.program != "daemon":
            return
        if variant.settings not in self._daemons:
            folder = self._bench.new_folder(f"{self._name}_daemon")
            daemon = Daemon(folder, variant.settings, self._bench.workers, self._bench.timeout)
            self._daemons[variant.settings] = self._stack.enter_context(daemon)
        self._daemons[variant.settings].run(path).output.unlink()

    def play(self, variant: Variant) -> Turn:
        """Run a variant once."""
        path = self._bench.path(variant.measurement)
        stages: dict[str, float] = {}
        folder = None
        if variant.program == "daemon":
            job = self._daemons[variant.settings].run(path)
            seconds, output = job.seconds(variant.since), job.output
            stages = job.finished.get("stage_seconds", {})
        else:
            make = process_command if variant.program == "process" else dcnum_command
            folder = self._bench.new_folder(f"{self._name}_{variant.program}")
            command, output = make(path, folder, variant.settings, self._bench.workers)
            seconds, stdout = timed(command, self._bench.timeout)
            if variant.program == "process":
                stages = json.loads(stdout).get("stages", {})
        return Turn(seconds, output, stages, count_events(output), output.stat().st_size, folder)


def run_lineup(lineup: Lineup, bench: Bench) -> Outcome:
    """Run a lineup.

    Parameters
    ----------
    lineup
        The variants.
    bench
        The shared place and options.

    Returns
    -------
    outcome
        A timing for each variant but the reference (for each variant, when the reference is one of ours), and where
        results differ from those of dcnum.
    """
    outcome = Outcome()
    turns: list[list[Turn]] = [[] for _ in lineup.variants]
    with Players(bench, lineup.name) as players:
        for variant in lineup.variants:
            players.prepare(variant)
        for number in range(bench.runs):
            played = []
            for variant, done in zip(lineup.variants, turns, strict=True):
                if number < variant.most_runs:
                    turn = players.play(variant)
                    done.append(turn)
                    played.append(turn)
                    tell(f"  round {number + 1}  {variant.label:36} {turn.seconds:8.3f} s")
            compare = lineup.with_dcnum and len(played) == len(lineup.variants)
            found = compare_turns(played) if compare else []
            outcome.differences += [f"{lineup.name}, round {number + 1}: {difference}" for difference in found]
            if not found:
                for turn in played:
                    turn.discard()
    ours = list(zip(lineup.variants, turns, strict=True))
    for variant, done in ours[:-1] if lineup.with_dcnum else ours:
        outcome.timings.append(make_timing(lineup, variant, done, turns[-1], bench))
    return outcome


def compare_turns(played: Sequence[Turn]) -> list[str]:
    """Compare all results with the last one, that of dcnum."""
    reference = played[-1].output
    return [difference for turn in played[:-1] for difference in differences(turn.output, reference)]


def make_timing(lineup: Lineup, variant: Variant, turns: list[Turn], reference: list[Turn], bench: Bench) -> Timing:
    """Return the numbers of a variant beside those of the reference."""
    spec = bench.scaled(variant.measurement).spec
    last = lineup.variants[-1]
    work = spec.frames / bench.scaled(last.measurement).spec.frames
    pairs = zip(turns, reference, strict=False)  # the reference may have had fewer turns
    return Timing(
        case=lineup.name,
        label=f"{lineup.what}: {variant.label}",
        frames=spec.frames,
        frame_size=spec.size,
        events_per_frame=turns[0].events / spec.frames,
        seconds=[turn.seconds for turn in turns],
        reference=last.label,
        reference_seconds=[turn.seconds for turn in reference],
        ratios=[work * other.seconds / ours.seconds for ours, other in pairs],
        ratio_target=bench.target(variant.ratio),
        seconds_target=bench.target(variant.seconds),
        output_bytes=turns[0].output_bytes,
        stages=median_stages(turns),
    )


def median_stages(turns: Sequence[Turn]) -> dict[str, float]:
    """Return the median seconds of each stage that every turn told."""
    common = [stage for stage in turns[0].stages if all(stage in turn.stages for turn in turns)]
    return {stage: statistics.median(turn.stages[stage] for turn in turns) for stage in common}


def count_events(output: pathlib.Path) -> int:
    """Return the number of events in a result."""
    with h5py.File(output, "r", locking=False) as h5:
        return int(h5.attrs["experiment:event count"])
