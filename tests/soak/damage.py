"""Sends damaged measurements through the daemon's look and the pipeline; each must end with a reason or a result.

Example: ``python -m tests.soak.damage --count 2000 --compare 40``
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import queue
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence

from tests.soak.damage_files import Material, damage_material, write_layouts

HANG_SECONDS = 60.0
START_SECONDS = 120.0
"""The first measurement of a process compiles kernels, if their cache is empty."""
MEMORY_MB = 1500
"""More than that, in any process, is no small measurement any more."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one damaged measurement.

    Attributes
    ----------
    end
        ``result``, ``waits`` (the look says that it is not complete), ``reason``, ``unforeseen``, ``crash``, ``hang``.
    detail
        The verdict, the reason, the exception or the signal.
    message
        What the operator reads.
    peak_mb
        Most memory that a process had in use.
    """

    number: int
    layout: str
    damage: str
    end: str
    detail: str
    message: str
    seconds: float
    peak_mb: float

    @property
    def fault(self) -> str | None:
        """What is wrong with it, if anything is."""
        if self.end in {"unforeseen", "hang"}:
            return self.end
        if self.peak_mb > MEMORY_MB:
            return f"{self.peak_mb:.0f} MB of memory"
        if self.end == "reason" and (not self.message.isprintable() or self.detail in {"", "error"}):
            return "not a message for an operator"
        return None


# -- the process that works on them ---------------------------------------------------------------


def serve() -> None:
    """Work on the measurements that are named on stdin, line by line, and answer on stdout."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        _reset_peaks()
        started = time.monotonic()
        end, detail, message = _work_on(pathlib.Path(request["path"]))
        seconds, peak = time.monotonic() - started, _peak_mb()
        answers.write(json.dumps([end, detail, message, seconds, peak]) + "\n")
        answers.flush()


def _work_on(path: pathlib.Path) -> tuple[str, str, str]:
    from dcnumd.daemon.measurements.probe import inspect_file  # noqa: PLC0415 -- only the process that works needs it
    from dcnumd.errors import DcnumdError  # noqa: PLC0415
    from dcnumd.logic.job import Job  # noqa: PLC0415
    from dcnumd.logic.process import process_measurement  # noqa: PLC0415

    output = path.with_name(f"{path.stem}_dcn.rtdc")
    job = Job(
        path,
        output,
        basin_strategy="drain",
        existing="replace",
        num_workers=1,
        trusted_folders=(path.parent,),
        trust_basins=False,
    )
    try:
        found = inspect_file(job)
        if found.verdict != "complete":
            return "waits", found.verdict, ""
        result = process_measurement(job)
    except DcnumdError as error:
        return "reason", error.reason, str(error)
    except BaseException as error:  # noqa: BLE001 -- this is what is looked for
        return "unforeseen", type(error).__name__, traceback.format_exc()
    return "result", result.outcome, f"{result.frames} frames, {result.events} events"


def _worker_pids() -> tuple[int, ...]:
    process = sys.modules.get("dcnumd.logic.process")
    pipeline = process.engine._pipeline if process else None
    return pipeline.worker_pids if pipeline else ()


def _reset_peaks() -> None:
    for pid in (os.getpid(), *_worker_pids()):
        with contextlib.suppress(OSError):
            pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")


