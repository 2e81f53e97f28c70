"""Running dcnumd and dcnum in new processes."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Mapping

from benchmarks.cases import Settings

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent

THREAD_LIMITS = ("OMP", "MKL", "OPENBLAS", "NUMEXPR")
SINGLE_THREADED = {f"{library}_NUM_THREADS": "1" for library in THREAD_LIMITS}
"""Parallel libraries inside parallel workers only slow both programs down."""

DCNUMD = (sys.executable, "-m", "dcnumd")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of all programs, which read their compiled modules as an installed program does."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**inherited, **SINGLE_THREADED, **(extra or {})}


def write_config(path: pathlib.Path, settings: Mapping[str, object]) -> pathlib.Path:
    """Write a config file.

    Parameters
    ----------
    path
        The file.
    settings
        Keys with dots, and their values.
    """
    # what JSON writes for texts, numbers, truth values and lists is TOML, too
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def process_command(
    measurement: pathlib.Path, folder: pathlib.Path, settings: Settings, workers: int
) -> tuple[list[str], pathlib.Path]:
    """Return the command that has dcnumd process a measurement, and where the result will be.

    Parameters
    ----------
    measurement
        The input.
    folder
        A folder for the result.
    settings
        Of the job.
    workers
        Worker processes, unless the settings say it.
    """
    config = write_config(
        folder / "config.toml", {"resources.num_workers": workers, "resources.nice": 0, **dict(settings)}
    )
    command = [*DCNUMD, "process", str(measurement), "-o", str(folder), "--no-report", "--json", "-c", str(config)]
    return command, folder / f"{measurement.stem}_dcn.rtdc"


def dcnum_command(
    measurement: pathlib.Path, folder: pathlib.Path, settings: Settings, workers: int
) -> tuple[list[str], pathlib.Path]:
    """Return the same for dcnum."""
    values = dict(settings)
    output = folder / f"{measurement.stem}_dcnum.rtdc"
    job: dict[str, object] = {
        "path_in": str(measurement),
        "path_out": str(output),
        "background_code": values["pipeline.background.code"],
        "basin_strategy": values["output.basin_strategy"],
        "compression": values["output.compression"],
        "num_procs": workers,
    }
    if "pipeline.segmenter.code" in values:
        job["segmenter_code"] = values["pipeline.segmenter.code"]
        job["segmenter_kwargs"] = {"model_file": values["pipeline.segmenter.model_file"]}
    return [sys.executable, str(HERE / "dcnum_driver.py"), json.dumps(job)], output


def started_process(command: list[str], extra: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start a program in a process group of its own."""
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(extra),
        start_new_session=True,
    )


def collect(process: subprocess.Popen[str], timeout: float) -> str:
    """Wait for a program and return what it printed; end it with all its workers when it takes too long."""
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise SystemExit(f"{process.args!r} took longer than {timeout:.0f} s") from None
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    if process.returncode:
        raise SystemExit(f"{process.args!r} ended with {process.returncode}:\n{stderr[-3000:]}")
    return stdout


def timed(command: list[str], timeout: float) -> tuple[float, str]:
    """Run a program in a new process; return its duration [s] and what it printed."""
    started = time.perf_counter()
    with started_process(command) as process:
        stdout = collect(process, timeout)
    return time.perf_counter() - started, stdout
