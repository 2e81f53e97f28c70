"""A look at a measurement before it is queued: whether it can be processed, and as what."""

from __future__ import annotations

import dataclasses

from dcnumd.logic.job import Job
from dcnumd.logic.plan import open_plan
from dcnumd.read.blank import is_blank
from dcnumd.read.content import content_digest

DAMAGE = frozenset({"damaged", "checksum"})
SAMPLE_LENGTH = 200
"""Longer names of samples are cut."""


@dataclasses.dataclass(frozen=True, slots=True)
class Inspection:
    """What is known of a measurement that can be processed."""

    ppid: str
    pphash: str
    frames: int
    identifier: str | None
    """Measurement identifier, if the file has one."""
    md5_5m: str
    """MD5 of the first 5 MiB, hexadecimal."""
    digest: str
    """See `content_digest`; empty if something was never written."""
    size: int
    """Size of the file [bytes]."""
    sample: str
    """What was measured, as the operator called it; shortened."""
    blank: bool
    """Whether something in it was never written."""
    damaged: bool
    """Whether something in it that is not computed with cannot be read."""


def inspect_measurement(job: Job) -> Inspection:
    """Open a measurement and resolve a job's settings for it, without computing anything.

    Raises
    ------
    DcnumdError
        The measurement cannot be processed, or not with these settings.
    """
    with open_plan(job) as plan:
        blank = is_blank(plan.data)
        return Inspection(
            ppid=str(plan.pipeline_id),
            pphash=plan.pipeline_id.hash,
            frames=plan.count,
            identifier=plan.data.measurement_identifier,
            md5_5m=plan.data.md5_5m,
            digest="" if blank else content_digest(plan.data),
            size=job.path_in.stat().st_size,
            sample=str(plan.data.meta.get("experiment:sample", ""))[:SAMPLE_LENGTH],
            blank=blank,
            damaged=any(error.reason in DAMAGE for error in plan.data.left_out.values()),
        )
