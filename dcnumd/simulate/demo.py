"""The demonstration: a daemon processes measurements of a simulated instrument."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import pathlib
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import IO, Any

import h5py
import hdf5plugin  # noqa: F401 -- registers Zstandard
import numpy as np
import rich.console
import rich.table
import rich.text

from dcnumd.errors import DcnumdError
from dcnumd.simulate.picture import frame_picture, scatter_picture
from dcnumd.simulate.spec import MeasurementSpec
from dcnumd.simulate.swmr import record_in_swmr_mode
from dcnumd.simulate.truth import find_cells, read_truth

SILENCE_SECONDS = 240.0
"""Seconds without an event after which the demonstration fails; enough for a slow computer to compile the kernels."""

STOP_SECONDS = 30.0

FLUSH_SECONDS = 0.5
"""Seconds between two flushes of a recording [s]."""

RECORDINGS = (
    MeasurementSpec(size=(80, 320), frames=8000, rate=3450.0, density=0.9, seed=1, sample="bone marrow"),
    MeasurementSpec(size=(100, 1010), frames=1500, rate=1500.0, density=2.0, seed=2, sample="wide channel"),
    MeasurementSpec(size=(80, 320), frames=8000, rate=3450.0, density=0.9, flicker=4.0, seed=3, sample="flicker"),
)
"""Measurements with different frames, as recorded on a typical day."""

SHOWN_KEYS = (
    "reason",
    "error",
    "frames",
    "events",
    "seconds",
    "frames_per_second",
    "bottleneck",
    "pphash",
    "pid",
    "message",
    "light",
)
"""Fields of the daemon's events that are shown."""

QUIET_EVENTS = frozenset({"job.progress", "daemon.heartbeat"})

EXPLANATION = """cells     recorded in all frames, also those at the edge of a frame and those that touch each other
isolated  of these, those that lie wholly in the frame and apart from all others
found     of the isolated ones, those with an event within 1 px of their centre
events    all that the pipeline found, from isolated and other cells"""
"""What the columns of the table of results count."""

LIGHT_COLOURS = {"green": "green", "yellow": "yellow", "red": "bold red"}

RECORDER_FAILED = "instrument: failed"

Event = dict[str, Any]
"""One line of the daemon's log."""


def run_demo(folder: pathlib.Path) -> pathlib.Path | None:
    """Run the demonstration, and return the page of the last report; None if there is none.

    Parameters
    ----------
    folder
        An empty folder to work in.

    Raises
    ------
    DcnumdError
        The daemon does not start, stops logging, or fails on a measurement.
    """
    console = rich.console.Console()
    watched = folder / "acquisition"
    watched.mkdir()
    config = write_config(folder, watched)
    console.print(f"[bold]dcnumd run -c {config}[/]", highlight=False)
    events: queue.Queue[Event | None] = queue.Queue()
    with running_daemon(config, events), concurrent.futures.ThreadPoolExecutor(1, "recorder") as recorder:
        started = time.monotonic()
        wait_until_ready(console, events, started)
        recording = recorder.submit(record, watched, events)
        recording.add_done_callback(lambda done: report_failure(done, events))
        outcome = wait_for_results(console, events, started)
        recording.result()
    show_rest(console, events, started)
    show_results(console, outcome.finished())
    show_reports(console, outcome)
    pages = outcome.pages()
    return pathlib.Path(pages[-1]) if pages else None


def write_config(folder: pathlib.Path, watched: pathlib.Path) -> pathlib.Path:
    """Write the daemon's config and return its path."""
    path = folder / "config.toml"
    # JSON strings are TOML strings
    path.write_text(
        f"[watch]\nfolders = [{json.dumps(str(watched))}]\nsettle_seconds = 1.0\nrescan_seconds = 5.0\n\n"
        f'[output]\nbasin_strategy = "drain"\n\n'
        f"[resources]\nmin_free_gb = 0.2\n\n"
        f'[web]\nlisten = "127.0.0.1:0"\n\n'
        f"[live]\nenabled = true\n\n"
        f"[state]\nfolder = {json.dumps(str(folder / 'state'))}\n\n"
        f'[log]\nformat = "json"\n',
        encoding="utf-8",
    )
    return path


@contextlib.contextmanager
def running_daemon(config: pathlib.Path, events: queue.Queue[Event | None]) -> Iterator[None]:
    """Run the daemon as a process; put its log lines into the queue as events, and None at its end."""
    command = [sys.executable, "-m", "dcnumd", "run", "-c", str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, encoding="utf-8") as process:  # noqa: S603 -- ours
        if process.stderr is None:
            raise AssertionError("a piped stderr is a file")
        reader = threading.Thread(target=read_events, args=(process.stderr, events), name="daemon-log")
        reader.start()
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
            reader.join()


