"""The index of a folder: a page with one row for each measurement, newest first, with links to the reports."""

from __future__ import annotations

import base64
import collections
import datetime as dt
import functools
import hashlib
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence

import jinja2
import markupsafe

from dcnumd.errors import ResultError
from dcnumd.report.index_names import told_apart
from dcnumd.report.index_rebuild import content_of_file, rows_of_reports
from dcnumd.report.index_row import Line, encoded_key, joined, local_time, shown, shown_row
from dcnumd.report.request import IndexRow
from dcnumd.report.wording import LIGHTS
from dcnumd.write.result import REASONS, ResultFile

NAME = "index.html"
OTHER_NAME = "dcnumd-index.html"
"""Name of the index in a folder that has an ``index.html`` that is not ours."""

GENERATOR = "dcnumd-index 2"
"""Value of the page's generator tag: the program, and the version of the rows."""
OURS = b'<meta name="generator" content="dcnumd-index '
COMPLETE = re.compile(rb"</html>\n<!-- " + GENERATOR.encode() + rb": (\d+) rows -->\n\Z")
HEAD_BYTES = 4096

TEMPLATES = pathlib.Path(__file__).parent / "templates"


def update_index(
    folder: pathlib.Path,
    rows: Sequence[IndexRow],
    failures: Sequence[IndexRow] | None,
    *,
    root: pathlib.Path | None = None,
    removed: Sequence[str] = (),
) -> pathlib.Path:
    """Update the index of a folder.

    The page is its own store: each measurement is one line of it, and an update changes a few lines. The new page
    replaces the former one when it is complete, so there is always a complete page, even if this process is killed. It
    is not synced to the disk, because it can be restored: if the page is missing, damaged or of another version, it is
    made again from its intact rows and from the reports (``*.json``) in and below the folder. These reports lack the
    thumbnails and the names of the measurements. Measurements of one name are shown with their folders.

    The page is ``index.html``. If something else has this name (a foreign page, a link, a folder), that is left alone,
    and the page is ``dcnumd-index.html``; it keeps this name until there is an index of ours under the first name.

    Only one process may update the index of a folder at a time.

    Parameters
    ----------
    folder
        Folder of the index; it is created if it does not exist.
    rows
        Measurements to add; each replaces the rows with its key, also that of a failure.
    failures
        All measurements that failed; other rows of failures are removed. None: rows of failures stay.
    root
        Folder that symbolic links must not lead out of; None: no such limit.
    removed
        Keys of rows to remove before others are added.

    Returns
    -------
    path
        The page. It is only written if something has changed.

    Raises
    ------
    ResultError
        If the page cannot be read or written, with the reasons of `ResultFile`; ``output_exists`` if both names are
        taken.
    """
    try:
        path = _path_of_index(folder)
    except OSError as error:
        raise _unreadable(folder / NAME, error) from error
    with ResultFile(path, existing="replace", root=root, durable=False) as target:
        try:
            former, complete = _read(path)
            found = [] if complete else [_line(row) for row in rows_of_reports(folder)]
        except OSError as error:
            raise _unreadable(path, error) from error
        lines = {line.identity: line for line in (*found, *former)}
        before = dict(lines) if complete else {}
        _change(lines, rows, failures, removed)
        # The key makes the order of rows with equal times reproducible.
        ordered = sorted(told_apart(lines, before), key=lambda line: (line.at, line.key), reverse=True)
        if not complete or ordered != former:
            with target.temporary.open("wb") as file:
                file.writelines(_page(folder, ordered))
            target.commit()
    return path


