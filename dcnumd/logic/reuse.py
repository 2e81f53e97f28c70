"""When nothing has to be computed: results that exist, and inputs that were processed already."""

from __future__ import annotations

import io
import os
import pathlib
import stat
import time

import h5py

from dcnumd.errors import ResultError
from dcnumd.logic.assemble import run_identifier, verify_result
from dcnumd.logic.columns import FRAME_MAP
from dcnumd.logic.job import JobResult
from dcnumd.logic.job_line import JobLine
from dcnumd.logic.plan import Plan
from dcnumd.logic.stamp import FileStamp
from dcnumd.read.open_file import HDF5_FAULTS, unreadable
from dcnumd.write.result import ResultFile

COPY_BYTES = 2**24
"""A file is copied in parts of so many bytes."""


def existing_result(plan: Plan) -> JobResult | None:
    """Return the outcome of a job whose result has a file in its place already, None if it must be computed.

    Its reason is ``output_exists`` only when that file is whole, of the same pipeline, and about this measurement;
    frames and events are given then. Otherwise it is ``output_differs``.

    Raises
    ------
    ResultError
        There is a file and the job says that this is an error.
    """
    job, identifier = plan.job, plan.pipeline_id
    if job.existing == "replace" or not os.path.lexists(job.path_out):
        return None
    if job.existing == "fail":
        raise ResultError(f'{job.path_out}: the file exists already and output.existing is "fail"', "output_exists")
    events = _events_of_whole(plan)
    return JobResult(
        outcome="skipped",
        reason="output_differs" if events is None else "output_exists",
        path_in=job.path_in,
        path_out=job.path_out,
        ppid=str(identifier),
        pphash=identifier.hash,
        frames=plan.count if events is not None else 0,
        events=events or 0,
    )


def _events_of_whole(plan: Plan) -> int | None:
    """Return the number of events of the file in the place of the result, None if it is not what would be computed."""
    path = plan.job.path_out
    try:
        # nothing else is opened: a pipe would wait for its other end
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        with h5py.File(path, "r", locking=False) as h5:
            events = int(h5.attrs.get("pipeline:dcnum yield", -1))
            verify_result(h5, plan.pipeline_id, events)
            return events if _is_about(h5, plan) else None
    except (*HDF5_FAULTS, ResultError):
        return None


def _is_about(h5: h5py.File, plan: Plan) -> bool:
    """Return whether a result is that of the measurement at hand, as far as it says."""
    if h5.attrs.get("experiment:run identifier") != run_identifier(plan):
        return False
    frames = h5["events"].get(FRAME_MAP)
    # not every measurement has an identifier; but what refers to frames that do not exist is about another one
    return frames is None or not len(frames) or plan.data.index_mapping is not None or frames[-1] < plan.count


def is_processed(plan: Plan) -> bool:
    """Return whether the input is itself the complete result of the same pipeline on all of its frames."""
    meta = plan.data.meta
    parts = (getattr(plan.pipeline_id, name) for name in ("generation", "data", "background", "segmenter", "feature"))
    names = ("generation", "data", "background", "segmenter", "feature")
    return (
        plan.job.settings.index_mapping is None
        and meta.get("pipeline:dcnum hash") == plan.pipeline_id.hash
        and meta.get("pipeline:dcnum gate") == plan.pipeline_id.gate
        and all(meta.get(f"pipeline:dcnum {name}") == part for name, part in zip(names, parts, strict=True))
        and meta.get("pipeline:dcnum yield") == meta.get("experiment:event count") == plan.count
    )


def copy_processed(plan: Plan, before: FileStamp, line: JobLine) -> JobResult:
    """Make the result of an input that needs no processing: a verified copy of what had the stamp `before`."""
    job, identifier = plan.job, plan.pipeline_id
    begin = time.perf_counter()
    with ResultFile(job.path_out, existing=job.existing, job_id=job.job_id, root=job.result_root) as result:
        _copy(job.path_in, result.temporary, line)
        with h5py.File(result.temporary, "r", locking=False) as h5:
            verify_result(h5, identifier, plan.count)
        before.check(job.path_in)
        result.commit()
    return JobResult(
        outcome="done",
        reason="already_processed",
        path_in=job.path_in,
        path_out=job.path_out,
        ppid=str(identifier),
        pphash=identifier.hash,
        frames=plan.count,
        events=plan.count,
        seconds=time.perf_counter() - begin,
    )


def _copy(source: pathlib.Path, target: pathlib.Path, line: JobLine) -> None:
    """Copy the content of a file, which may be large."""
    with source.open("rb", buffering=0) as read_from, target.open("wb") as write_to:
        while part := _read(read_from, source):
            write_to.write(part)
            line.report("writing")
            line.stop_if_asked()


def _read(file: io.FileIO, path: pathlib.Path) -> bytes:
    try:
        return file.read(COPY_BYTES)
    except OSError as error:
        raise unreadable(path, error) from error
