"""dcnumd held against dcnum, against itself, and against what the machine can do, on simulated measurements."""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.bench import Bench, Outcome, lineup_seconds, tell
from benchmarks.cases import SHORT, Lineup, comparisons, lineups, settings, usable_cores
from benchmarks.cluster import CLUSTER, ClusterOptions, cluster_case
from benchmarks.guard import run_guard
from benchmarks.lineup import run_lineup
from benchmarks.live import LENGTHS, LIVE, live_case
from benchmarks.machine import describe_machine
from benchmarks.models import TORCH, model_cases
from benchmarks.programs import dcnum_command, process_command, timed
from benchmarks.report import as_json, fill_section, markdown
from benchmarks.reports import report_cases
from benchmarks.special import Special, special_cases
from benchmarks.timeline import write_timeline

Case = Lineup | Special
NAMED = (TORCH, CLUSTER, LIVE)
"""Cases that run only if they are named, because they need more than dcnumd, or much time."""
GUARD = "guard"
GUARD_TEXT = "quick check without dcnum for noisy machines: ratios and counts only; exit code 1 if one is exceeded"


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog="Exit code 1 if results differ from those of dcnum; the report lists missed targets.",
    )
    parser.add_argument(
        "cases", nargs="*", metavar="CASE", help=f"see --list; all but {', '.join(NAMED)} and {GUARD} if none is given"
    )
    parser.add_argument("--list", action="store_true", help="tell the cases and how long they take, and exit")
    parser.add_argument("--runs", type=int, default=5, help="repetitions")
    parser.add_argument("--frames", type=int, default=10_000, help="in place of 10,000; others follow in proportion")
    parser.add_argument("--workers", type=int, default=usable_cores(), help="worker processes of both programs")
    parser.add_argument("--workers-up-to", type=int, default=0, help="in the case scaling; 0: as --workers")
    parser.add_argument("--idle-seconds", type=float, default=120.0, help="in the case idle")
    parser.add_argument("--model", type=pathlib.Path, metavar="FILE", help="in the case torch; version 1 (.dcnm)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="in the case torch")
    usual = ClusterOptions()
    parser.add_argument("--simulated", type=int, default=0, help="in the case cluster: workers that only wait")
    parser.add_argument("--jobs", type=int, default=usual.jobs, help="in the case cluster, of those workers")
    parser.add_argument(
        "--files",
        type=int,
        nargs=2,
        default=(usual.long_files, usual.short_files),
        metavar=("LONG", "SHORT"),
        help="in the case cluster: measurements of 10,000 and of 1,000 frames",
    )
    parser.add_argument(
        "--seconds", type=float, nargs="+", default=LENGTHS, help="in the case live: durations of the recordings"
    )
    parser.add_argument("--cold", action="store_true", help="try out without warming up: durations mean little")
    parser.add_argument("--timeout", type=float, default=900.0, help="of one run [s]")
    parser.add_argument("--keep", type=pathlib.Path, metavar="DIR", help="work in DIR, a new folder; keep what differs")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write all numbers")
    parser.add_argument(
        "--page", type=pathlib.Path, metavar="FILE", help="put the tables into this page, as docs/performance.md"
    )
    parser.add_argument("--profile", type=pathlib.Path, metavar="FILE", help="only draw when who does what, as SVG")
    options = parser.parse_args(arguments)
    names = [case.name for case in all_cases(options)]
    for name in options.cases:
        if name not in (*names, GUARD):
            parser.error(f"unknown case {name!r}; there are {', '.join(names)} and {GUARD}")
    if GUARD in options.cases and len(options.cases) > 1:
        parser.error(f"{GUARD} stands alone")
    if options.runs < 1 or options.frames < 1 or options.workers < 1:
        parser.error("--runs, --frames and --workers: expected 1 or more")
    return options


def all_cases(options: argparse.Namespace) -> list[Case]:
    """Return all cases in the order in which they run."""
    up_to = options.workers_up_to or options.workers
    clustered = ClusterOptions(*options.files, simulated=options.simulated, jobs=options.jobs)
    compared = [*comparisons(), *lineups(options.workers, up_to)]
    named = [*model_cases(), cluster_case(clustered), live_case(options.seconds)]
    return [*compared, *special_cases(options.idle_seconds), *report_cases(), *named]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; return the exit code."""
    options = parse_arguments(arguments)
    chosen = options.cases or [case.name for case in all_cases(options) if options.list or case.name not in NAMED]
    cases = [case for case in all_cases(options) if case.name in chosen]
    if options.list:
        for case in cases:
            print(f"{case.name:12} about {case.seconds / 60:4.1f} min  {case.what}")
        print(f"{GUARD:12} about  1.0 min  {GUARD_TEXT}")
        return 0
    # so that daemons are stopped and folders removed
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with work_folder(options.keep) as folder:
        bench = Bench(
            folder=folder,
            runs=options.runs,
            frames=options.frames,
            workers=options.workers,
            timeout=options.timeout,
            idle_seconds=options.idle_seconds,
            model=options.model,
            device=options.device,
        )
        if options.profile:
            write_timeline(options.profile, bench)
            return 0
        if GUARD in options.cases:
            return run_guard(bench)
        machine = describe_machine(options.workers)
        if options.page:
            fill_section(options.page.read_text(encoding="utf-8"), "")
        if not options.cold:
            warm_up(cases, bench)
        outcome, failed = run_cases(cases, bench, lambda so_far: save(so_far, machine, options))
    print(markdown(outcome, machine, options.runs))
    for difference in outcome.differences:
        tell(f"different: {difference}")
    return 1 if outcome.differences or failed else 0


def save(outcome: Outcome, machine: dict[str, Any], options: argparse.Namespace) -> None:
    """Write what is known so far to the files that were asked for."""
    if options.json:
        told = {"runs": options.runs, "frames": options.frames}
        options.json.write_text(as_json(outcome, machine, told), encoding="utf-8")
    if options.page:
        report = markdown(outcome, machine, options.runs)
        options.page.write_text(fill_section(options.page.read_text(encoding="utf-8"), report), encoding="utf-8")


def run_cases(cases: Sequence[Case], bench: Bench, on_case: Callable[[Outcome], None]) -> tuple[Outcome, bool]:
    """Run cases one after the other and estimate how long the rest will take.

    Parameters
    ----------
    cases
        What to run.
    bench
        The shared place and options.
    on_case
        Called with everything so far after each case.

    Returns
    -------
    outcome
        All numbers.
    failed
        Whether a case could not be measured.
    """
    outcome, failed = Outcome(), False
    expected = [expected_seconds(case, bench) for case in cases]
    begin = time.perf_counter()
    for number, case in enumerate(cases):
        # what is done tells how fast this machine is, compared with the one that the estimates are from
        spent, planned = time.perf_counter() - begin, sum(expected[:number])
        left = sum(expected[number:]) * (spent / planned if planned else 1.0)
        tell(f"{case.name} ({number + 1} of {len(cases)}): {case.what}; about {left / 60:.0f} min left")
        try:
            outcome.add(measure(case)(bench))
        except SystemExit as error:
            if isinstance(error.code, int):
                # a signal, which means everything
                raise
            tell(f"{case.name} could not be measured: {error.code}")
            failed = True
        on_case(outcome)
    return outcome, failed


def measure(case: Case) -> Callable[[Bench], Outcome]:
    """Return what measures a case."""
    return case.measure if isinstance(case, Special) else lambda bench: run_lineup(case, bench)


def expected_seconds(case: Case, bench: Bench) -> float:
    """Estimate how long a case takes [s]."""
    return case.seconds if isinstance(case, Special) else lineup_seconds(case, bench)


def warm_up(cases: Sequence[Case], bench: Bench) -> None:
    """Have both programs compile their kernels once, and the disk read their files."""
    tell("warming up: kernels are compiled if they are not yet")
    with_dcnum = any(isinstance(case, Lineup) and case.with_dcnum for case in cases)
    for make in (process_command, dcnum_command) if with_dcnum else (process_command,):
        command, _ = make(bench.path(SHORT), bench.new_folder("warm_up"), settings(), bench.workers)
        timed(command, bench.timeout)


@contextlib.contextmanager
def work_folder(keep: pathlib.Path | None) -> Iterator[pathlib.Path]:
    """Give a new folder that stays, or a temporary one."""
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="dcnumd-benchmark-") as name:
        yield pathlib.Path(name).resolve()
