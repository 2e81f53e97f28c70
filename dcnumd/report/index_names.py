"""The names of measurements in an index: with as much of their folder as tells them from others of the same name."""

from __future__ import annotations

import html
import json
import posixpath
from collections.abc import Mapping

import markupsafe

from dcnumd.report.index_row import Line, shown_name
from dcnumd.words import distinct_names

Lines = Mapping[tuple[bytes, bool], Line]
"""Rows of an index by their identity."""


def told_apart(lines: Lines, former: Lines) -> list[Line]:
    """Return rows with names that distinguish them.

    Parameters
    ----------
    lines
        All rows of the index.
    former
        The rows before the last change, whose names distinguish them. Only rows with the name of one that was added or
        removed since are examined, because there may be thousands.

    Returns
    -------
    lines
        The rows in their order. Those whose text is as before are the same objects as in `former`.
    """
    changed = [line for identity, line in lines.items() if former.get(identity) is not line]
    changed += [line for identity, line in former.items() if lines.get(identity) is not line]
    names = {line.name.rpartition(b"/")[2] for line in changed}
    found = list(lines.values())
    # Why so few steps for each row: an update must not take long, and most rows are passed over.
    alike: dict[bytes, list[int]] = {name: [] for name in names}
    for number, line in enumerate(found if names else ()):
        if (name := line.name.rpartition(b"/")[2]) in names:
            alike[name].append(number)
    for name, numbers in alike.items():
        folders = [found[number].key.rpartition(b"/")[0] for number in numbers]
        paths = {folder: posixpath.join(_decoded(folder), html.unescape(_text(name))) for folder in set(folders)}
        distinct = distinct_names(paths.values())
        written = {folder: _written(distinct[path]) for folder, path in paths.items()}
        for number, folder in zip(numbers, folders, strict=True):
            if found[number].name != written[folder]:
                found[number] = _renamed(found[number], written[folder], former)
    return found


def _written(name: str) -> bytes:
    return str(markupsafe.escape(shown_name(name))).encode()


def _decoded(folder: bytes) -> str:
    """Return a folder from the key of a row, relative to that of the index; empty for that itself or if damaged."""
    # The key is a JSON string, whose closing quote came after the folder.
    try:
        value = json.loads(f'{html.unescape(_text(folder))}"') if folder else ""
    except (ValueError, RecursionError):
        return ""
    return value if isinstance(value, str) else ""


def _renamed(line: Line, name: bytes, former: Lines) -> Line:
    """Return a row with another name; the former row if that has the same text."""
    text = line.text.replace(b' data-name="%b"' % line.name, b' data-name="%b"' % name, 1)
    for end in (b"</a></th>", b"</th>"):
        text = text.replace(b">%b%b" % (line.name, end), b">%b%b" % (name, end), 1)
    before = former.get(line.identity)
    return before if before is not None and before.text == text else Line.read_all(text)[0]


def _text(written: bytes) -> str:
    return written.decode("utf-8", "replace")
