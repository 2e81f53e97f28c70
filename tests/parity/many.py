"""Processes measurements drawn at random by dcnumd and by dcnum, and compares all there is in the results.

Example: ``python -m tests.parity.many --count 500 --seed 1``

Both stay loaded, each in a process of its own. Measurements of which dcnum makes nothing are counted apart; dcnumd must
process them or say why not. ``--count 1 --seed N --keep FOLDER`` repeats what was told of seed N and leaves the files.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import dataclasses
import pathlib
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence

from dcnumd.errors import DcnumdError
from dcnumd.logic.job import Job, PipelineSettings
from dcnumd.logic.process import engine, process_measurement
from tests.parity.drawn import Drawn, draw
from tests.support.compared import identify_as_dclab, result_differences
from tests.support.oracle import DcnumError, DcnumHungError, Oracle
from tests.support.parity import dcnum_arguments

DCNUM_SECONDS = 30.0
"""What takes dcnum longer hangs [s]; one second is usual."""
MOST_TOLD = 8
"""Of each measurement only so many differences are told."""


@dataclasses.dataclass
class Tally:
    """What came of all measurements."""

    compared: int = 0
    events: int = 0
    dcnum_failed: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """How often dcnum failed, by what it said last."""
    faults: list[str] = dataclasses.field(default_factory=list)
    """What differs, each with the seed that repeats it."""


def run(folder: pathlib.Path, *, count: int, seed: int, keep: bool = False) -> Tally:
    """Process and compare the measurements of `count` seeds, the first of which is `seed`."""
    tally = Tally()
    with (
        contextlib.closing(Oracle(folder, threads=True, seconds=DCNUM_SECONDS, attempts=1)) as oracle,
        contextlib.closing(engine),
        concurrent.futures.ThreadPoolExecutor(1) as beside,
    ):
        for number in range(seed, seed + count):
            place = folder / f"seed-{number}"
            place.mkdir()
            drawn = draw(place, number)
            faults = compare(drawn, oracle, beside, tally)
            if faults:
                tally.faults.append("\n    ".join([f"seed {number}: {drawn.told}", *faults[:MOST_TOLD]]))
            if not keep:
                shutil.rmtree(place)
    return tally


def compare(drawn: Drawn, oracle: Oracle, beside: concurrent.futures.Executor, tally: Tally) -> list[str]:
    """Process one measurement by both programs at the same time; return what differs."""
    settings = dict(drawn.settings)
    how = {name: settings.pop(name) for name in ("basin_strategy", "compression")}
    ours, theirs = drawn.path.with_name("ours.rtdc"), drawn.path.with_name("dcnum.rtdc")
    job = Job(drawn.path, ours, PipelineSettings(**settings), num_workers=2, **how)
    reference = beside.submit(oracle.process, drawn.path, theirs, **dcnum_arguments(job))
    try:
        tally.events += process_measurement(job).events
        failure = ""
    except DcnumdError as error:
        failure = str(error)
    except Exception:  # noqa: BLE001 -- whatever it is, it is told with its seed, and the next measurement follows
        return [f"dcnumd fails: {traceback.format_exc()}"]
    try:
        reference.result()
    except DcnumError as error:
        hung = isinstance(error, DcnumHungError)
        tally.dcnum_failed["hung" if hung else str(error).strip().splitlines()[-1]] += 1
        return []
    if failure:
        return [f"dcnum has a result, dcnumd has none: {failure}"]
    tally.compared += 1
    identify_as_dclab(theirs, drawn.path)
    return result_differences(ours, theirs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1, help="of the first measurement")
    parser.add_argument("--keep", type=pathlib.Path, help="leave all files in this folder")
    options = parser.parse_args(arguments)
    folder = options.keep or pathlib.Path(tempfile.mkdtemp(prefix="parity-"))
    folder.mkdir(exist_ok=True)
    begin = time.monotonic()
    tally = run(folder, count=options.count, seed=options.seed, keep=options.keep is not None)
    minutes = (time.monotonic() - begin) / 60
    sys.stdout.write("".join(f"{fault}\n" for fault in tally.faults))
    failed = "".join(f"{number} x dcnum failed: {reason}\n" for reason, number in tally.dcnum_failed.most_common())
    sys.stdout.write(failed)
    sys.stdout.write(
        f"{tally.compared} measurements with {tally.events} events compared, {options.count / minutes:.0f} a minute: "
        f"{len(tally.faults)} differ\n"
    )
    if options.keep is None:
        shutil.rmtree(folder)
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())
