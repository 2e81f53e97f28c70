"""Runs dcnumd and dcnum in alternation on the same simulated measurement, and compares results and cost."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import h5py

from benchmarks.compare import differences
from benchmarks.memory import PeakMemory
from benchmarks.report import Results, fill_section, markdown
from dcnumd.simulate.measurement import MeasurementSpec, write_measurement

HERE = pathlib.Path(__file__).parent

THREAD_LIMITS = ("OMP", "MKL", "OPENBLAS", "NUMEXPR")
SINGLE_THREADED = {f"{library}_NUM_THREADS": "1" for library in THREAD_LIMITS}
"""Parallel libraries inside parallel workers only slow both programs down."""

STAGE_LINE = re.compile(r"\b([A-Z][a-z]+(?: [a-z]+)*) time: ([\d.]+)s")
"""How dcnum's log tells the seconds of a stage."""

Command = Callable[[pathlib.Path], list[str]]
"""Returns the command that writes a result to a path."""


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog="Exit code 1 if the results differ.",
    )
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--size", default="80x320", help="height x width [px]")
    parser.add_argument("--density", type=float, default=0.9, help="cells in a frame; 0.9 gives 0.7 events at 80x320")
    parser.add_argument("--flicker", type=float, default=0.0, help="[grey levels]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--compression", default="zstd-5", help="of the input")
    parser.add_argument("--output-compression", default="zstd-5")
    parser.add_argument("--runs", type=int, default=5, help="timed pairs")
    parser.add_argument("--warm-runs", type=int, default=6, help="runs in one process; the first is not counted")
    parser.add_argument("--strategy", choices=("drain", "tap"), default="drain")
    parser.add_argument("--background", choices=("sparsemed", "rollmed"), default="sparsemed")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="worker processes of both")
    parser.add_argument("--timeout", type=float, default=900.0, help="of one run [s]")
    parser.add_argument("--only", choices=("dcnumd", "dcnum"), help="run one program only, compare nothing")
    parser.add_argument("--keep", type=pathlib.Path, metavar="DIR", help="work in DIR, a new folder; keep what differs")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the raw numbers")
    parser.add_argument("--readme", type=pathlib.Path, metavar="FILE", help="put the table into this README")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    options = parse_arguments(arguments)
    with work_folder(options.keep) as folder:
        measurement = folder / "M001_data.rtdc"
        height, width = (int(part) for part in options.size.split("x"))
        spec = MeasurementSpec(
            size=(height, width),
            frames=options.frames,
            density=options.density,
            flicker=options.flicker,
            compression=options.compression,
            seed=options.seed,
        )
        tell(f"simulating {options.frames} frames of {options.size}")
        write_measurement(measurement, spec)
        if options.only:
            run_one_program(options, measurement, folder)
            return 0
        results = measure(options, measurement, folder)
    report = markdown(results)
    print(report)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if options.readme:
        options.readme.write_text(fill_section(options.readme.read_text(encoding="utf-8"), report), encoding="utf-8")
    for difference in results["differences"]:
        tell(f"different: {difference}")
    return 1 if results["differences"] else 0


@contextlib.contextmanager
def work_folder(keep: pathlib.Path | None) -> Iterator[pathlib.Path]:
    """Give a new folder that stays, or a temporary one."""
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="dcnumd-benchmark-") as name:
        yield pathlib.Path(name).resolve()


def measure(options: argparse.Namespace, measurement: pathlib.Path, folder: pathlib.Path) -> Results:
    """Run everything: a pair that warms caches, the timed pairs, a pair for memory, and the warm process."""
    machine = describe_machine()
    commands = program_commands(options, measurement)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    found: list[str] = []
    events = 0
    for number in range(options.runs + 1):
        outputs = {name: output_path(folder, f"{name}_{number}") for name in commands}
        for name, command in commands.items():
            measured = timed_run(command(outputs[name]), outputs[name], options)
            tell(f"{'warm-up' if number == 0 else f'run {number}'}  {name:7} {measured['seconds']:7.2f} s")
            if number:
                runs[name].append(measured)
        unequal = differences(outputs["dcnumd"], outputs["dcnum"])
        found += [f"run {number}, {difference}" for difference in unequal]
        events = count_events(outputs["dcnum"])
        if not unequal:
            for output in outputs.values():
                output.unlink()
    memory = {name: memory_run(commands[name](output_path(folder, f"{name}_memory")), options) for name in commands}
    return {
        "options": {
            key: value for key, value in vars(options).items() if key not in ("json", "keep", "only", "readme")
        },
        "machine": machine,
        "events_per_frame": events / options.frames,
        "runs": runs,
        "memory": memory,
        "warm": warm_runs(options, measurement, folder) if options.warm_runs else [],
        "differences": found,
    }


def run_one_program(options: argparse.Namespace, measurement: pathlib.Path, folder: pathlib.Path) -> None:
    """Time one program alone."""
    command = program_commands(options, measurement)[options.only]
    for number in range(options.runs):
        output = output_path(folder, f"run_{number}")
        measured = timed_run(command(output), output, options)
        stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in measured["stages"].items())
        tell(f"run {number + 1}  {measured['seconds']:.2f} s, {measured['frames_per_second']:.0f} frames/s; {stages}")
    memory = memory_run(command(output_path(folder, "memory")), options)
    tell(f"peak memory {memory['peak_bytes'] / 2**20:.0f} MiB in {memory['processes']} processes")


