"""Requests for reports, and the summaries of reports, as frozen values.

This module imports no numerical code, so that the supervisor can use it.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Literal

from dcnumd.config.choices import Format
from dcnumd.config.values import PlotSettings, ReportLimits
from dcnumd.status import Course

Light = Literal["green", "yellow", "red", "grey"]
"""Traffic light: no problem found, to be checked, unusable, not rated."""

PlotKind = Literal["png", "svg"]
"""Format of a plot as a file."""

ENDINGS: dict[Format, str] = {"png": ".png", "json": ".json", "html": ".html"}
"""Suffix of each format, in the order in which the files are written."""

PAIR = ("area_um", "deform")
"""The features of the standard plot: area and deformation."""


@dataclasses.dataclass(frozen=True, slots=True)
class ReportRequest:
    """The report to make, and its path."""

    path_result: pathlib.Path
    """Absolute path of the result, which dcnumd or dcnum has made."""
    path_report: pathlib.Path
    """Absolute path of the report without suffix; ``.html``, ``.json`` or ``.png`` is appended to the name."""
    formats: tuple[Format, ...] = ("html", "json")
    gallery: int = 24
    """Largest number of cells to show."""
    pairs: tuple[tuple[str, str], ...] = ()
    """Pairs of features to plot in addition to `PAIR`."""
    plot: PlotSettings = dataclasses.field(default_factory=PlotSettings)
    """Settings of the standard plot."""
    limits: ReportLimits = dataclasses.field(default_factory=ReportLimits)
    root: pathlib.Path | None = None
    """Folder that symbolic links must not lead the report out of; None: no such limit."""
    trusted_folders: tuple[pathlib.Path, ...] | None = None
    """Folders in and below which files that the result refers to may be read; None: anywhere."""
    trust_basins: bool = True
    """Whether basins may be outside of `trusted_folders`."""
    job_id: str = ""
    path_plots: pathlib.Path | None = None
    """Absolute path of a folder for each plot as a PNG and an SVG file; None to write none."""


def report_path(request: ReportRequest, kind: Format) -> pathlib.Path:
    """Return the path of one file of a report."""
    return request.path_report.with_name(request.path_report.name + ENDINGS[kind])


@dataclasses.dataclass(frozen=True, slots=True)
class ReportSummary:
    """The outcome of a request: the files, and what the index and the live page show of the measurement."""

    paths: tuple[pathlib.Path, ...]
    """The files that were written."""
    light: Light
    warnings: tuple[str, ...]
    """Names of the checks that warn, such as ``few_events``."""
    texts: tuple[str, ...]
    """The sentences of these checks."""
    sample: str
    recorded: str
    """Date and time of the recording as the instrument wrote them, such as ``2026-11-21 10:00:00``; may be empty."""
    events: int
    frames: int | None
    thumbnail: bytes
    """The scatter plot as a tiny PNG; empty if there is nothing to plot."""
    plot: bytes
    """The scatter plot as a PNG for the live page; empty if there is nothing to plot."""
    plots: tuple[pathlib.Path, ...] = ()
    """The files of plots that were written."""


@dataclasses.dataclass(frozen=True, slots=True)
class LiveReportRequest:
    """How the events of a measurement that is being recorded are to be judged and drawn."""

    limits: ReportLimits
    plot: PlotSettings
    draw: bool
    """Whether a plot is wanted."""


@dataclasses.dataclass(frozen=True, slots=True)
class LiveReport:
    """What a measurement would be rated if its recording ended now, and its present plot."""

    light: Light
    warnings: tuple[tuple[str, Literal["warning", "alarm"], str], ...]
    """Name, state and text of each check that warns."""
    event_rate: Course
    """Events per second over time."""
    brightness: Course
    """Brightness of the background over time [grey levels]."""
    events_per_second: float | None
    """Event rate in the last seconds; None if it is not known."""
    plot: bytes
    """The scatter plot of the latest events as a PNG; empty if there is nothing to plot."""


@dataclasses.dataclass(frozen=True, slots=True)
class IndexRow:
    """One measurement in an index."""

    key: str
    """Identifies the row: the path of the result relative to the folder of the index, or the path of a failed
    measurement relative to its watched folder."""
    name: str
    sample: str
    recorded: str
    finished: str
    """Time when the measurement was processed or failed: UTC, ISO 8601. Rows are sorted by it, newest first."""
    state: Literal["done", "failed"]
    events: int | None = None
    light: Light = "grey"
    texts: tuple[str, ...] = ()
    """The sentences of the checks that warn; for a failure, its reason code, cause and cure, and error."""
    link: str = ""
    """Path of the report, or of the result without one, relative to the folder of the index; empty for no link."""
    thumbnail: bytes = b""
