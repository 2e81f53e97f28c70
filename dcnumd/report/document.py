"""A report as JSON document, for scripts and laboratory systems; `report.schema.json` defines and explains it."""

from __future__ import annotations

import dataclasses
import importlib.resources
import json
import math
from typing import Any

from dcnumd.report.figures import Figures

FORMAT = "dcnumd-report"
VERSION = 1
"""Version of the format. It grows when a field is removed or changes its meaning; fields may be added at any time."""


def as_document(figures: Figures) -> dict[str, Any]:
    """Return figures as a JSON document; values that are not known or not finite are null."""
    return {"format": FORMAT, "version": VERSION, **_plain(dataclasses.asdict(figures))}


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a report."""
    text = importlib.resources.files("dcnumd.report").joinpath("report.schema.json").read_text("utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