def _peak_mb() -> float:
    peaks = [0]
    for pid in (os.getpid(), *_worker_pids()):
        with contextlib.suppress(OSError):
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
            peaks += [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")]
    return max(peaks) / 1024


# -- the process that gives them out --------------------------------------------------------------


class Subject:
    """The process under test; when it crashes or hangs, another one takes its place."""

    def __init__(self, log: pathlib.Path) -> None:
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str] = queue.Queue()
        self._fresh = True

    def work_on(self, path: pathlib.Path) -> tuple[str, str, str, float, float]:
        """Return end, detail, message, seconds and the peak of memory [MB]."""
        process = self._start()
        assert process.stdin is not None
        started = time.monotonic()
        print(json.dumps({"path": str(path)}), file=process.stdin, flush=True)
        try:
            answer = self._answers.get(timeout=START_SECONDS if self._fresh else HANG_SECONDS)
        except queue.Empty:
            self.close()
            return "hang", "", "", time.monotonic() - started, 0.0
        if not answer:
            number = -(process.wait() or 0)
            self.close()
            name = signal.Signals(number).name if number > 0 else f"exit code {-number}"
            return "crash", name, "", time.monotonic() - started, 0.0
        self._fresh = False
        end, detail, message, seconds, peak = json.loads(answer)
        return end, detail, message, seconds, peak

    def close(self) -> None:
        """End the process with all its workers."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._reader.join()
            for stream in (self._process.stdin, self._process.stdout):
                # what it did not read any more is of no interest
                with contextlib.suppress(BrokenPipeError):
                    if stream is not None:
                        stream.close()
            self._process = None

    def _start(self) -> subprocess.Popen[str]:
        if self._process is None:
            with self._log.open("a") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "tests.soak.damage", "--serve"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    start_new_session=True,
                    preexec_fn=_no_core,  # noqa: PLW1509 -- there are no threads that matter before it
                )
            self._answers, self._fresh = queue.Queue(), True
            self._reader = threading.Thread(target=_listen, args=(self._process, self._answers), daemon=True)
            self._reader.start()
        return self._process


def _no_core() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _listen(process: subprocess.Popen[str], answers: queue.Queue[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        answers.put(line)
    answers.put("")


def run(folder: pathlib.Path, numbers: Sequence[int], seed: int = 0) -> Iterator[tuple[Outcome, pathlib.Path]]:
    """Damage measurements and yield what became of each, and the file.

    Parameters
    ----------
    folder
        Where everything goes; the files stay until the next one is made.
    numbers
        Which damages of the seed's endless row.
    seed
        The same seed makes the same files.
    """
    sound = folder / "sound"
    sound.mkdir(exist_ok=True)
    materials = [Material.of(path) for path in write_layouts(sound)]
    subject = Subject(folder / "stderr.log")
    with contextlib.closing(subject):
        for number in numbers:
            material = materials[number // 3 % len(materials)]
            damage, content = damage_material(material, number, seed)
            place = folder / f"{number:05d}"
            place.mkdir()
            path = place / "damaged.rtdc"
            path.write_bytes(content)
            yield Outcome(number, material.name, damage, *subject.work_on(path)), path
            shutil.rmtree(place)


def compare_with_dcnum(path: pathlib.Path, oracle: object) -> str:
    """Return what dcnum makes of a measurement that was processed: ``equal``, or what differs."""
    from benchmarks.compare import differences  # noqa: PLC0415 -- dcnum is needed for this only
    from tests.support.oracle import DcnumError  # noqa: PLC0415

    ours, theirs = path.with_name("damaged_dcn.rtdc"), path.with_name("dcnum.rtdc")
    try:
        oracle.process(path, theirs, basin_strategy="drain")  # type: ignore[attr-defined]
    except DcnumError as error:
        return f"dcnum cannot process it: {str(error).strip().splitlines()[-1]}"
    return "; ".join(map(str, differences(ours, theirs)))[:300] or "equal"


def main() -> int:
    """Run from the command line; return 1 if a fault was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="number of damaged measurements")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compare", type=int, default=0, help="how many of the results to hold against dcnum's")
    parser.add_argument("--keep", type=pathlib.Path, help="where to keep files that show a fault or a crash")
    parser.add_argument("--json", type=pathlib.Path, help="where to write all outcomes, a line for each")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return _report(options, pathlib.Path(folder))


def _report(options: argparse.Namespace, folder: pathlib.Path) -> int:
    from tests.support.oracle import Oracle  # noqa: PLC0415 -- dcnum is needed for comparisons only

    ends: collections.Counter[str] = collections.Counter()
    comparisons: collections.Counter[str] = collections.Counter()
    slowest, largest, faults = 0.0, 0.0, 0
    numbers = range(options.first, options.first + options.count)
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(options.json.open("w")) if options.json else None
        oracle = stack.enter_context(contextlib.closing(Oracle(folder)))
        for outcome, path in run(folder, numbers, options.seed):
            ends[f"{outcome.end} {outcome.detail}"] += 1
            slowest, largest = max(slowest, outcome.seconds), max(largest, outcome.peak_mb)
            if log:
                print(json.dumps(dataclasses.asdict(outcome)), file=log, flush=True)
            if outcome.fault:
                faults += 1
                last = outcome.message.strip().splitlines()[-1:]
                _tell(f"{outcome.fault}: {outcome.number} {outcome.layout} {outcome.damage} {outcome.detail} {last}")
            if options.keep and (outcome.fault or outcome.end == "crash"):
                options.keep.mkdir(exist_ok=True)
                shutil.copy(path, options.keep / f"{outcome.number:05d}-{outcome.end}-{outcome.layout}.rtdc")
            if outcome.end == "result" and comparisons.total() < options.compare:
                verdict = compare_with_dcnum(path, oracle)
                comparisons[verdict] += 1
                if verdict != "equal":
                    _tell(f"{outcome.number} {outcome.layout} {outcome.damage}: {verdict}")
    _tell(*(f"{count:6d}  {name}" for name, count in (ends.most_common() + comparisons.most_common())))
    _tell(f"slowest {slowest:.1f} s, most memory in a process {largest:.0f} MB, {faults} faults")
    return 1 if faults else 0


def _tell(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
