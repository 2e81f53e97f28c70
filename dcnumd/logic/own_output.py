"""Whether a file is a result that was made here, whatever its name is and wherever it lies now."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping

from dcnumd.errors import MeasurementError
from dcnumd.logic.job import Job
from dcnumd.logic.origin import Origin
from dcnumd.meta.ppid import ATTRIBUTE_PREFIX, PARTS, PipelineID
from dcnumd.read.hdf5_data import HDF5Data
from dcnumd.read.open_file import damage_named
from dcnumd.read.trust import Trust, trusting
from dcnumd.write.log_lines import joined

JOB_LOGS = ("dcnumd-job-", "dcnum-job-")
"""Logs with these names hold the job as JSON, with the paths of the measurement and of the result."""


def is_own_output(job: Job, *, recorded: bool) -> bool:
    """Return whether the input of a job is a result, and was made where the job's measurements and results lie.

    It is a result if its pipeline attributes fit together. It was made here if the ledger says so, or if it says
    itself that it was made from a measurement in these folders, or was written into them. A result from elsewhere is
    an input like any other.

    Parameters
    ----------
    job
        Its trusted folders are those of measurements and results.
    recorded
        Whether the ledger has this file as the result of a measurement.

    Raises
    ------
    MeasurementError
        The file cannot be read.
    """
    with trusting(Trust(job.trusted_folders, job.trust_basins)), HDF5Data(job.path_in) as data:
        if not is_result(data.meta):
            return False
        here = Trust(job.trusted_folders or ())
        try:
            return recorded or _origin_leads(data, here) or _logs_lead(data, here) or _basins_lead(data, here)
        except MeasurementError:
            # What cannot be understood says nothing; if it is needed, whoever needs it will tell.
            return False


def is_result(attributes: Mapping[str, object]) -> bool:
    """Return whether root attributes are those of a result of dcnum or dcnumd: the parts have the hash they should."""
    parts = [attributes.get(f"{ATTRIBUTE_PREFIX}{name}") for name in PARTS]
    if None in parts:
        return False
    return PipelineID(*map(str, parts)).hash == attributes.get("pipeline:dcnum hash")


def _origin_leads(data: HDF5Data, here: Trust) -> bool:
    """Return whether the measurement that a result says to be made of lies in trusted folders."""
    with damage_named(data.path, "the origin"):
        origin = Origin.read(data.h5)
    return origin is not None and here.allows(os.fsdecode(origin.path))


def _logs_lead(data: HDF5Data, here: Trust) -> bool:
    """Return whether a log names a measurement or a result in trusted folders."""
    for name, lines in data.logs.items():
        if name.startswith(JOB_LOGS):
            try:
                job = json.loads("".join(lines))["job"]
                paths = [pathlib.Path(joined(job[name])) for name in ("path_out", "path_in")]
            except (ValueError, LookupError, TypeError, RecursionError):
                continue
            if any(path.is_absolute() and here.allows(path) for path in paths):
                return True
    return False


def _basins_lead(data: HDF5Data, here: Trust) -> bool:
    """Return whether a basin names a measurement in trusted folders."""
    for basin in data.basins:
        for path in basin.files(data.path) if basin.kind == "file" else ():
            # A relative path fits anywhere, so it says something only where it leads to a file.
            named = os.fspath(path) in basin.paths
            if here.allows(path) and (named or path.exists()):
                return True
    return False
