"""Existing files in the place of a result, results that need no computation, and publishing of new results."""

from __future__ import annotations

import io
import os
import pathlib
import stat
import time
from typing import Literal

import h5py

from dcnumd.config.choices import ExistingPolicy
from dcnumd.errors import DcnumdError, ResultError
from dcnumd.logic.assemble import run_identifier, verify_result
from dcnumd.logic.job import JobResult
from dcnumd.logic.job_line import JobLine
from dcnumd.logic.origin import Input, Origin
from dcnumd.logic.own_output import is_result
from dcnumd.logic.plan import Plan
from dcnumd.logic.silent_result import may_be_made_of
from dcnumd.read.content import content_digest
from dcnumd.read.hdf5_data import HDF5Data
from dcnumd.read.open_file import HDF5_FAULTS, unreadable
from dcnumd.write.result import ResultFile

COPY_BYTES = 2**24
"""Size of the parts in which a file is copied [bytes]."""

Belonging = Literal["same", "former", "other"]
"""Relation of an existing file to the result of a job: made from the same content by the same pipeline (``same``), made
by dcnumd from an earlier content of the same path (``former``), or anything else, such as damaged files (``other``)."""


def settle_existing(plan: Plan, origin: Origin) -> JobResult | ExistingPolicy:
    """Decide what to do about an existing file in the place of a job's result.

    Parameters
    ----------
    plan
        The job.
    origin
        The origin that its result would have.

    Returns
    -------
    outcome
        If the job is skipped, its outcome: ``output_exists`` if the file is the result that would be computed (with its
        numbers of frames and events), else ``output_differs``. If the result must be computed, the policy for a file
        in its place.

    Raises
    ------
    ResultError
        A file exists, and the policy of the job is ``fail``.
    """
    job, identifier = plan.job, plan.pipeline_id
    if not os.path.lexists(job.path_out):
        return job.existing
    if job.existing == "replace" and not _is_measurement(job.path_out):
        return "replace"
    if job.existing == "fail":
        raise ResultError(f'{job.path_out}: the file exists already and output.existing is "fail"', "output_exists")
    belonging, events = _belonging(plan, origin)
    if belonging == "former" and job.replace_former:
        return "replace"
    same = belonging == "same"
    return JobResult(
        outcome="skipped",
        reason="output_exists" if same else "output_differs",
        path_in=job.path_in,
        path_out=job.path_out,
        ppid=str(identifier),
        pphash=identifier.hash,
        frames=plan.count if same else 0,
        events=events if same else 0,
        error="" if same else _in_the_way(plan, origin),
    )


def _open_file(path: pathlib.Path) -> h5py.File:
    """Open the file in the place of a result.

    Raises
    ------
    OSError
        It is not a regular file, or not an HDF5 file. Opening a pipe would wait for its other end.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(f"{path}: is no regular file")
    return h5py.File(path, "r", locking=False)


def _is_measurement(path: pathlib.Path) -> bool:
    """Return whether a file is an intact measurement and not a result; such a file is never replaced."""
    try:
        with _open_file(path) as h5, HDF5Data(h5) as data:
            return "events" in h5 and not is_result(data.meta)
    except (*HDF5_FAULTS, DcnumdError):
        return False


def _in_the_way(plan: Plan, origin: Origin) -> str:
    """Return the message for the operator about the file in the place of a job's result, with the cure."""
    path, own = plan.job.path_out, plan.job.path_in
    if _is_measurement(path):
        return f"{path}: is a measurement and no result, so it is not replaced; move it away, or change output.suffix"
    stated, pphash = _stated_origin(path)
    if stated is None:
        return f'{path}: does not say of what it was made; move it away, or set output.existing = "replace"'
    if not _is_same_file(stated, origin):
        other = pathlib.Path(os.fsdecode(stated.path))
        if other.with_suffix("") == own.with_suffix(""):
            cure = "their names differ in the ending only, so their results would have one name; rename one of them"
        else:
            cure = 'if that file has become this one, move its result away or set output.existing = "replace"'
        return f"{path}: is the result of another measurement, {other}; {cure}"
    if stated.digest == origin.digest and pphash == plan.pipeline_id.hash:
        return f"{path}: is damaged, or was changed by another program; move it away"
    what = "with other settings" if stated.digest == origin.digest else "of a former content of this measurement"
    return f'{path}: was made {what}; set output.existing = "replace", or another output.suffix to keep both'


