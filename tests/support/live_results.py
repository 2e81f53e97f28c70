"""Recordings that are processed while they grow, in the process of the test, and their results."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

from dcnumd.logic.job import Job, JobResult
from dcnumd.logic.live.messages import LiveProgress, LiveRequest
from dcnumd.logic.live.session import LiveSession
from dcnumd.logic.process import process_measurement
from dcnumd.simulate.spec import MeasurementSpec
from tests.support.compared import all_differences
from tests.support.recorder import NOTHING_ELSE, Peculiarities, RecorderProcess

SPOOL_BYTES = 10**8
"""Room in a spool [bytes]."""
STEP = 700
"""Number of frames between two flushes."""


def spool_of(job: Job) -> pathlib.Path:
    """Return the path of a recording's spool."""
    return job.path_in.with_suffix(".spool")


def catch_up(session: LiveSession) -> LiveProgress:
    """Process all that is recorded, and return the state."""
    before = None
    while (state := session.advance(60.0)) != before:
        before = state
    return state


def record_live(
    job: Job,
    spec: MeasurementSpec,
    peculiar: Peculiarities = NOTHING_ELSE,
    *,
    steps: Sequence[int] = (),
    limit: int = SPOOL_BYTES,
) -> LiveProgress:
    """Record a measurement that is processed meanwhile; return the last state.

    Parameters
    ----------
    job
        The job of the recording.
    spec, peculiar
        What it contains.
    steps
        Number of frames at each flush.
    limit
        Largest size of the spool [bytes].
    """
    with (
        RecorderProcess(job.path_in, spec, peculiar) as instrument,
        LiveSession(LiveRequest(job, spool_of(job), limit)) as session,
    ):
        for stop in steps or [*range(STEP, spec.frames, STEP), spec.frames]:
            instrument.record(stop)
            catch_up(session)
        instrument.finish()
        state = catch_up(session)
        assert state.ended
        session.finish()
    return state


def compare_results(job: Job) -> tuple[JobResult, JobResult, list[str]]:
    """Make the result of a finished recording with its spool and without it; return both, and how they differ."""
    live = process_measurement(dataclasses.replace(job, spool=spool_of(job)))
    plain = process_measurement(dataclasses.replace(job, path_out=job.path_in.with_name("plain.rtdc")))
    return live, plain, [str(one) for one in all_differences(live.path_out, plain.path_out)]
