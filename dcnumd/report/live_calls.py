"""Functions that the daemon calls in its live process: they open, advance and finish the reading of recordings.

The supervisor imports this module to name the functions, so they import numerical code only when they are called.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import structlog

from dcnumd.errors import DcnumdError, WorkerError
from dcnumd.logic.calls import load_models, warm_up
from dcnumd.logic.job import PipelineSettings
from dcnumd.logic.live.messages import LiveProgress, LiveRequest

if TYPE_CHECKING:
    from dcnumd.logic.live.session import LiveSession

FEATURES = ("area_um", "deform", "area_ratio", "bg_off")
"""Features of the events that are judged and drawn."""


@dataclasses.dataclass(slots=True)
class _Opened:
    """A recording that is being read."""

    session: LiveSession
    path: str
    channel_width: float | None
    """Width of the channel [µm]; None if it is not known."""


_opened: dict[str, _Opened] = {}
"""The recordings that are being read, by the key that the daemon gave them."""


@dataclasses.dataclass(frozen=True, slots=True)
class LiveStep:
    """Outcome of one step in the processing of a recording."""

    progress: LiveProgress
    values: bytes = b""
    """The `dcnumd.report.live_values.LiveValues`, pickled; empty unless they were wanted."""


def prepare(num_workers: int, pipelines: Sequence[PipelineSettings]) -> None:
    """Load what the first recording needs, and start the workers.

    Parameters
    ----------
    num_workers
        Number of worker processes; 0 means one for each physical core.
    pipelines
        Settings of the pipelines, whose models are loaded.
    """
    warm_up(num_workers)
    load_models(num_workers, pipelines)
    import dcnumd.logic.live.session  # noqa: F401, PLC0415 -- numerical code, which the supervisor must not load


def open_recording(key: str, request: LiveRequest) -> None:
    """Begin to read a recording.

    Parameters
    ----------
    key
        Name of the recording in later calls.
    request
        The job that will process the measurement, and where its events are stored until then.

    Raises
    ------
    DcnumdError
        If it cannot be read while it is written.
    """
    from dcnumd.logic.live.session import LiveSession  # noqa: PLC0415 -- numerical code, as above
    from dcnumd.read.trust import Trust  # noqa: PLC0415 -- likewise

    path = request.job.path_in
    Trust(request.job.trusted_folders).require_input(path)
    with _concerning(os.fspath(path)):
        channel_width = _channel_width(os.fspath(path))
        _opened[key] = _Opened(LiveSession(request), os.fspath(path), channel_width)


def advance_recording(key: str, seconds: float, *, want_values: bool) -> LiveStep:
    """Process what is new in a recording, for a limited time.

    Parameters
    ----------
    key
        Name of the recording.
    seconds
        Time after which the call returns [s], approximately; it returns earlier if nothing is left to do.
    want_values
        Whether to return values for checks and plot.

    Raises
    ------
    DcnumdError
        If the recording cannot be read any more.
    """
    opened = _opened[key]
    with _concerning(opened.path):
        progress = opened.session.advance(seconds)
    return LiveStep(progress, _values(opened, progress) if want_values else b"")


def finish_recording(key: str) -> bool:
    """Complete the file with the events of a recording, and stop to read it.

    Returns
    -------
    has_events
        Whether the file is of use; False if there were too few frames for any events.

    Raises
    ------
    DcnumdError
        If the file cannot be completed.
    """
    opened = _opened[key]
    with _concerning(opened.path):
        has_events = opened.session.finish()
    drop_recording(key)
    return has_events


def drop_recording(key: str) -> None:
    """Stop to read a recording, if it is read."""
    if (opened := _opened.pop(key, None)) is not None:
        # What matters is that it is read no longer; the daemon knows already what is wrong with it.
        with contextlib.suppress(DcnumdError, OSError):
            opened.session.close()
        if not _opened:
            # The job of the measurement, which follows, needs the memory.
            _free_slots()


def _free_slots() -> None:
    from dcnumd.logic.process import engine  # noqa: PLC0415 -- numerical code, as above

    engine.free_slots()


@contextlib.contextmanager
def _concerning(path: str) -> Iterator[None]:
    """Name the recording in the log lines of this block, and explain errors of the system."""
    with structlog.contextvars.bound_contextvars(path=path):
        try:
            yield
        except MemoryError as error:
            raise WorkerError(f"{path}: not enough memory", "memory") from error
        except OSError as error:
            # Errors of the recording itself have words already.
            message = f"{path}: the file for its events cannot be written: {error.strerror or error}"
            raise WorkerError(message, "state_folder") from error


def _values(opened: _Opened, progress: LiveProgress) -> bytes:
    """Return what checks and plot need, pickled for the process that judges and draws it."""
    from dcnumd.report.live_values import LiveValues  # noqa: PLC0415 -- numerical code, as above

    view = opened.session.view
    if view is None:
        return b""
    columns = {name: place for place, name in enumerate(view.names)}
    values = LiveValues(
        features={name: view.table[:, columns[name]].copy() for name in FEATURES if name in columns},
        time=view.time,
        events=progress.events,
        # By default, cells at the edge are no events, so that their share is not known.
        border_events=view.border_events or None,
        seconds=max(0.0, progress.seconds - progress.lag_seconds),
        events_per_second=view.events_per_second,
        brightness=view.brightness,
        masks_dropped=view.masks_dropped,
        channel_width=opened.channel_width,
    )
    return pickle.dumps(values)


def _channel_width(path: str) -> float | None:
    """Return the width of the channel [µm]; None if it is not stored."""
    from dcnumd.read.swmr import open_swmr  # noqa: PLC0415 -- numerical code, as above

    try:
        with open_swmr(path) as h5:
            return float(h5.attrs["setup:channel width"])
    except (OSError, KeyError, TypeError, ValueError):
        return None
