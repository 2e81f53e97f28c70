"""Segmentation with a trained model: dcnumd beside dcnum and beside the network alone, and what it costs at rest."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence

from benchmarks.bench import Bench, Figure, Outcome, tell
from benchmarks.cases import SHORT, STANDARD, Settings, Target, settings, warm_case
from benchmarks.daemon import Daemon
from benchmarks.lineup import run_lineup
from benchmarks.machine import card_name
from benchmarks.memory import PeakMemory, pss_bytes
from benchmarks.programs import HERE, ROOT, environment
from benchmarks.special import MEBIBYTE, Special, mebibytes
from dcnumd.errors import DcnumdError
from dcnumd.extras import lacking
from dcnumd.segm.segm_torch.model_file import read_model

TORCH = "torch"
"""Name of the case, which runs only if it is named: not everybody has torch."""
USUAL_MODEL = "unet-dcnum-test_g1_910c2"
SHARED_DATA = ROOT.parent / "shared" / "data"
BATCHES = {"cpu": 1, "cuda": 100}
"""Number of frames that the network alone gets at once on a device; on a processor, as from both programs."""


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """What is measured."""

    model: pathlib.Path
    image_shape: tuple[int, int]
    """Height and width of the input of the network [px]."""
    device: str
    """``cpu`` or ``cuda``."""

    @property
    def given(self) -> dict[str, str]:
        """Settings with the model, by the names of the config."""
        code = "torchmpo" if self.device == "cpu" else "torchsto"
        return {"pipeline.segmenter.code": code, "pipeline.segmenter.model_file": str(self.model)}


def chosen_subject(bench: Bench) -> Subject:
    """Return the model to measure with.

    Raises
    ------
    SystemExit
        There is no torch, or no model, or not one of version 1.
    """
    if missing := lacking("torch"):
        raise SystemExit(missing)
    path = bench.model or unpacked_model(bench.new_folder("model"))
    try:
        model = read_model(path)
    except DcnumdError as error:
        raise SystemExit(str(error)) from error
    if model.version != 1 or model.meta.image_shape is None:
        raise SystemExit(f"{path}: expected a model of version 1 that names the shape of its input")
    return Subject(path.resolve(), model.meta.image_shape, bench.device)


def unpacked_model(folder: pathlib.Path) -> pathlib.Path:
    """Unpack the usual model; return its path."""
    source = SHARED_DATA / f"segm-torch-model_{USUAL_MODEL}.zip"
    if not source.exists():
        raise SystemExit(f"{source} is missing; name a model: --model FILE")
    with zipfile.ZipFile(source) as archive:
        return pathlib.Path(archive.extract(f"{USUAL_MODEL}.dcnm", folder))


def measure_torch(bench: Bench) -> Outcome:
    """Compare with dcnum, with the network alone, and with a daemon without models."""
    subject = chosen_subject(bench)
    where = card_name() if subject.device == "cuda" else "processor"
    lineups = [
        warm_case(TORCH, f"model on the {where}", 900, STANDARD, 1.0, subject.given),
        warm_case(TORCH, f"model on the {where}, short", 150, SHORT, 3.0, subject.given),
    ]
    outcome = Outcome()
    for lineup in lineups:
        outcome.add(run_lineup(lineup, bench))
    outcome.figures += network_share(subject, bench) + at_rest(subject, bench)
    return outcome


def network_share(subject: Subject, bench: Bench) -> list[Figure]:
    """Hold a running daemon against the network alone, in turns."""
    path, frames = bench.path(STANDARD), bench.scaled(STANDARD).spec.frames
    warm, alone = [], []
    with Daemon(bench.new_folder(TORCH), settings(subject.given), bench.workers, bench.timeout) as daemon:
        daemon.run(path).output.unlink()
        with PeakMemory(daemon.process.pid) as memory:
            for number in range(bench.runs):
                job = daemon.run(path)
                warm.append(job.seconds("job.started"))
                job.output.unlink()
                alone.append(network_seconds(subject, frames, bench))
                tell(f"  round {number + 1}  daemon {warm[-1]:.3f} s, network alone {alone[-1]:.3f} s")
    shares = [one / other for one, other in zip(alone, warm, strict=True)]
    processes = bench.workers if subject.device == "cpu" else 1
    bound = bench.target(Target("at least", 0.9, ""))
    return [
        Figure(TORCH, f"network alone, {processes} processes, {frames:,} frames", alone, "s", 2),
        Figure(TORCH, f"running daemon, {frames:,} frames", warm, "s", 2),
        Figure(TORCH, "network alone / running daemon", shares, "", 2, bound),
        Figure(TORCH, "peak memory of the daemon with all processes", [memory.peak_bytes / MEBIBYTE], "MiB", 0),
    ]


def network_seconds(subject: Subject, frames: int, bench: Bench) -> float:
    """Return how long the network takes for frames, shared by as many processes as segment in the daemon [s]."""
    number = bench.workers if subject.device == "cpu" else 1
    numbers = [BATCHES[subject.device], -(-frames // number), *subject.image_shape]
    command = [sys.executable, str(HERE / "network_driver.py"), str(subject.model), subject.device, *map(str, numbers)]
    with contextlib.ExitStack() as stack:
        processes = []
        for _ in range(number):
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment()
            )
            processes.append(stack.enter_context(process))
            stack.callback(process.kill)
        wait_for_lines(processes)
        begin = time.perf_counter()
        for process in processes:
            assert process.stdin is not None
            print(file=process.stdin, flush=True)
        wait_for_lines(processes)
        return time.perf_counter() - begin


def wait_for_lines(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Wait until each of the processes has printed a line."""
    for process in processes:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise SystemExit("the network cannot be run alone")


def at_rest(subject: Subject, bench: Bench) -> list[Figure]:
    """Start daemons with and without a model, in turns."""
    kinds: dict[str, Settings] = {"without a model": settings(), "with a model": settings(subject.given)}
    ready: dict[str, list[float]] = {kind: [] for kind in kinds}
    supervisor: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(bench.runs):
        for kind, used in kinds.items():
            with Daemon(bench.new_folder("start"), used, bench.workers, bench.timeout) as daemon:
                ready[kind].append(daemon.ready_seconds)
                daemon.run(bench.path(SHORT))
                supervisor[kind].append(pss_bytes(daemon.process.pid) / MEBIBYTE)
    for kind, seconds in ready.items():
        tell(f"  {kind}: ready after {statistics.median(seconds):.2f} s")
    return [
        *(Figure(TORCH, f"start {kind}, to `daemon.ready`", values, "s", 2) for kind, values in ready.items()),
        *(
            Figure(TORCH, f"memory of the supervisor {kind}", values, "MiB", 0, bench.target(mebibytes(60)))
            for kind, values in supervisor.items()
        ),
    ]


def model_cases() -> list[Special]:
    """Return the case that runs only if it is named."""
    return [Special(TORCH, "segmentation with a trained model, which needs torch", 1500, measure_torch)]