def read_events(stream: IO[str], events: queue.Queue[Event | None]) -> None:
    """Put each line of a log into a queue as an event; a line that is not JSON becomes an event with its text."""
    for line in stream:
        try:
            event = json.loads(line)
        except ValueError:
            event = {"event": line.rstrip()}
        events.put(event if isinstance(event, dict) else {"event": line.rstrip()})
    events.put(None)


def record(watched: pathlib.Path, events: queue.Queue[Event | None]) -> None:
    """Record the measurements in real time, one after another, like an instrument."""
    for number, base in enumerate(RECORDINGS, start=1):
        spec = dataclasses.replace(base, run_index=number)
        path = watched / f"M{number:03d}_data.rtdc"
        height, width = spec.size
        text = f"{height}x{width}, {spec.frames} frames at {spec.rate:.0f} Hz"
        events.put({"event": "instrument: recording", "path": str(path), "text": text})
        written = record_in_swmr_mode(path, spec, flush_seconds=FLUSH_SECONDS, truth=truth_path(path))
        text = f"{written.size_bytes / 1e6:.1f} MB, {written.cells} cells"
        events.put({"event": "instrument: closed", "path": str(path), "text": text})


def report_failure(recording: concurrent.futures.Future[None], events: queue.Queue[Event | None]) -> None:
    """Put an event into the queue if the recording failed, so that the demonstration does not wait for it."""
    if error := recording.exception():
        events.put({"event": RECORDER_FAILED, "error": str(error)})


def truth_path(path: pathlib.Path) -> pathlib.Path:
    """Return the path of the file with the true cells of a measurement."""
    return path.with_name(f"{path.stem}_truth.json")


def next_event(events: queue.Queue[Event | None]) -> Event:
    """Return the next event of the daemon or the instrument, except for heartbeats, which show no progress."""
    deadline = time.monotonic() + SILENCE_SECONDS
    event: Event | None = {"event": "daemon.heartbeat"}
    while event is not None and event.get("event") == "daemon.heartbeat":
        try:
            event = events.get(timeout=max(deadline - time.monotonic(), 0))
        except queue.Empty:
            raise DcnumdError(f"demo: the daemon did nothing for {SILENCE_SECONDS:.0f} s", "silent") from None
    if event is None:
        raise DcnumdError("demo: the daemon ended before its work was done; its last lines are above", "ended")
    return event


def wait_until_ready(console: rich.console.Console, events: queue.Queue[Event | None], started: float) -> None:
    """Print events until the daemon watches its folder."""
    while True:
        event = next_event(events)
        show_event(console, event, started)
        if event.get("event") == "daemon.ready":
            return


@dataclasses.dataclass
class Outcome:
    """The last events about each measurement."""

    results: dict[str, Event] = dataclasses.field(default_factory=dict)
    """The event ``job.finished`` of each path."""
    reports: dict[str, Event] = dataclasses.field(default_factory=dict)
    """The event ``report.written``, or the last ``report.failed``, of each path."""

    def take(self, event: Event) -> None:
        """Add an event.

        Raises
        ------
        DcnumdError
            A measurement failed, or could not be recorded.
        """
        name, path = event.get("event"), str(event.get("path"))
        final = not event.get("will_retry")
        if name == "job.finished":
            self.results[path] = event
        elif name == "report.written" or (name == "report.failed" and final):
            self.reports[path] = event
        elif name == RECORDER_FAILED or (name == "job.failed" and final):
            raise DcnumdError(f"demo: {event.get('path', 'the recorder')}: {event.get('error')}", "demo")

    @property
    def complete(self) -> bool:
        """Whether all measurements are finished and have a report."""
        return len(self.results) == len(RECORDINGS) and self.reports.keys() == self.results.keys()

    def pages(self) -> list[str]:
        """Return the page of each report, in order of recording."""
        return [page for path in sorted(self.reports) for page in pages_of(self.reports[path])]

    def finished(self) -> list[Event]:
        """Return the event ``job.finished`` of each measurement, in order of recording."""
        return [self.results[path] for path in sorted(self.results)]


def pages_of(event: Event) -> list[str]:
    """Return the pages of a report, of which there is one at most."""
    return [path for path in event.get("report", ()) if path.endswith(".html")]


def wait_for_results(console: rich.console.Console, events: queue.Queue[Event | None], started: float) -> Outcome:
    """Print events until every measurement is finished and has a report."""
    outcome = Outcome()
    while not outcome.complete:
        event = next_event(events)
        show_event(console, event, started)
        outcome.take(event)
    return outcome


