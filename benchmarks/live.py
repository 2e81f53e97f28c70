"""Recordings that are processed while they grow: how soon events are shown, and how soon the result is there."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.bench import Bench, Figure, Outcome, tell
from benchmarks.cases import Target, settings, within
from benchmarks.daemon import Daemon, moment
from benchmarks.memory import PeakMemory
from benchmarks.procfs import cpu_seconds, process_tree
from benchmarks.programs import DCNUMD, collect, started_process
from benchmarks.special import MEBIBYTE, Special, mebibytes

LIVE = "live"
RATE = 3450.0
"""Frame rate of the camera [Hz]; frames have 80 x 320 pixels and 0.65 events each."""
FLUSH_SECONDS = 0.5
SETTLE_SECONDS = 5.0
LENGTHS = (10.0, 60.0, 300.0)
"""Durations of the recordings [s]."""
ASK_SECONDS = 0.1
"""Time between two requests for the state of the recording [s]."""
SHARE = 0.05
"""Largest time from the last frame to the result, relative to the duration of the recording."""


@dataclasses.dataclass(frozen=True, slots=True)
class Recorded:
    """What one recording took."""

    seconds: float
    """From the last frame to the result, without the settle time [s]."""
    delays: list[float]
    """From each flush to its events in the state of the daemon [s]."""
    again: float
    """Frames that were processed again while the recording grew or at its end, in percent of all frames."""
    known: float
    """Frames whose events were known at the end, in percent of all frames."""
    memory: float
    """Peak of all processes of the daemon [MiB]."""
    flushes: list[float]
    """Duration of each flush of the recorder [s]."""
    late: float
    """Largest delay with which the recorder appended frames [s]."""
    recorder_cpu: float
    """Processor time of the recorder per second of recording [s]."""


def measure_live(bench: Bench, lengths: Sequence[float]) -> Outcome:
    """Record in real time, with a daemon that processes meanwhile, and with one that does not."""
    figures: list[Figure] = []
    for seconds in lengths:
        with_live, without = [], []
        for number in range(min(bench.runs, 3)):
            # who is first changes, so that a computer that becomes slower favours neither
            for live in (True, False) if number % 2 else (False, True):
                (with_live if live else without).append(record(bench, seconds, number, live=live))
            one = with_live[-1]
            tell(f"  {seconds:g} s: result after {one.seconds:.2f} s, {one.known:.0f} % known, {one.memory:.0f} MiB")
        figures += describe(seconds, with_live, without)
    return Outcome(figures=figures)


def describe(seconds: float, with_live: Sequence[Recorded], without: Sequence[Recorded]) -> Iterator[Figure]:
    """Return the figures of recordings of one duration."""
    what = f"{seconds:g} s recording"
    bound = within(1.0 if seconds <= 10 else SHARE * seconds)
    yield Figure(LIVE, f"from the last frame to the result, {what}", [one.seconds for one in with_live], "s", 2, bound)
    yield Figure(LIVE, f"the same, not processed live, {what}", [one.seconds for one in without], "s", 2)
    delays = [statistics.median(one.delays) for one in with_live if one.delays]
    yield Figure(LIVE, f"from a flush to its events, {what}", delays, "s", 2, within(2.0))
    slowest = [max(one.delays) for one in with_live if one.delays]
    yield Figure(LIVE, f"the same, slowest flush, {what}", slowest, "s", 2)
    again = [one.again for one in with_live]
    yield Figure(LIVE, f"frames processed again, {what}", again, "%", 1, Target("at most", 25, "%"))
    yield Figure(LIVE, f"memory of all processes, {what}", [one.memory for one in with_live], "MiB", 0, mebibytes(700))
    for name, share, most in (("median", 50, 1.1), ("99th percentile", 99, 1.25)):
        ratios = [
            float(np.percentile(one.flushes, share) / np.percentile(other.flushes, share))
            for one, other in zip(with_live, without, strict=True)
        ]
        bound = Target("at most", most, "")
        yield Figure(LIVE, f"{name} of flushes, live / not, {what}", ratios, "x", 2, bound)
    yield Figure(LIVE, f"recorder's largest delay, {what}", [one.late for one in with_live], "s", 3)
    yield Figure(LIVE, f"recorder's CPU per second, {what}", [one.recorder_cpu for one in with_live], "s", 2)


def record(bench: Bench, seconds: float, number: int, *, live: bool) -> Recorded:
    """Have a new daemon watch one recording."""
    folder = bench.new_folder(LIVE)
    chosen = {
        "live.enabled": live,
        "output.basin_strategy": "tap",
        "watch.settle_seconds": SETTLE_SECONDS,
        "web.listen": "127.0.0.1:0",
    }
    with (
        Daemon(folder, settings(chosen), bench.workers, bench.timeout) as daemon,
        PeakMemory(daemon.process.pid) as memory,
    ):
        if live:
            daemon.wait_for("worker.started", role="live")
        address = daemon.wait_for("web.started")["address"]
        frames = round(seconds * RATE)
        command = [*DCNUMD, "simulate", os.fspath(daemon.watched), "--swmr", "--flush", str(FLUSH_SECONDS)]
        options = ["--frames", str(frames), "--rate", str(RATE), "--seed", str(number), "--json"]
        with started_process([*command, *options]) as recorder:
            with watched(address, daemon.watched) as (begun, shown), recorder_cpu(recorder) as cpu:
                output = collect(recorder, bench.timeout)
            told = json.loads(output)
            path = pathlib.Path(told["path"])
            closed = path.stat().st_mtime
            result = daemon.wait_for("job.finished", path=os.fspath(path))
            end = daemon.wait_for("live.finished", path=os.fspath(path)) if live else {}
    known = end.get("frames_known", 0)
    again = end.get("frames_again", 0) + (frames - known if live else 0)
    pathlib.Path(result["output"]).unlink()
    path.unlink()
    return Recorded(
        seconds=moment(result) - closed - SETTLE_SECONDS,
        delays=list(delays(shown, begun[0], seconds)),
        again=100 * again / frames,
        known=100 * known / frames,
        memory=memory.peak_bytes / MEBIBYTE,
        flushes=told["flush_seconds"],
        late=told["late_seconds"],
        recorder_cpu=cpu[-1] / seconds,
    )


def delays(shown: Sequence[tuple[float, float]], begin: float, seconds: float) -> Iterator[float]:
    """Yield the time from each flush to the moment at which its last frames but a tenth of a second were shown [s].

    Parameters
    ----------
    shown
        Times, and the recording time up to which frames were shown then [s].
    begin
        Time at which the recording began [s].
    seconds
        Its duration [s].
    """
    for number in itertools.count(1):
        flushed = number * FLUSH_SECONDS
        if flushed >= seconds:
            return
        seen = [when for when, upto in shown if upto >= flushed - 0.1]
        if seen:
            yield max(seen[0] - begin - flushed, 0.0)


@contextlib.contextmanager
def watched(address: str, folder: pathlib.Path) -> Iterator[tuple[list[float], list[tuple[float, float]]]]:
    """Ask a daemon again and again in this context up to which recording time it shows frames.

    Also note when the recording has begun.
    """
    begun: list[float] = []
    shown: list[tuple[float, float]] = []
    over = threading.Event()

    def ask() -> None:
        while not over.wait(ASK_SECONDS):
            if not begun and any(folder.iterdir()):
                begun.append(time.time())
            with contextlib.suppress(OSError):
                shown.extend(shown_now(address))

    thread = threading.Thread(target=ask, name="page")
    thread.start()
    try:
        yield begun, shown
    finally:
        over.set()
        thread.join()


def shown_now(address: str) -> list[tuple[float, float]]:
    """Return the present time, and up to which recording time frames of the recording are shown [s]."""
    with urllib.request.urlopen(f"http://{address}/api/v1/status", timeout=5) as answer:
        recordings = json.load(answer)["recording"]
    states = [recording["live"] for recording in recordings if recording.get("live")]
    return [(time.time(), live["seconds"] - live["lag_seconds"]) for live in states]


@contextlib.contextmanager
def recorder_cpu(recorder: subprocess.Popen[str]) -> Iterator[list[float]]:
    """Sample the processor time of the recorder in this context [s]."""
    taken = [0.0]
    over = threading.Event()

    def sample() -> None:
        while not over.wait(ASK_SECONDS):
            if now := cpu_seconds(process_tree(recorder.pid)):
                taken.append(now)

    thread = threading.Thread(target=sample, name="recorder-cpu")
    thread.start()
    try:
        yield taken
    finally:
        over.set()
        thread.join()


def live_case(lengths: Sequence[float]) -> Special:
    """Return the case."""
    what = "recordings that are processed while they grow, beside ones that are not"
    seconds = 6 * sum(length + 30 for length in lengths)
    return Special(LIVE, what, seconds, lambda bench: measure_live(bench, lengths))