def _stated_origin(path: pathlib.Path) -> tuple[Origin | None, str]:
    """Return the origin in a file and the hash of its pipeline identifier; None and "" if they cannot be read."""
    try:
        with _open_file(path) as h5:
            return Origin.read(h5), str(h5.attrs.get("pipeline:dcnum hash", ""))
    except HDF5_FAULTS:
        return None, ""


def _belonging(plan: Plan, origin: Origin) -> tuple[Belonging, int]:
    """Return the relation of the file in the place of the result to the job, and its number of events."""
    path = plan.job.path_out
    try:
        with _open_file(path) as h5:
            events = int(h5.attrs.get("pipeline:dcnum yield", -1))
            return _judge(h5, plan, origin, events), events
    except (*HDF5_FAULTS, DcnumdError):
        return "other", 0


def _judge(h5: h5py.File, plan: Plan, origin: Origin, events: int) -> Belonging:
    if is_processed(plan) and _is_copy(h5, origin):
        return "same"
    stated = Origin.read(h5)
    if stated is not None and stated.digest != origin.digest:
        return "former" if _is_same_file(stated, origin) else "other"
    verify_result(h5, plan.pipeline_id, events)
    if stated is None:
        return "same" if may_be_made_of(h5, plan) else "other"
    return "same" if h5.attrs.get("experiment:run identifier") == run_identifier(plan) else "other"


def _is_same_file(one: Origin, other: Origin) -> bool:
    """Return whether two origins are the same file, which has several paths if there are symbolic links."""
    return one.path == other.path or os.path.realpath(one.path) == os.path.realpath(other.path)


def _is_copy(h5: h5py.File, origin: Origin) -> bool:
    """Return whether a result is the copy that `copy_processed` makes."""
    with HDF5Data(h5) as result:
        return content_digest(result) == origin.digest


def is_processed(plan: Plan) -> bool:
    """Return whether the input is itself a complete result of the same pipeline for all of its frames."""
    meta = plan.data.meta
    return (
        plan.job.settings.index_mapping is None
        and meta.get("pipeline:dcnum hash") == plan.pipeline_id.hash
        and plan.pipeline_id.is_stated_in(meta)
        and meta.get("pipeline:dcnum yield") == meta.get("experiment:event count") == plan.count
    )


def copy_processed(plan: Plan, source: Input, existing: ExistingPolicy, line: JobLine) -> JobResult:
    """Create the result of an input that is already processed: a verified copy."""
    job, identifier = plan.job, plan.pipeline_id
    begin = time.perf_counter()
    with ResultFile(job.path_out, existing=existing, job_id=job.job_id, root=job.result_root) as result:
        _copy(job.path_in, result.temporary, line)
        publish(result, plan, plan.count, source, existing)
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


def verify(result: ResultFile, plan: Plan, events: int) -> None:
    """Verify a closed result.

    Raises
    ------
    ResultError
        The result is invalid.
    """
    with h5py.File(result.temporary, "r", locking=False) as h5:
        verify_result(h5, plan.pipeline_id, events)


def publish(result: ResultFile, plan: Plan, events: int, source: Input, existing: ExistingPolicy) -> None:
    """Verify a closed result, make sure that the input has not changed, and rename the result.

    Parameters
    ----------
    result
        The result; its temporary file is written and closed.
    plan
        The job.
    events
        Number of events that the result must have.
    source
        The input of the job.
    existing
        The policy that `settle_existing` returned.

    Raises
    ------
    DcnumdError
        The result is invalid, the input has changed, or another file was created meanwhile; nothing is renamed then.
    """
    verify(result, plan, events)
    source.check()
    if existing == "replace" and isinstance(settle_existing(plan, source.identify(plan)), JobResult):
        # the file that was to be replaced is another one by now
        raise ResultError(f"{result.path}: was made by another program meanwhile", "output_exists")
    result.commit()


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
