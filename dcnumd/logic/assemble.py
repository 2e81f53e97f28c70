"""Parts of a result other than images: basins, metadata, logs; and its verification."""

from __future__ import annotations

import dataclasses
import math
import os
import platform
from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np

import dcnumd
from dcnumd.errors import ResultError
from dcnumd.extras import installed_version
from dcnumd.feat.feat_background.bg_copy import store_shared_images
from dcnumd.logic.background import PreparedBackground
from dcnumd.logic.columns import BACKGROUND_MAP, FRAME_MAP, Columns, input_scalars
from dcnumd.logic.origin import Origin
from dcnumd.logic.plan import Plan
from dcnumd.meta.ppid import PipelineID
from dcnumd.write.log_lines import fold, json_lines
from dcnumd.write.metadata import copy_logs, copy_metadata, copy_tables
from dcnumd.write.writer import HDF5Writer


def write_basins(plan: Plan, background: PreparedBackground, columns: Columns, writer: HDF5Writer) -> None:
    """Write basins that refer to the input and the background images; the scalar features must be complete."""
    if plan.job.basin_strategy == "tap":
        _refer_to_input(plan, writer, list(input_scalars(plan, background)))
    if background.index is None:
        return
    mapping = BACKGROUND_MAP
    if columns.maps_equal:
        # equal mappings are stored once, as dcnum does
        mapping = FRAME_MAP
        del writer.events[BACKGROUND_MAP]
    if background.kept is not None:
        store_shared_images(writer, background.kept, mapping)
    if background.images is not None:
        writer.store_basin(
            name="background images",
            description=f"Pipeline identifier: {plan.pipeline_id.background}",
            internal_data={"image_bg": background.images.images},
            mapping=mapping,
        )


def _refer_to_input(plan: Plan, writer: HDF5Writer, scalars: Sequence[str]) -> None:
    # a relative path starts at the target of a symbolic link, not at the folder of the link
    path, folder = plan.data.path.resolve(), plan.job.path_out.parent.resolve()
    relative = os.path.relpath(path, folder)
    for features in (scalars, ["image"]):
        if features:
            writer.store_basin(
                name="dcnumd basin",
                description=f"Created with dcnumd {dcnumd.__version__}",
                paths=[plan.job.path_told or path, relative],
                features=features,
                mapping=FRAME_MAP,
                identifier=plan.data.measurement_identifier,
            )


def write_metadata(plan: Plan, h5: h5py.File) -> None:
    """Write the attributes, logs and tables of the input, and the attributes of the pipeline."""
    copy_metadata(plan.data, h5)
    copy_logs(plan.data, h5)
    copy_tables(plan.data, h5)
    identifier = plan.pipeline_id
    h5.attrs.update(identifier.attributes())
    h5.attrs["pipeline:dcnum hash"] = identifier.hash
    h5.attrs["pipeline:dcnum mapping"] = identifier.data.partition("^i=")[2]
    h5.attrs["imaging:pixel size"] = plan.data.pixel_size
    h5.attrs["experiment:run identifier"] = run_identifier(plan)


def run_identifier(plan: Plan) -> str:
    """Return the run identifier of a result, made from the measurement's and the pipeline's."""
    parts = [plan.data.measurement_identifier, f"dcn-{plan.pipeline_id.hash[:7]}"]
    return "_".join(part for part in parts if part)


def write_event_count(h5: h5py.File, events: int) -> None:
    """Write the number of events."""
    h5.attrs["pipeline:dcnum yield"] = events
    h5.attrs["experiment:event count"] = events


def write_logs(plan: Plan, origin: Origin, writer: HDF5Writer, lines: Sequence[str], stamp: str) -> None:
    """Write the job as JSON, and the log of the run."""
    existing = writer.h5.get("logs", ())
    number = 1
    # the input may be the result of another run in the same second
    while f"dcnumd-job-{stamp}" in existing:
        number += 1
        stamp = f"{stamp.partition('_')[0]}_{number}"
    writer.store_log(f"dcnumd-job-{stamp}", json_lines(_describe(plan, origin)))
    writer.store_log(f"dcnumd-log-{stamp}", [part for line in lines for part in fold(line)])


def _describe(plan: Plan, origin: Origin) -> dict[str, Any]:
    job, identifier = plan.job, plan.pipeline_id
    libraries = {"h5py": h5py.__version__, "hdf5": h5py.version.hdf5_version, "numpy": np.__version__}
    model = plan.segmenter.describe_model(job.settings.segmenter_kwargs)
    if backend := model.get("backend"):
        # some backends are named after another package
        used = dict.fromkeys(("torch", backend.partition(".")[0]))
        libraries |= {name: version for name in used if (version := installed_version(name))}
    return {
        "dcnumd version": dcnumd.__version__,
        "job": dataclasses.asdict(dataclasses.replace(job, known=None, spool=None)),
        "input": {"size": origin.size, "frames": origin.frames, "digest": origin.digest},
        "pipeline": {"hash": identifier.hash, "identifiers": dataclasses.asdict(identifier)},
        **({"model": model} if model else {}),
        "python": platform.python_version(),
        "libraries": libraries,
        "system": platform.platform(),
    }


def verify_result(h5: h5py.File, identifier: PipelineID, events: int) -> None:
    """Verify a result that was closed and opened again.

    Raises
    ------
    ResultError
        An attribute, the length of a dataset, or its number of chunks is wrong; the result must not be published then.
    """
    found = h5.attrs.get("pipeline:dcnum hash"), h5.attrs.get("pipeline:dcnum yield")
    if found != (identifier.hash, events):
        raise ResultError(f"{h5.filename}: pipeline hash and yield are {found}, expected {(identifier.hash, events)}")
    if h5.attrs.get("experiment:event count") != events:
        raise ResultError(f"{h5.filename}: event count is {h5.attrs.get('experiment:event count')}, expected {events}")
    for name, dataset in h5["events"].items():
        if len(dataset) != events:
            raise ResultError(f"{h5.filename}: events/{name} has {len(dataset)} events, expected {events}")
    for group in ("events", "basin_events"):
        for dataset in h5.get(group, {}).values():
            _verify_chunks(dataset)


def _verify_chunks(dataset: h5py.Dataset) -> None:
    """Make sure that all chunks exist, because HDF5 returns zeros for missing ones."""
    if dataset.chunks is None:
        return
    expected = math.prod(-(-length // chunk) for length, chunk in zip(dataset.shape, dataset.chunks, strict=True))
    stored = dataset.id.get_num_chunks()
    if stored != expected:
        raise ResultError(f"{dataset.file.filename}: {dataset.name} has {stored} chunks, expected {expected}")
