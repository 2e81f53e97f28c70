"""The pictures of a report with their titles and notes, as the page shows them."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from dcnumd.report.gallery import BackgroundPictures, Gallery
from dcnumd.report.plots import Plot


class Mark(NamedTuple):
    """A cell of the gallery in a scatter plot: its number, its point, and the position of the number."""

    number: int
    x: float
    y: float
    number_x: float
    number_y: float


@dataclasses.dataclass(frozen=True, slots=True)
class ScatterView:
    """One scatter plot, with the marked cells of the gallery, and with paragraphs below it: a note and remarks.

    `name` identifies the plot in names of files; it consists of the features.
    """

    name: str
    title: str
    plot: Plot
    text: str
    note: str
    marks: tuple[Mark, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class ChartView:
    """A small plot, with its title, its description for screen readers, and the note below it.

    `name` identifies the plot in names of files.
    """

    name: str
    title: str
    plot: Plot
    text: str
    note: str


@dataclasses.dataclass(frozen=True, slots=True)
class FrameView:
    """A recorded frame as a JPEG, with its size [px] and its title."""

    image: bytes
    width: int
    height: int
    title: str


@dataclasses.dataclass(frozen=True, slots=True)
class SearchView:
    """What a report without events shows: some frames, and how dark all sampled ones are."""

    frames: tuple[FrameView, ...]
    chart: ChartView


@dataclasses.dataclass(frozen=True, slots=True)
class CellView:
    """A cell of the gallery with its number; `marked` says whether the scatter plot marks it, too."""

    number: int
    event: int
    left: int
    top: int
    contour: str
    text: str
    marked: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Drawings:
    """All pictures of a report; `missing` has a sentence for each picture that could not be drawn."""

    pairs: tuple[ScatterView, ...] = ()
    gallery: Gallery | None = None
    cells: tuple[CellView, ...] = ()
    histograms: tuple[ChartView, ...] = ()
    courses: tuple[ChartView, ...] = ()
    background: BackgroundPictures | None = None
    search: SearchView | None = None
    missing: tuple[str, ...] = ()

    def plots(self) -> dict[str, Plot]:
        """Return all plots by name."""
        charts = (*self.histograms, *self.courses, *((self.search.chart,) if self.search else ()))
        return {view.name: view.plot for view in (*self.pairs, *charts)}
