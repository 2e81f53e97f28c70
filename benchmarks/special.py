"""The cases that are no lineup: memory, start, idleness, and the distance to the limit."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable

from benchmarks.bench import Bench, Figure, Outcome, tell
from benchmarks.cases import LONG, SHORT, STANDARD, Settings, Target, settings
from benchmarks.daemon import Daemon, moment
from benchmarks.early import measure_early
from benchmarks.limit import Limit, measure_limit
from benchmarks.measurements import Measurement
from benchmarks.memory import PeakMemory, pss_bytes
from benchmarks.procfs import cpu_seconds, process_tree, wake_ups
from benchmarks.programs import DCNUMD, collect, dcnum_command, process_command, started_process, timed

MEBIBYTE = 2**20


@dataclasses.dataclass(frozen=True, slots=True)
class Special:
    """A case of its own kind."""

    name: str
    what: str
    seconds: float
    """Duration on two cores, about [s]."""
    measure: Callable[[Bench], Outcome]


def mebibytes(bound: float) -> Target:
    """Return the target of a memory size."""
    return Target("at most", bound, "MiB")


def measure_memory(bench: Bench) -> Outcome:
    """Sample the memory of all processes together (PSS), in daemons and programs of their own."""
    rounds = min(bench.runs, 3)
    peaks: dict[Measurement, list[float]] = {STANDARD: [], LONG: []}
    for _ in range(rounds):
        for measurement, values in peaks.items():
            values.append(daemon_peak(bench, measurement))
            tell(f"  daemon, {bench.scaled(measurement).spec.frames} frames: {values[-1]:.0f} MiB")
    rows = [
        Figure(
            "memory",
            f"peak, whole daemon, {bench.scaled(measurement).spec.frames:,} frames",
            values,
            "MiB",
            0,
            bench.target(mebibytes(600)),
        )
        for measurement, values in peaks.items()
    ]
    growth = [100 * abs(long / short - 1) for short, long in zip(peaks[STANDARD], peaks[LONG], strict=True)]
    bound = bench.target(Target("at most", 3, "%"))
    rows.append(Figure("memory", "difference between the two", growth, "%", 1, bound))
    frames = bench.scaled(STANDARD).spec.frames
    for label, make in (("`dcnumd process`", process_command), ("dcnum", dcnum_command)):
        folder = bench.new_folder("memory")
        command, _ = make(bench.path(STANDARD), folder, settings(), bench.workers)
        with started_process(command) as process, PeakMemory(process.pid) as memory:
            collect(process, bench.timeout)
        rows.append(Figure("memory", f"peak, {label}, {frames:,} frames", [memory.peak_bytes / MEBIBYTE], "MiB", 0))
    return Outcome(figures=rows)


def daemon_peak(bench: Bench, measurement: Measurement) -> float:
    """Return the most that a new daemon with all its processes takes for one measurement [MiB]."""
    path = bench.path(measurement)
    with (
        Daemon(bench.new_folder("memory"), settings(), bench.workers, bench.timeout) as daemon,
        PeakMemory(daemon.process.pid) as memory,
    ):
        daemon.run(path).output.unlink()
    return memory.peak_bytes / MEBIBYTE


def measure_start(bench: Bench) -> Outcome:
    """Start with nothing compiled, start again, and ask for the version."""
    path = bench.path(SHORT)
    first, first_result = [], []
    for _ in range(min(bench.runs, 2)):
        folder = bench.new_folder("start")
        extra = {"NUMBA_CACHE_DIR": str(folder / "compiled")}
        with Daemon(folder / "first", settings(), bench.workers, bench.timeout, extra) as daemon:
            first.append(daemon.ready_seconds)
            first_result.append(moment(daemon.run(path).finished) - daemon.started)
        tell(f"  first start: ready after {first[-1]:.2f} s, first result after {first_result[-1]:.2f} s")
    later, later_result = [], []
    for _ in range(bench.runs):
        with Daemon(bench.new_folder("start"), settings(), bench.workers, bench.timeout) as daemon:
            later.append(daemon.ready_seconds)
            later_result.append(moment(daemon.run(path).finished) - daemon.started)
        tell(f"  later start: ready after {later[-1]:.2f} s, first result after {later_result[-1]:.2f} s")
    version = [timed([*DCNUMD, "--version"], bench.timeout)[0] for _ in range(bench.runs)]
    python = [timed([sys.executable, "-c", ""], bench.timeout)[0] for _ in range(bench.runs)]
    short = f"{bench.scaled(SHORT).spec.frames:,} frames"
    rows = [
        ("first start ever, to `daemon.ready`", first, Target("at most", 15, "s")),
        (f"first start ever, to the first result ({short})", first_result, None),
        ("later start, to `daemon.ready`", later, Target("at most", 1.5, "s")),
        (f"later start, to the first result ({short})", later_result, None),
        ("`dcnumd --version`", version, Target("at most", 0.15, "s")),
        ("Python that does nothing", python, None),
    ]
    return Outcome(figures=[Figure("start", what, values, "s", 2, target) for what, values, target in rows])


def measure_idle(bench: Bench) -> Outcome:
    """Watch a daemon that has processed a measurement and has nothing to do."""
    path = bench.path(SHORT)
    with Daemon(bench.new_folder("idle"), settings(), bench.workers, bench.timeout) as daemon:
        daemon.run(path)
        time.sleep(2.0)  # what follows a job, such as the listing of the folder, is not idleness
        pids = process_tree(daemon.process.pid)
        cpu, woken, begin = cpu_seconds(pids), wake_ups(pids), time.perf_counter()
        time.sleep(bench.idle_seconds)
        seconds = time.perf_counter() - begin
        share = 100 * (cpu_seconds(pids) - cpu) / seconds
        per_minute = 60 * (wake_ups(pids) - woken) / seconds
        supervisor = pss_bytes(daemon.process.pid) / MEBIBYTE
        everything = sum(pss_bytes(pid) for pid in pids) / MEBIBYTE
    return Outcome(
        figures=[
            Figure("idle", "CPU, all processes", [share], "%", 3, Target("at most", 0.1, "%")),
            Figure("idle", "wake-ups per minute, all processes", [per_minute], "", 0),
            Figure("idle", "memory of the supervisor", [supervisor], "MiB", 0, mebibytes(60)),
            Figure("idle", f"memory of all {len(pids)} processes", [everything], "MiB", 0),
        ]
    )


def measure_distance(bench: Bench) -> Outcome:
    """Hold a running daemon against reading and packing alone, in turns."""
    path = bench.path(STANDARD)
    used: Settings = settings()
    warm: list[float] = []
    limits: list[Limit] = []
    with Daemon(bench.new_folder("limit"), used, bench.workers, bench.timeout) as daemon:
        kept = daemon.run(path).output
        for number in range(bench.runs):
            job = daemon.run(path)
            warm.append(job.seconds("job.started"))
            limits.append(measure_limit(path, kept, str(dict(used)["output.compression"]), bench.workers))
            job.output.unlink()
            tell(f"  round {number + 1}  daemon {warm[-1]:.3f} s, limit {limits[-1].seconds:.3f} s")
    ratios = [seconds / limit.seconds for seconds, limit in zip(warm, limits, strict=True)]
    frames = f"{bench.scaled(STANDARD).spec.frames:,} frames"
    bound = bench.target(Target("at most", 1.5, "x"))
    return Outcome(
        figures=[
            Figure(
                "limit",
                f"reading and packing alone, {bench.workers} processes, {frames}",
                [x.seconds for x in limits],
                "s",
                3,
            ),
            Figure("limit", "of it reading and unpacking, added up", [x.read_seconds for x in limits], "s", 3),
            Figure("limit", "of it packing, added up", [x.pack_seconds for x in limits], "s", 3),
            Figure("limit", "running daemon", warm, "s", 3),
            Figure("limit", "running daemon / limit", ratios, "x", 2, bound),
        ]
    )


def special_cases(bench_idle_seconds: float) -> list[Special]:
    """Return the cases; the idle one lasts as long as is asked for."""
    return [
        Special("memory", "peak memory of all processes together (PSS)", 150, measure_memory),
        Special("start", "first and later starts, and a small command", 90, measure_start),
        Special("idle", "what a daemon without work takes", bench_idle_seconds + 10, measure_idle),
        Special("limit", "distance to reading and packing alone", 60, measure_distance),
        Special("early", "copied measurements, from the end of their settle time to the result", 400, measure_early),
    ]
