"""The commands `simulate` and `demo`.

Numerical code is imported when a command runs, so that ``dcnumd --help`` is fast and the supervisor stays small.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import math
import os
import pathlib
import re
import shlex
import sys
import tempfile
import webbrowser
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
import rich.console
import rich.progress

from dcnumd.errors import ConfigError
from dcnumd.simulate.spec import KINDS, MeasurementSpec

if TYPE_CHECKING:
    from dcnumd.simulate.measurement import Recording

PAUSE_BETWEEN = dt.timedelta(seconds=60)
"""Time between the start times of two measurements in their files, in addition to their duration."""


class FrameSize(click.ParamType[tuple[int, int]]):
    """A frame size such as ``80x320``: height and width [px]."""

    name = "YxX"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Return height and width."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d+)x(\d+)", str(value))
        if match is None:
            self.fail(f"{value!r}: expected height x width in pixels, for example 80x320", param, ctx)
        return int(match[1]), int(match[2])


class KindList(click.ParamType[tuple[str, ...]]):
    """A selection of the kinds of cells, separated by commas."""

    name = "KIND,…"

    def convert(
        self,
        value: object,
        param: click.Parameter | None,  # noqa: ARG002 -- click's signature
        ctx: click.Context | None,  # noqa: ARG002 -- click's signature
    ) -> tuple[str, ...]:
        """Return the kinds; `MeasurementSpec` checks them."""
        return value if isinstance(value, tuple) else tuple(str(value).split(","))


@click.command(
    epilog="Example: dcnumd simulate /srv/acquisition --count 3 --frames 20000 --density 1.5 --realtime --truth"
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=pathlib.Path, file_okay=False))
@click.option("--count", default=1, show_default=True, type=click.IntRange(1), help="Number of measurements.")
@click.option("--frames", default=10_000, show_default=True, type=click.IntRange(1), help="Frames in each measurement.")
@click.option("--size", default="80x320", show_default=True, type=FrameSize(), help="Height and width [px].")
@click.option("--rate", default=3450.0, show_default=True, help="Frame rate of the camera [Hz].")
@click.option("--density", default=0.7, show_default=True, help="Mean number of cells in a frame.")
@click.option("--kinds", default=",".join(KINDS), show_default=True, type=KindList(), help="Which cells pass.")
@click.option("--flicker", default=0.0, show_default=True, help="Brightness noise of frames [grey levels].")
@click.option("--light", default=1.0, show_default=True, help="Illumination; 1 is as bright as usual.")
@click.option("--drift", default=0.0, show_default=True, help="Change of the background until the end [grey levels].")
@click.option("--clog-at", default=1.0, show_default=True, help="Part of the recording after which no cell passes.")
@click.option("--fibres", default=0.0, show_default=True, help="Mean number of fibres (dark lines) in a frame.")
@click.option("--compression", default="zstd-1", show_default=True, help="none, gzip, zstd-1 … zstd-9.")
@click.option("--fletcher32/--no-fletcher32", default=True, show_default=True, help="Checksum of each chunk.")
@click.option("--chunk", default=0, show_default=True, help="Frames in each HDF5 chunk; 0: as many as fit in 1 MiB.")
@click.option("--seed", default=0, show_default=True, help="The same seed and options give the same files.")
@click.option("--pixel-size", default=0.2645, show_default=True, help="Pixel size [µm].")
@click.option("--identifier", default="RC-5117-simu-dcnumd", show_default=True, help="The instrument.")
@click.option("--realtime", is_flag=True, help="Let the file grow in place at the camera's rate.")
@click.option("--swmr", is_flag=True, help="Like --realtime, in SWMR mode: others can read the file while it grows.")
@click.option(
    "--flush",
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    type=click.FloatRange(0.01),
    help="With --swmr, the time between two flushes, before which readers see no new frames.",
)
@click.option(
    "--crash-after",
    default=math.inf,
    metavar="SECONDS",
    type=click.FloatRange(0),
    help="With --swmr, end as by SIGKILL during the last measurement, which leaves its file open for writing.",
)
@click.option("--truth", is_flag=True, help="Write each cell's place, size and kind beside the measurement, as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON, a line for each.")
def simulate(
    folder: pathlib.Path,
    count: int,
    realtime: bool,
    swmr: bool,
    flush: float,
    crash_after: float,
    truth: bool,
    as_json: bool,
    **options: object,
) -> None:
    """Write measurements into DIR as an instrument would.

    They are called M001_data.rtdc, M002_data.rtdc and so on; numbers that are taken are passed over. The number
    is part of the seed, so that each measurement has other cells.
    """
    from dcnumd.simulate.measurement import write_measurement  # noqa: PLC0415 -- loads numpy and h5py
    from dcnumd.simulate.swmr import record_in_swmr_mode  # noqa: PLC0415 -- likewise

    if crash_after < math.inf and not swmr:
        raise ConfigError("simulate: --crash-after needs --swmr; other recordings are not readable after a crash")
    base = MeasurementSpec(**options)  # type: ignore[arg-type]  # click has made the types
    make_folder(folder)
    show = show_as_json if as_json else show_as_text
    numbers = free_numbers(folder, count)
    for number in numbers:
        spec = numbered(base, number)
        path = folder / f"M{number:03d}_data.rtdc"
        truth_path = path.with_name(f"{path.stem}_truth.json") if truth else None
        with recording_progress(path.name, spec.frames) as progress:
            if swmr:
                recording = record_in_swmr_mode(
                    path,
                    spec,
                    flush_seconds=flush,
                    truth=truth_path,
                    on_progress=progress,
                    crash_after=crash_after if number == numbers[-1] else math.inf,
                    before_crash=show,
                )
            else:
                recording = write_measurement(path, spec, truth=truth_path, realtime=realtime, on_progress=progress)
        show(recording)


def show_as_json(recording: Recording) -> None:
    """Print a measurement as JSON."""
    click.echo(json.dumps(dataclasses.asdict(recording), default=os.fspath))


def show_as_text(recording: Recording) -> None:
    """Print one line about a measurement."""
    rate = recording.frames / recording.seconds if recording.seconds else 0.0
    click.echo(
        f"{recording.path}: {recording.frames} frames, {recording.cells} cells, "
        f"{recording.size_bytes / 1e6:.1f} MB, {rate:.0f} frames/s"
    )


def make_folder(folder: pathlib.Path) -> None:
    """Create a folder and its parents."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be created: {error.strerror}; choose another folder") from error


