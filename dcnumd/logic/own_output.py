"""Detection of results that were made here, regardless of their present name and folder."""

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
"""Prefixes of logs that contain the job as JSON, with the paths of the measurement and of the result."""


def is_own_output(job: Job, *, recorded: bool) -> bool:
    """Return whether the input of a job is a result that was made in the folders of the job.

    It is a result if its pipeline attributes are consistent. It was made here if the ledger lists it, or if the file
    itself names a measurement or a result in these folders. A result from elsewhere is an input like any other.

    Parameters
    ----------
    job
        The job; its trusted folders are those of measurements and results.
    recorded
        Whether the ledger lists the file as a result.

    Raises
    ------
    MeasurementError
        The file cannot be read.
    """
    trust = Trust(job.trusted_folders, job.trust_basins, job.interrupted)
    with trusting(trust), HDF5Data(job.path_in) as data:
        if not is_result(data.meta):
            return False
        here = Trust(job.trusted_folders or ())
        try:
            return recorded or _origin_leads(data, here) or _logs_lead(data, here) or _basins_lead(data, here)
        except MeasurementError:
            # Parts that cannot be parsed are ignored; code that needs them will raise an error.
            return False


def is_result(attributes: Mapping[str, object]) -> bool:
    """Return whether root attributes are those of a result of dcnum or dcnumd: their hash is that of the parts."""
    parts = [attributes.get(f"{ATTRIBUTE_PREFIX}{name}") for name in PARTS]
    if None in parts:
        return False
    return PipelineID(*map(str, parts)).hash == attributes.get("pipeline:dcnum hash")


def _origin_leads(data: HDF5Data, here: Trust) -> bool:
    """Return whether the origin of a result is in trusted folders."""
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
            # A relative path exists in any folder, so it counts only if it leads to a file.
            named = os.fspath(path) in basin.paths
            if here.allows(path) and (named or path.exists()):
                return True
    return False
