"""Writes artificial results, and parses the pages of reports."""

from __future__ import annotations

import html.parser
import pathlib
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from dcnumd.report.request import ReportRequest

FRAME = (48, 120)
PICTURES = ("image", "mask", "image_bg")
FRAME_RATE = 1000.0
ATTRIBUTES: Mapping[str, Any] = {
    "experiment:date": "2026-11-21",
    "experiment:time": "10:00:00",
    "experiment:sample": "blood",
    "experiment:run index": 1,
    "imaging:frame rate": FRAME_RATE,
    "imaging:pixel size": 0.34,
    "imaging:roi size x": FRAME[1],
    "imaging:roi size y": FRAME[0],
    "setup:channel width": 20.0,
    "setup:chip region": "channel",
    "setup:flow rate": 0.06,
    "setup:identifier": "RC-test",
    "setup:medium": "CellCarrierB",
    "pipeline:dcnum background": "sparsemed:k=200^s=1^t=0^f=0.8^o=1",
    "pipeline:dcnum data": "hdf:p=0.34^i=0",
    "pipeline:dcnum feature": "legacy:b=1^h=1^v=1",
    "pipeline:dcnum gate": "norm:o=0^s=10",
    "pipeline:dcnum generation": "13",
    "pipeline:dcnum hash": "a35bcc0252de9f083de5746cf547117d",
    "pipeline:dcnum mapping": "0",
    "pipeline:dcnum segmenter": "thresh:t=-6:cle=1^f=1^clo=2",
}


def columns_of(events: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Return scalar features with typical values for a number of events."""
    rng = np.random.default_rng(seed)
    area = rng.normal(60, 8, events)
    return {
        "area_um": area,
        "deform": np.abs(rng.normal(0.08, 0.02, events)),
        "bright_avg": rng.normal(140, 3, events),
        "volume": area**1.5,
        "bg_med": np.full(events, 180.0),
        "frame": np.arange(1, events + 1, dtype=np.float64),
        "time": np.arange(events) / FRAME_RATE,
    }


def write_result(
    path: pathlib.Path,
    events: int = 300,
    *,
    columns: Mapping[str, np.ndarray | None] | None = None,
    attributes: Mapping[str, Any] | None = None,
    without: tuple[str, ...] = (),
) -> pathlib.Path:
    """Write a result that contains its images, as results of dcnum do, and return its path.

    Parameters
    ----------
    path
        Path of the file.
    events
        Number of events.
    columns
        Scalar features that replace or extend the usual ones; None removes a feature.
    attributes
        Attributes that replace or extend the usual ones; None removes an attribute.
    without
        Names out of ``image``, ``mask`` and ``image_bg`` to leave out.
    """
    values = {**columns_of(events), **(columns or {})}
    with h5py.File(path, "w") as h5:
        group = h5.create_group("events")
        for name, column in values.items():
            if column is not None:
                group[name] = np.asarray(column, np.float64)
        wanted = [name for name in PICTURES if name not in without]
        pictures = _pictures(events) if wanted else {}
        for name in wanted:
            group[name] = pictures[name]
        h5.attrs.update(
            {key: value for key, value in {**ATTRIBUTES, **(attributes or {})}.items() if value is not None}
        )
        h5.attrs["experiment:event count"] = events
        h5.attrs["pipeline:dcnum yield"] = events
    return path


def _pictures(events: int) -> dict[str, np.ndarray]:
    """Return frames with one cell each, the masks, and backgrounds that become brighter."""
    rows, columns = np.mgrid[: FRAME[0], : FRAME[1]]
    mask = np.zeros((events, *FRAME), bool)
    for event in range(events):
        middle = 20 + event * 7 % 80
        mask[event] = ((rows - 24) / 8) ** 2 + ((columns - middle) / (9 + event % 7)) ** 2 < 1
    course = np.linspace(178, 182, events)[:, np.newaxis, np.newaxis]
    background = np.broadcast_to(course, mask.shape).astype(np.uint8)
    image = np.where(mask, background - 45, background)
    return {"image": image, "mask": mask.astype(np.uint8) * 255, "image_bg": background}


def request_for(result: pathlib.Path, **values: Any) -> ReportRequest:
    """Return a request for a report in the folder of its result."""
    return ReportRequest(result, result.with_suffix(""), **values)


class Page(html.parser.HTMLParser):
    """A parsed page: its elements and its text."""

    VOID = frozenset({"meta", "link", "input", "img", "br", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.source = text
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        """All text of the page, without style sheets."""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += data

    def of(self, tag: str, kind: str = "") -> list[dict[str, str]]:
        """Return the attributes of all elements with a tag and, if one is given, a class."""
        return [
            values
            for name, values in self.elements
            if name == tag and (not kind or kind in values.get("class", "").split())
        ]

    def ids(self) -> list[str]:
        """Return the ids of all elements, with duplicates."""
        return [values["id"] for _, values in self.elements if "id" in values]

    def addresses(self) -> list[str]:
        """Return all addresses that the page refers to."""
        names = ("href", "xlink:href", "src")
        return [values[name] for _, values in self.elements for name in names if name in values]
