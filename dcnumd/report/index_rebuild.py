"""Finds the measurements of an index that is lost, by the reports in its folder."""

from __future__ import annotations

import json
import os
import pathlib
import stat
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from dcnumd.report.request import IndexRow, Light

FORMAT = "dcnumd-report"
LIGHTS: dict[str, Light] = {light: light for light in get_args(Light)}
MAX_BYTES = 2**22
"""A larger file is no report."""


def rows_of_reports(folder: pathlib.Path) -> list[IndexRow]:
    """Return a row for each report as data (``*.json``) in and below a folder; other files are passed over.

    Links are not followed, and hidden folders are not entered.

    Raises
    ------
    OSError
        If the folder itself cannot be read; what cannot be read below it is left out.
    """
    # os.walk is silent about a folder that cannot be read.
    next(folder.iterdir(), None)
    return [
        row
        for path in _candidates(folder)
        if (document := _document(path)) is not None and (row := _row(folder, path, document)) is not None
    ]


def content_of_file(path: pathlib.Path, size: int = -1) -> bytes | None:
    """Return the first `size` bytes of a file (all if negative); None of what is no file, or is a link.

    Raises
    ------
    OSError
        If it is not there or cannot be read.
    """
    if not stat.S_ISREG(path.lstat().st_mode):
        return None
    # What has taken its place since is neither followed nor waited for.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        return file.read(size)


def _candidates(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (pathlib.Path(place, name) for name in sorted(names) if name.endswith(".json"))


def _document(path: pathlib.Path) -> dict[str, Any] | None:
    """Return a report as data, None if the file is none."""
    try:
        content = content_of_file(path, MAX_BYTES)
        document = json.loads(content) if content and FORMAT.encode() in content else None
    except (OSError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) and document.get("format") == FORMAT else None


def _row(folder: pathlib.Path, path: pathlib.Path, document: Mapping[str, Any]) -> IndexRow | None:
    """Return the row of a report, None if it does not say when it was made or how its measurement is."""
    light = LIGHTS.get(_text(document, "light"))
    made = _text(document, "made")
    if light is None or not made:
        return None
    events = document.get("events")
    result = path.with_name(_text(document, "result").rpartition("/")[2] or f"{path.stem}.rtdc")
    page = path.with_suffix(".html")
    checks = document.get("checks")
    return IndexRow(
        key=os.path.relpath(result, folder),
        name=result.name,
        sample=_text(document, "sample"),
        recorded=_text(document, "recorded"),
        finished=made,
        state="done",
        events=events if isinstance(events, int) and 0 <= events < 2**63 else None,
        light=light,
        texts=tuple(
            check["text"]
            for check in (checks if isinstance(checks, list) else ())
            if isinstance(check, dict)
            and check.get("state") in {"warning", "alarm"}
            and isinstance(check.get("text"), str)
        ),
        link=os.path.relpath(page if page.is_file() else path, folder),
    )


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else ""
