"""What a report is asked for and what comes of it, as frozen values.

This module imports no numerical code, so that the supervisor can ask for reports and read what came of them.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Literal

from dcnumd.config.choices import Format
from dcnumd.config.values import ReportLimits

Light = Literal["green", "yellow", "red", "grey"]
"""Everything is fine, something should be looked at, the measurement is hardly of use, nothing is known."""

PAIR = ("area_um", "deform")
"""The features of the field's standard plot."""


@dataclasses.dataclass(frozen=True, slots=True)
class ReportRequest:
    """Which report to make, and where."""

    path_result: pathlib.Path
    """The result to look at, dcnumd's or dcnum's; absolute."""
    path_report: pathlib.Path
    """The report's place without its ending: ``.html``, ``.json`` and ``.png`` are appended to the name; absolute."""
    formats: tuple[Format, ...] = ("html", "json")
    gallery: int = 24
    """How many cells are shown."""
    pairs: tuple[tuple[str, str], ...] = ()
    """Further pairs of features to plot beside `PAIR`."""
    limits: ReportLimits = dataclasses.field(default_factory=ReportLimits)
    root: pathlib.Path | None = None
    """No symbolic link may lead the report out of this folder; None: anywhere."""
    trusted_folders: tuple[pathlib.Path, ...] | None = None
    """Other files may be read only in and below these, whatever the result refers to; None: anywhere."""
    trust_basins: bool = True
    """Basins may lie outside of `trusted_folders`."""
    job_id: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class ReportSummary:
    """What came of a request; what the index and the live page show of a measurement."""

    paths: tuple[pathlib.Path, ...]
    """The files that were written."""
    light: Light
    warnings: tuple[str, ...]
    """Names of the checks that warn, such as ``few_events``."""
    texts: tuple[str, ...]
    """The same as sentences."""
    sample: str
    recorded: str
    """Date and time of the recording as the instrument wrote them, ``2026-11-21 10:00:00``; may be empty."""
    events: int
    frames: int | None
    thumbnail: bytes
    """The scatter plot as a tiny PNG; empty if there is nothing to plot."""
    plot: bytes
    """The scatter plot as a PNG for the live page; empty if there is nothing to plot."""


@dataclasses.dataclass(frozen=True, slots=True)
class IndexRow:
    """One measurement in an index."""

    key: str
    """What makes it one row: the path of the result relative to the folder of the index, or that of a failed
    measurement relative to its watched folder."""
    name: str
    sample: str
    recorded: str
    finished: str
    """When it was processed or failed: UTC, ISO 8601. The rows are sorted by it, newest first."""
    state: Literal["done", "failed"]
    events: int | None = None
    light: Light = "grey"
    texts: tuple[str, ...] = ()
    """What the traffic light says; or the reason code of a failure, its cause and cure, and what exactly was wrong."""
    link: str = ""
    """Path of the report, or else of the result, relative to the folder of the index; empty for none."""
    thumbnail: bytes = b""