def program_commands(options: argparse.Namespace, measurement: pathlib.Path) -> dict[str, Command]:
    """Return how each program is started, in the order of alternation."""

    def dcnumd(output: pathlib.Path) -> list[str]:
        settings = {
            "output.basin_strategy": options.strategy,
            "output.compression": options.output_compression,
            "pipeline.background.code": options.background,
            "resources.num_workers": options.workers,
            "resources.nice": 0,
        }
        overrides = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        return [
            sys.executable,
            "-m",
            "dcnumd",
            "process",
            str(measurement),
            "-o",
            str(output.parent),
            "--json",
            *overrides,
        ]

    def dcnum(output: pathlib.Path) -> list[str]:
        job = {
            "path_in": str(measurement),
            "path_out": str(output),
            "background_code": options.background,
            "basin_strategy": options.strategy,
            "compression": options.output_compression,
            "num_procs": options.workers,
        }
        return [sys.executable, str(HERE / "dcnum_driver.py"), json.dumps(job)]

    return {"dcnumd": dcnumd, "dcnum": dcnum}


def output_path(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Return where a run writes: a folder of its own, the file named as dcnumd names results."""
    (folder / name).mkdir()
    return folder / name / "M001_data_dcn.rtdc"


def timed_run(command: list[str], output: pathlib.Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run a program in a new process; return wall and CPU seconds, frames per second and seconds per stage."""
    cpu_before = children_cpu_seconds()
    started = time.perf_counter()
    stdout = finished_output(command, options.timeout)
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "cpu_seconds": children_cpu_seconds() - cpu_before,
        "frames_per_second": options.frames / seconds,
        "stages": told_stages(stdout) or logged_stages(output),
    }


def started_process(command: list[str]) -> subprocess.Popen[str]:
    """Start a program in a process group of its own."""
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | SINGLE_THREADED,
        start_new_session=True,
    )


def collect(process: subprocess.Popen[str], timeout: float) -> str:
    """Wait for a program and return what it printed; end it with all its workers when it takes too long."""
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise SystemExit(f"{process.args!r} took longer than {timeout:.0f} s") from None
    if process.returncode:
        raise SystemExit(f"{process.args!r} ended with {process.returncode}:\n{stderr[-3000:]}")
    return stdout


def finished_output(command: list[str], timeout: float) -> str:
    """Run a program to its end and return what it printed."""
    with started_process(command) as process:
        return collect(process, timeout)


def memory_run(command: list[str], options: argparse.Namespace) -> dict[str, int]:
    """Run a program once more, untimed, and sample its memory; sampling would disturb the clock."""
    with started_process(command) as process, PeakMemory(process.pid) as memory:
        collect(process, options.timeout)
    return {"peak_bytes": memory.peak_bytes, "processes": memory.peak_processes}


def warm_runs(options: argparse.Namespace, measurement: pathlib.Path, folder: pathlib.Path) -> list[dict[str, Any]]:
    """Process the measurement several times in one process, as in a running daemon."""
    job = {
        "path_in": str(measurement),
        "path_out": str(output_path(folder, "warm")),
        "background_code": options.background,
        "basin_strategy": options.strategy,
        "compression": options.output_compression,
        "num_workers": options.workers,
    }
    command = [sys.executable, str(HERE / "warm_driver.py"), str(options.warm_runs), json.dumps(job)]
    measured: list[dict[str, Any]] = json.loads(finished_output(command, options.timeout))
    for number, result in enumerate(measured):
        tell(f"warm {number}  dcnumd  {result['seconds']:7.2f} s")
    return measured


def children_cpu_seconds() -> float:
    """Return the CPU time of all processes that have ended below this one."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def told_stages(stdout: str) -> dict[str, float]:
    """Return the seconds of each stage from what ``dcnumd process --json`` printed."""
    try:
        told = json.loads(stdout)
    except ValueError:
        return {}
    (result,) = told if isinstance(told, list) else [told]
    return dict(result.get("stages", {}))


def logged_stages(output: pathlib.Path) -> dict[str, float]:
    """Return the seconds of each stage from the log that dcnum stores in its result."""
    with h5py.File(output, "r", locking=False) as h5:
        lines = [line.decode() for name in h5["logs"] if name.startswith("dcnum-log") for line in h5["logs"][name][:]]
    return {match[1].lower(): float(match[2]) for line in lines for match in STAGE_LINE.finditer(line)}


def count_events(output: pathlib.Path) -> int:
    """Return the number of events in a result."""
    with h5py.File(output, "r", locking=False) as h5:
        return int(h5.attrs["experiment:event count"])


def describe_machine() -> dict[str, Any]:
    """Return what decides how the numbers compare with others."""
    processor = re.search(r"model name\s*:\s*(.+)", pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return {
        "processor": processor[1] if processor else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        **{
            name: importlib.metadata.version(name)
            for name in ("dcnumd", "dcnum", "numpy", "numba", "h5py", "hdf5plugin")
        },
    }


def tell(text: str) -> None:
    """Report progress; the results alone go to stdout."""
    print(text, file=sys.stderr, flush=True)
