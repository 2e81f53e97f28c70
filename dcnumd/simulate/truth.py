"""The true cells of a simulated measurement, stored in a JSON file, and their comparison with events."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dcnumd.simulate.flow import Cell
from dcnumd.simulate.spec import MeasurementSpec

FAULTS = frozenset({"light", "drift", "clog_at", "fibres"})
"""Fields of the specification that are stored only if they differ from their defaults."""


def write_truth(path: pathlib.Path, spec: MeasurementSpec, cells: Sequence[Cell]) -> None:
    """Write all cells of all frames as JSON, together with the specification of the measurement.

    Parameters
    ----------
    path
        The file to write.
    spec
        The measurement.
    cells
        Its cells, in order of frames.
    """
    described = {
        field.name: getattr(spec, field.name)
        for field in dataclasses.fields(spec)
        if field.name != "started" and (field.name not in FAULTS or getattr(spec, field.name) != field.default)
    }
    described["started"] = spec.started.isoformat()
    content = {"measurement": described, "cells": [dataclasses.asdict(cell) for cell in cells]}
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")


def read_truth(path: pathlib.Path) -> list[Cell]:
    """Read the cells that `write_truth` wrote."""
    return [Cell(**cell) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]


def find_cells(
    cells: Sequence[Cell],
    frame: npt.ArrayLike,
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    tolerance: float = 1.0,
) -> npt.NDArray[np.bool_]:
    """Return for each cell whether there is an event at its position.

    Parameters
    ----------
    cells
        The truth.
    frame
        Frame of each event, (event,).
    x, y
        Centre of each event [px], (event,).
    tolerance
        Largest distance of an event along each axis [px].

    Returns
    -------
    numpy.ndarray
        bool (cell,).
    """
    frames = np.asarray(frame)
    columns, rows = np.asarray(x, float), np.asarray(y, float)
    order = np.argsort(frames, kind="stable")
    frames, columns, rows = frames[order], columns[order], rows[order]
    wanted = np.array([cell.frame for cell in cells], int)
    starts = np.searchsorted(frames, wanted, "left")
    stops = np.searchsorted(frames, wanted, "right")
    found = np.zeros(len(cells), bool)
    for index, (cell, start, stop) in enumerate(zip(cells, starts, stops, strict=True)):
        near_x = np.abs(columns[start:stop] - cell.x) <= tolerance
        near_y = np.abs(rows[start:stop] - cell.y) <= tolerance
        found[index] = bool(np.any(near_x & near_y))
    return found
