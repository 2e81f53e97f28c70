"""Compares results with those of dcnum."""

from __future__ import annotations

import pathlib
from typing import Any

import h5py

from dcnumd.logic.job import Job, JobResult, PipelineSettings
from dcnumd.logic.process import process_measurement
from tests.support.compared import identify_as_dclab, result_differences
from tests.support.oracle import Oracle


def dcnum_arguments(job: Job) -> dict[str, Any]:
    """Return the settings of a job as arguments of dcnum's job class."""
    settings = job.settings
    data: dict[str, Any] = {"pixel_size": settings.pixel_size} if settings.pixel_size else {}
    mapping = settings.index_mapping
    if isinstance(mapping, slice):
        data["index_mapping"] = {"slice": [mapping.start, mapping.stop, mapping.step]}
    elif mapping is not None:
        data["index_mapping"] = list(mapping) if isinstance(mapping, tuple) else mapping
    return {
        "data_kwargs": data,
        "background_code": settings.background_code,
        "background_kwargs": dict(settings.background_kwargs),
        "segmenter_code": settings.segmenter_code,
        "segmenter_kwargs": {**settings.segmenter_kwargs, "kwargs_mask": dict(settings.mask_kwargs)},
        "feature_kwargs": dict(settings.feature_kwargs),
        "gate_kwargs": dict(settings.gate_kwargs),
        "basin_strategy": job.basin_strategy,
        "compression": job.compression,
    }


IN_THREADS: dict[str, Any] = {"debug": True, "num_procs": 1}
"""Arguments that let dcnum use threads of one process, with memory for one slot, which takes half the time."""


def assert_equals_reference(result: JobResult, reference: pathlib.Path) -> None:
    """Fail if a result differs from that of dcnum."""
    assert result_differences(result.path_out, reference) == []
    with h5py.File(reference) as h5:
        assert result.pphash == h5.attrs["pipeline:dcnum hash"]
        assert result.events == h5.attrs["experiment:event count"]


def assert_equal_results(
    path: pathlib.Path,
    folder: pathlib.Path,
    oracle: Oracle,
    *,
    basin_strategy: Any = "drain",
    compression: str = "zstd-5",
    threads: bool = True,
    **settings: Any,
) -> tuple[pathlib.Path, pathlib.Path]:
    """Process a measurement by dcnumd and by dcnum, fail if the results differ, and return both.

    Parameters
    ----------
    path
        The measurement.
    folder
        Folder for both results.
    oracle
        Makes dcnum's result.
    basin_strategy, compression, settings
        Settings for both programs.
    threads
        Whether dcnum runs with `IN_THREADS`; otherwise it uses several processes, as for its users.
    """
    job = Job(
        path,
        folder / "ours.rtdc",
        PipelineSettings(**settings),
        basin_strategy=basin_strategy,
        compression=compression,
        num_workers=2,
    )
    result = process_measurement(job)
    how = IN_THREADS if threads else {}
    reference = oracle.process(path, folder / "dcnum.rtdc", **dcnum_arguments(job), **how)
    identify_as_dclab(reference, path)
    assert_equals_reference(result, reference)
    return job.path_out, reference
