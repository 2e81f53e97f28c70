"""The place of a result: what is there already, when nothing has to be computed, and how a new one gets there."""

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
"""A file is copied in parts of this size [bytes]."""

Belonging = Literal["same", "former", "other"]
"""Of what the file in the place of a result is made: of this content, by this pipeline (``same``); by dcnumd of a
former content of this path (``former``); of something else, or it is no whole result (``other``)."""


def settle_existing(plan: Plan, origin: Origin) -> JobResult | ExistingPolicy:
    """Decide about a file that is in the place of a job's result.

    Parameters
    ----------
    plan
        The job.
    origin
        What its result would be made of.

    Returns
    -------
    outcome
        The outcome of a job that has nothing to do: ``output_exists`` if the file is the result that would be computed
        (frames and events are given then), else ``output_differs``. Or, if the result must be computed, what is to
        happen to a file in its place.

    Raises
    ------
    ResultError
        There is a file and the job says that this is an error.
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
    """Open what is in the place of a result, if it is a file: a pipe would wait for its other end.

    Raises
    ------
    OSError
        It is something else, or no HDF5 file.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(f"{path}: is no regular file")
    return h5py.File(path, "r", locking=False)


def _is_measurement(path: pathlib.Path) -> bool:
    """Return whether a file is a sound measurement and no result: it is never replaced, whatever its name is."""
    try:
        with _open_file(path) as h5, HDF5Data(h5) as data:
            return "events" in h5 and not is_result(data.meta)
    except (*HDF5_FAULTS, DcnumdError):
        return False


def _in_the_way(plan: Plan, origin: Origin) -> str:
    """Return what is in the place of a job's result, and what to do, in words for the operator."""
    path, own = plan.job.path_out, plan.job.path_in
    if _is_measurement(path):
        return f"{path}: is a measurement and no result, so it is not replaced; move it away, or change output.suffix"
    stated, pphash = _stated(path)
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


def _stated(path: pathlib.Path) -> tuple[Origin | None, str]:
    """Return what a file says that it is made of, and the hash of its pipeline ID; nothing where it cannot be read."""
    try:
        with _open_file(path) as h5:
            return Origin.read(h5), str(h5.attrs.get("pipeline:dcnum hash", ""))
    except HDF5_FAULTS:
        return None, ""


def _belonging(plan: Plan, origin: Origin) -> tuple[Belonging, int]:
    """Return to what the file in the place of the result belongs, and its number of events."""
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
    """Return whether two origins are one file, which has several paths where there are symbolic links."""
    return one.path == other.path or os.path.realpath(one.path) == os.path.realpath(other.path)


def _is_copy(h5: h5py.File, origin: Origin) -> bool:
    """Return whether a result is the copy that `copy_processed` makes."""
    with HDF5Data(h5) as result:
        return content_digest(result) == origin.digest


def is_processed(plan: Plan) -> bool:
    """Return whether the input is itself the complete result of the same pipeline on all of its frames."""
    meta = plan.data.meta
    return (
        plan.job.settings.index_mapping is None
        and meta.get("pipeline:dcnum hash") == plan.pipeline_id.hash
        and plan.pipeline_id.is_stated_in(meta)
        and meta.get("pipeline:dcnum yield") == meta.get("experiment:event count") == plan.count
    )


def copy_processed(plan: Plan, source: Input, existing: ExistingPolicy, line: JobLine) -> JobResult:
    """Make the result of an input that needs no processing: a verified copy."""
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


def publish(result: ResultFile, plan: Plan, events: int, source: Input, existing: ExistingPolicy) -> None:
    """Give a closed result its name, if it is what it must be and the input is still what it was.

    Parameters
    ----------
    result
        The result; its temporary file is written and closed.
    plan
        The job.
    events
        How many events the result must have.
    source
        The input of the job.
    existing
        What `settle_existing` said of the file in its place.

    Raises
    ------
    DcnumdError
        It is not what it must be, the input has changed, or the place was taken meanwhile; no name is given then.
    """
    with h5py.File(result.temporary, "r", locking=False) as h5:
        verify_result(h5, plan.pipeline_id, events)
    source.check()
    if existing == "replace" and isinstance(settle_existing(plan, source.identify(plan)), JobResult):
        # what was to be replaced is something else by now
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
