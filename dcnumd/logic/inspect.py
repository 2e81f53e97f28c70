"""Inspection of a measurement before it is queued."""

from __future__ import annotations

import dataclasses

import numpy as np

from dcnumd.errors import MeasurementError
from dcnumd.logic.job import Job
from dcnumd.logic.plan import Plan, open_plan
from dcnumd.read.blank import is_blank
from dcnumd.read.content import content_digest

DAMAGE = frozenset({"damaged", "checksum"})
SAMPLE_LENGTH = 200
"""Number of characters after which names of samples are cut."""


@dataclasses.dataclass(frozen=True, slots=True)
class Inspection:
    """Properties of a measurement that can be processed."""

    ppid: str
    pphash: str
    frames: int
    identifier: str | None
    """Measurement identifier; None if the file has none."""
    md5_5m: str
    """MD5 of the first 5 MiB, hexadecimal."""
    digest: str
    """See `content_digest`; empty if `blank`."""
    size: int
    """Size of the file [bytes]."""
    sample: str
    """Name of the sample as the operator entered it, shortened."""
    blank: bool
    """Whether parts of the file were never written, see `is_blank`."""
    damaged: bool
    """Whether parts that no computation needs cannot be read."""
    segmenter: str
    """Code of the segmenter that is used."""
    not_applicable: tuple[str, ...]
    """Why the configured segmenter is not made for the measurement; empty if it is used."""
    interrupted: bool
    """Whether the recording was interrupted; `frames` is the number of frames that all features have."""


def inspect_measurement(job: Job) -> Inspection:
    """Open a measurement and resolve the settings of a job for it, without processing it.

    Raises
    ------
    DcnumdError
        The measurement cannot be processed with these settings.
    """
    with open_plan(job) as plan:
        if plan.data.interrupted:
            _read_last_frame(plan)
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
            segmenter=plan.segmenter.get_ppid_code(),
            not_applicable=plan.not_applicable,
            interrupted=plan.data.interrupted,
        )


def _read_last_frame(plan: Plan) -> None:
    """Read the last frame of an interrupted recording, which may be damaged unlike those before it.

    Raises
    ------
    MeasurementError
        It cannot be read.
    """
    try:
        with plan.frames.open() as reader:
            reader.read_into(plan.count - 1, plan.count, np.empty((1, *plan.frame_shape), np.uint8))
    except MeasurementError as error:
        message = f"{error.message}; the recording was interrupted while it was written"
        raise MeasurementError(message, error.reason, transient=error.transient) from error
