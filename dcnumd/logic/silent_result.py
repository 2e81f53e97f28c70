"""Results without an origin, such as those of dcnum: their contents are compared with the input instead."""

from __future__ import annotations

import re
from collections.abc import Mapping

import h5py
import numpy as np

from dcnumd.logic.assemble import run_identifier
from dcnumd.logic.columns import FRAME_MAP
from dcnumd.logic.plan import Plan
from dcnumd.read.hdf5_data import HDF5Data
from dcnumd.read.metadata import Attribute
from dcnumd.write.log_lines import unfold

NOT_COPIED = frozenset({"experiment:event count", "experiment:run identifier", "imaging:pixel size"})
"""Attributes that the pipeline writes itself, in addition to those of the section ``pipeline``."""
RUN_LOG = re.compile("dcnumd?-log-.*")
FRAMES = re.compile(r"Processing .* \((\d+) frames\) with|Reached dataset end \(frame \d+ of (\d+)\)")
"""Pattern of log lines of dcnumd and dcnum with the number of frames."""
COPIED = ("time", "frame", "image")
"""Features that a result may have from its input."""


def may_be_made_of(h5: h5py.File, plan: Plan) -> bool:
    """Return whether a complete result is consistent with the input of a job."""
    data = plan.data
    with HDF5Data(h5) as result:
        return (
            _is_identified(str(h5.attrs.get("experiment:run identifier")), plan)
            and _has_attributes(result.meta, data.meta)
            and _logged_frames(result, data) <= {plan.count}
            and (data.index_mapping is not None or _has_frames(h5, data))
        )


def _is_identified(identifier: str, plan: Plan) -> bool:
    """Return whether a result has the run identifier that dcnumd or dcnum writes for a job."""
    measurement, _, run = identifier.rpartition("_")
    expected = run_identifier(plan)
    return identifier == expected or (run == expected.rpartition("_")[2] and plan.data.is_identified_by(measurement))


def _has_attributes(found: Mapping[str, Attribute], expected: Mapping[str, Attribute]) -> bool:
    """Return whether a result has the metadata of its input, compared as text because NaN does not equal NaN."""
    return all(
        str(found.get(key)) == str(value)
        for key, value in expected.items()
        if key not in NOT_COPIED and not key.startswith("pipeline:") and value not in ("", [])
    )


def _logged_frames(result: HDF5Data, data: HDF5Data) -> set[int]:
    """Return the numbers of frames in the logs of a result, except for logs that its input has as well."""
    new = {name: lines for name, lines in result.logs.items() if name not in data.logs and RUN_LOG.fullmatch(name)}
    return {int(told[1] or told[2]) for lines in new.values() for told in FRAMES.finditer("\n".join(unfold(lines)))}


def _has_frames(h5: h5py.File, data: HDF5Data) -> bool:
    """Return whether the events of a result can come from frames of its input."""
    frame_map = h5["events"].get(FRAME_MAP)
    if frame_map is None or not len(frame_map):
        return True
    frames = frame_map[:]
    if frames.max() >= len(data):
        return False
    for name in COPIED:
        copied, stack = h5["events"].get(name), data.find(name)
        if copied is None or stack is None:
            continue
        # comparing the images of the first and the last event is sufficient
        events = np.arange(len(frames)) if copied.ndim == 1 else np.unique([0, len(frames) - 1])
        if not np.array_equal(copied[events], stack[frames[events]], equal_nan=copied.ndim == 1):
            return False
    return True
