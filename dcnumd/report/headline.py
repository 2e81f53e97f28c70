"""The medians at the top of a report: those of the events that a limit of the porosity keeps."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from dcnumd.report.result_file import ResultData
from dcnumd.report.wording import percent

Values = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True)
class Headline:
    """The medians at the top of a report; None for a value that does not exist.

    Attributes
    ----------
    max_area_ratio
        Largest porosity (``area_ratio``) of the events with these medians; None if they are those of all events.
    events
        Number of these events.
    share
        Number of these events divided by the number of all events.
    area_um, deform
        Median area [µm²], and median deformation.
    text
        A sentence that says of which events these are the medians.
    """

    max_area_ratio: float | None
    events: int
    share: float | None
    area_um: float | None
    deform: float | None
    text: str


def headline_of(data: ResultData, most: float) -> Headline:
    """Return the medians at the top of a report.

    Parameters
    ----------
    data
        The result.
    most
        Largest porosity of the events; 0 for all events.
    """
    ratio = data.scalar("area_ratio") if most else None
    # A porosity that is NaN is not known to be small enough.
    kept = np.ones(len(data), np.bool_) if ratio is None else ratio <= most
    events = int(np.count_nonzero(kept))
    return Headline(
        max_area_ratio=None if ratio is None else most,
        events=events,
        share=events / len(data) if len(data) else None,
        area_um=_median(data.scalar("area_um"), kept),
        deform=_median(data.scalar("deform"), kept),
        text=_text(len(data), events, most, known=ratio is not None),
    )


def _text(all_events: int, events: int, most: float, *, known: bool) -> str:
    if not all_events:
        return ""
    if not known:
        why = ", because the result has no porosity (area_ratio)" if most else ""
        return f"Median area and deformation are those of all events{why}."
    if not events:
        return f"There is no median area or deformation, because no event has a porosity of at most {most:g}."
    share = percent(events / all_events)
    return f"Median area and deformation are those of the {share} of the events with a porosity of at most {most:g}."


def _median(values: Values | None, kept: npt.NDArray[np.bool_]) -> float | None:
    if values is None:
        return None
    finite = values[kept & np.isfinite(values)]
    # The mean of two very large values overflows; the median then counts as not known.
    with np.errstate(over="ignore"):
        median = float(np.median(finite)) if finite.size else math.nan
    return median if math.isfinite(median) else None
