"""Restores the rows of a lost index from the reports in its folder."""

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
"""Largest size of a file that is read as a report [bytes]."""


def rows_of_reports(folder: pathlib.Path) -> list[IndexRow]:
    """Return a row for each report (``*.json``) in and below a folder; other files are ignored.

    Symbolic links are not followed, and hidden folders are not entered.

    Raises
    ------
    OSError
        If the folder itself cannot be read; files and folders in it that cannot be read are left out.
    """
    # Why this line: os.walk ignores the error of a folder that cannot be read.
    next(folder.iterdir(), None)
    return [
        row
        for path in _candidates(folder)
        if (document := read_document(path)) is not None and (row := _row(folder, path, document)) is not None
    ]


def content_of_file(path: pathlib.Path, size: int = -1) -> bytes | None:
    """Return the first `size` bytes of a file (all if negative); None if the path is not a regular file.

    Raises
    ------
    OSError
        If the file does not exist or cannot be read.
    """
    if not stat.S_ISREG(path.lstat().st_mode):
        return None
    # The flags keep a link or pipe that has replaced the file meanwhile from being followed or waited for.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        return file.read(size)


def _candidates(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (pathlib.Path(place, name) for name in sorted(names) if name.endswith(".json"))


def read_document(path: pathlib.Path) -> dict[str, Any] | None:
    """Return the figures of a report (``*.json``); None if the file is not a report, or cannot be read."""
    try:
        content = content_of_file(path, MAX_BYTES)
        document = json.loads(content) if content and FORMAT.encode() in content else None
    except (OSError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) and document.get("format") == FORMAT else None


def _row(folder: pathlib.Path, path: pathlib.Path, document: Mapping[str, Any]) -> IndexRow | None:
    """Return the row of a report; None if it lacks the time when it was made or a valid traffic light."""
    light = LIGHTS.get(_text(document, "light"))
    made = _text(document, "made")
    if light is None or not made:
        return None
    events = document.get("events")
    named = _text(document, "result").rpartition("/")[2]
    result = path.with_name(named if named not in {"", ".", ".."} else f"{path.stem}.rtdc")
    page = path.with_suffix(".html")
    checks = document.get("checks")
    return IndexRow(
        key=os.path.relpath(result, folder),
        name=result.name,
        sample=_text(document, "sample"),
        recorded=_text(document, "recorded"),
        finished=made,
        state="done",
        events=events if type(events) is int and 0 <= events < 2**63 else None,
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