def show_rest(console: rich.console.Console, events: queue.Queue[Event | None], started: float) -> None:
    """Print the events of the daemon while it stops."""
    while (event := events.get(timeout=SILENCE_SECONDS)) is not None:
        show_event(console, event, started)


def show_event(console: rich.console.Console, event: Event, started: float) -> None:
    """Print one event as one line."""
    name = str(event.get("event"))
    if name in QUIET_EVENTS:
        return
    line = rich.text.Text(f"{time.monotonic() - started:6.1f} s  ", style="dim")
    colours = {"job.finished": "bold green", "job.failed": "bold red"}
    fallback = "yellow" if name.startswith("instrument") else "cyan"
    line.append(f"{name:22}", style=colours.get(name, fallback))
    if "path" in event:
        line.append(f" {pathlib.Path(str(event['path'])).name}", style="bold")
    if "text" in event:
        line.append(f" {event['text']}", style="default")
    if name == "web.started":
        # Port 0 in the config lets the system choose a free one.
        line.append(f" watch it live: http://{event['address']}/", style="bold")
    for key in SHOWN_KEYS:
        if key in event:
            value = event[key]
            line.append(f" {key}={value:.4g}" if isinstance(value, float) else f" {key}={value}", style="default")
    console.print(line, soft_wrap=True)


def show_results(console: rich.console.Console, finished: list[Event]) -> None:
    """Print a table of the results with a comparison to the true cells, and a picture."""
    table = rich.table.Table(title="What came out", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("measurement", no_wrap=True)
    for heading in ("frames", "cells", "isolated", "found", "events", "frames/s"):
        table.add_column(heading, justify="right")
    for event in finished:
        path = pathlib.Path(str(event["path"]))
        table.add_row(
            path.name,
            f"{event['frames']:,}",
            *cell_counts(path, pathlib.Path(str(event["output"]))),
            f"{event['events']:,}",
            f"{event['frames_per_second']:,.0f}",
        )
    console.print()
    console.print(table)
    console.print(EXPLANATION)
    show_picture(console, pathlib.Path(str(finished[0]["output"])))


def show_reports(console: rich.console.Console, outcome: Outcome) -> None:
    """Print the path of each report with the colour of its traffic light."""
    console.print("\nThe report of each, a page for the browser:")
    for path in sorted(outcome.reports):
        event = outcome.reports[path]
        pages = pages_of(event)
        line = rich.text.Text("  ")
        if not pages:
            line.append(f"{pathlib.Path(path).name}: no report: {event.get('error')}", style="red")
        for page in pages:
            line.append(page, style="bold")
            light, warnings = str(event["light"]), ", ".join(event.get("warnings", ())).replace("_", " ")
            line.append(f"  {light}{f' ({warnings})' if warnings else ''}", style=LIGHT_COLOURS.get(light, "dim"))
        console.print(line, soft_wrap=True)


def cell_counts(measurement: pathlib.Path, output: pathlib.Path) -> tuple[str, str, str]:
    """Return the numbers of cells that were recorded, of isolated ones, and of isolated ones that were found."""
    recorded = read_truth(truth_path(measurement))
    cells = [cell for cell in recorded if cell.isolated and cell.inside]
    with h5py.File(output, "r", locking=False) as h5:
        pixel_size = h5.attrs["imaging:pixel size"]
        events = h5["events"]
        found = find_cells(
            cells, events["basinmap0"][:], events["pos_x"][:] / pixel_size, events["pos_y"][:] / pixel_size
        )
    share = f" ({100 * found.mean():.1f} %)" if cells else ""
    return f"{len(recorded):,}", f"{len(cells):,}", f"{int(found.sum()):,}{share}"


def show_picture(console: rich.console.Console, output: pathlib.Path) -> None:
    """Print one event with its contour, if the terminal has colours, and a scatter plot of all events."""
    with h5py.File(output, "r", locking=False) as h5:
        events = h5["events"]
        area, deformation = events["area_um"][:], events["deform"][:]
        if not len(area):
            return
        chosen = int(np.argsort(area)[int(0.7 * (len(area) - 1))])
        image, mask = events["image"][chosen], events["mask"][chosen] != 0
    columns = min(100, console.width - 12)
    if console.is_terminal and console.color_system is not None:
        console.print(f"\nOne event of {output.name}, and its contour:")
        console.print(frame_picture(image, mask, columns=columns))
    console.print(f"\nDeformation over area [µm²] of the {len(area)} events in {output.name}:")
    console.print(scatter_picture(area, deformation, columns=min(70, columns), rows=14))
