"""When nothing has to be computed: results that exist, and inputs that were processed already."""

from __future__ import annotations

import shutil
import time

import h5py

from dcnumd.errors import ResultError
from dcnumd.logic.assemble import verify_result
from dcnumd.logic.job import Job, JobResult
from dcnumd.logic.plan import Plan
from dcnumd.logic.stamp import FileStamp
from dcnumd.meta.ppid import PipelineID
from dcnumd.write.result import ResultFile


def existing_result(job: Job, identifier: PipelineID) -> JobResult | None:
    """Return the outcome of a job whose result has a file in its place already, None if it must be computed.

    Raises
    ------
    ResultError
        There is a file and the job says that this is an error.
    """
    if not job.path_out.exists() or job.existing == "replace":
        return None
    if job.existing == "fail":
        raise ResultError(f'{job.path_out}: the file exists already and output.existing is "fail"', "output_exists")
    return JobResult(
        outcome="skipped",
        reason="output_exists" if _has_hash(job, identifier) else "output_differs",
        path_in=job.path_in,
        path_out=job.path_out,
        ppid=str(identifier),
        pphash=identifier.hash,
    )


def _has_hash(job: Job, identifier: PipelineID) -> bool:
    try:
        with h5py.File(job.path_out, "r", locking=False) as h5:
            return bool(h5.attrs.get("pipeline:dcnum hash") == identifier.hash)
    except OSError:
        return False


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


def copy_processed(plan: Plan, before: FileStamp) -> JobResult:
    """Make the result of an input that needs no processing: a verified copy of what had the stamp `before`."""
    job, identifier = plan.job, plan.pipeline_id
    begin = time.perf_counter()
    with ResultFile(job.path_out, existing=job.existing) as result:
        shutil.copyfile(job.path_in, result.temporary)
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