def free_numbers(folder: pathlib.Path, count: int) -> list[int]:
    """Return the next numbers without a measurement in a folder."""
    taken = {int(match[1]) for path in folder.iterdir() if (match := re.match(r"M(\d+)_data\.rtdc$", path.name))}
    first = max(taken, default=0) + 1
    return list(range(first, first + count))


def numbered(base: MeasurementSpec, number: int) -> MeasurementSpec:
    """Return the specification of one of several measurements."""
    started = base.started + (number - 1) * (PAUSE_BETWEEN + dt.timedelta(seconds=base.duration))
    return dataclasses.replace(base, seed=base.seed + number - 1, run_index=number, started=started)


class Advance:
    """Advances a progress bar; does nothing without a terminal."""

    def __init__(self, bar: rich.progress.Progress | None, task: rich.progress.TaskID | None) -> None:
        self._bar = bar
        self._task = task

    def __call__(self, frames: int) -> None:
        """Show the number of frames that are written."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=frames)


@contextlib.contextmanager
def recording_progress(name: str, frames: int) -> Iterator[Advance]:
    """Show a progress bar on stderr while a measurement is written, if stderr is a terminal."""
    console = rich.console.Console(stderr=True)
    if not console.is_terminal:
        yield Advance(None, None)
        return
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    with rich.progress.Progress(*columns, console=console, transient=True) as bar:
        yield Advance(bar, bar.add_task(name, total=frames))


@click.command(epilog="Example: dcnumd demo --keep ./dcnumd-demo")
@click.option(
    "--keep",
    metavar="DIR",
    type=click.Path(path_type=pathlib.Path, file_okay=False),
    help="Work in DIR, which must be new or empty; else in a new temporary folder.",
)
def demo(keep: pathlib.Path | None) -> None:
    """Show all of it: start the daemon on a folder, record simulated measurements into it, show what comes out.

    The folder stays; the last lines say where it is, how large, and how to remove it.
    """
    from dcnumd.simulate.demo import run_demo  # noqa: PLC0415 -- loads numpy and h5py

    if keep is not None:
        make_folder(keep)
        if any(keep.iterdir()):
            raise ConfigError(f"{keep}: is not empty; demo --keep takes a new or empty folder")
    folder = (keep or pathlib.Path(tempfile.mkdtemp(prefix="dcnumd-demo-"))).resolve()
    try:
        page = run_demo(folder)
    finally:
        megabytes = sum(path.lstat().st_size for path in folder.rglob("*")) / 1e6
        click.echo(
            f"\nMeasurements, results and reports are in {folder} ({megabytes:,.0f} MB). To remove them:\n"
            f"  rm -r {shlex.quote(str(folder))}"
        )
    if page is not None and can_show_pages() and click.confirm("Open the last report in the browser?", default=True):
        webbrowser.open(page.as_uri())


def can_show_pages() -> bool:
    """Return whether somebody sits at a terminal in a graphical session, where a browser can open."""
    graphical = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return graphical and not os.environ.get("CI") and sys.stdin.isatty() and sys.stdout.isatty()