def _change(
    lines: dict[tuple[bytes, bool], Line],
    rows: Iterable[IndexRow],
    failures: Iterable[IndexRow] | None,
    removed: Iterable[str],
) -> None:
    """Update the rows in place."""
    former = dict(lines)
    gone = [encoded_key(key).encode() for key in (*removed, *(row.key for row in rows))]
    for key in gone:
        lines.pop((key, True), None)
        lines.pop((key, False), None)
    if failures is not None:
        for identity in [identity for identity in lines if identity[1]]:
            del lines[identity]
    for row in (*rows, *(failures or ())):
        line = _line(row)
        same = former.get(line.identity)
        lines[line.identity] = same if same is not None and same.text == line.text else line


def _path_of_index(folder: pathlib.Path) -> pathlib.Path:
    """Return the path of the index, which has one of two names."""
    first, other = folder / NAME, folder / OTHER_NAME
    kinds = {path: _kind(path) for path in (first, other)}
    if kinds[first] == "ours" or (kinds[first] == "absent" and kinds[other] != "ours"):
        return first
    if kinds[other] == "theirs":
        raise ResultError(
            f"{first}: it and {OTHER_NAME} are there and are no index of dcnumd; move one of them away",
            reason="output_exists",
        )
    return other


def _kind(path: pathlib.Path) -> str:
    """Return ``ours`` for an index of ours, ``theirs`` for anything else at a path, ``absent`` for nothing."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return "absent"
    try:
        head = content_of_file(path, HEAD_BYTES)
    except FileNotFoundError:
        return "absent"
    except PermissionError:
        # Our own index could be read.
        return "theirs"
    # After a power failure, a file that was being written is empty or full of zeros; such a file counts as ours.
    return "ours" if head is not None and (OURS in head or not head.strip(b"\0")) else "theirs"


def _unreadable(path: pathlib.Path, error: OSError) -> ResultError:
    reason = REASONS.get(error.errno or 0, "output_folder")
    message = f"{path}: cannot be read ({error.strerror or error})"
    return ResultError(message, reason)


def _read(path: pathlib.Path) -> tuple[list[Line], bool]:
    """Return the intact rows of an index, and whether these are all of its rows."""
    try:
        content = content_of_file(path) or b""
    except FileNotFoundError:
        return [], False
    if f'content="{GENERATOR}"'.encode() not in content[:HEAD_BYTES]:
        return [], False
    lines = Line.read_all(content)
    end = COMPLETE.search(content, max(0, len(content) - 100))
    return lines, end is not None and int(end[1]) == len(lines)


def _line(row: IndexRow) -> Line:
    (line,) = Line.read_all(_part("row", shown_row(row)))
    return line


def _page(folder: pathlib.Path, lines: Sequence[Line]) -> Iterator[bytes | memoryview]:
    """Yield the content of the page in pieces."""
    words = LIGHTS | {"failed": "Failed"}
    counts = collections.Counter(line.light.decode() for line in lines)
    style, script, script_hash = _parts()
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    values = {
        "generator": GENERATOR,
        "folder": shown(folder.name or os.fspath(folder)),
        "at": now,
        "changed": local_time(now),
        "style": style,
        "script": script,
        "script_hash": script_hash,
        "count": len(lines),
        "events": sum(int(line.events) for line in lines if line.events),
        "totals": [("all", "All", len(lines)), *((light, word, counts[light]) for light, word in words.items())],
    }
    yield _part("head", values)
    yield from joined(lines)
    yield _part("tail", values)


def _part(name: str, values: object) -> bytes:
    """Render one of the macros of the template."""
    return str(getattr(template(), name)(values)).encode()


@functools.cache
def template() -> jinja2.environment.TemplateModule:
    """Return the template of the index."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template("index.html.j2").module


@functools.cache
def _parts() -> tuple[markupsafe.Markup, markupsafe.Markup, str]:
    """Return the style, the script, and the script's hash, which allows the browser to run this script only."""
    styles = "\n".join((TEMPLATES / name).read_text("utf-8") for name in ("style.css", "index.css"))
    script = (TEMPLATES / "index.js").read_text("utf-8")
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return markupsafe.Markup(styles), markupsafe.Markup(script), script_hash  # noqa: S704 -- our own files
