"""The index of a folder: a page with one row for each measurement, newest first, that links to the reports."""

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
from dcnumd.report.index_rebuild import content_of_file, rows_of_reports
from dcnumd.report.index_row import Line, encoded_key, joined, local_time, shown, shown_row
from dcnumd.report.request import IndexRow
from dcnumd.report.wording import LIGHTS
from dcnumd.write.result import REASONS, ResultFile

NAME = "index.html"
OTHER_NAME = "dcnumd-index.html"
"""The index in a folder that has an ``index.html`` of somebody else."""

GENERATOR = "dcnumd-index 1"
"""Who wrote the page, and with which rows."""
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
    """Bring the index of a folder up to date.

    The page is its own store: it has each measurement in one line, of which an update changes a few. It replaces the
    former page when it is complete, so that readers and killed processes leave a whole one. It does not wait for the
    disk: a page that is missing, damaged or of another version is made again of its whole rows and of the reports
    (``*.json``) in and below the folder, of which the pictures and the names of the measurements are not known.

    The page is ``index.html``. Where that is the name of something else (a page of somebody else, a link, a folder),
    that is left alone and the page is ``dcnumd-index.html``, and stays it as long as there is no index of ours under
    the first name.

    Only one process may update the index of a folder at a time.

    Parameters
    ----------
    folder
        Where the index is; it is made if it does not exist.
    rows
        Measurements to add; they replace the row of the same key, also that of a failure.
    failures
        All measurements that failed: other rows of failures go. None: they stay as they are.
    root
        No symbolic link may lead out of this folder; None: wherever `folder` is.
    removed
        Keys of rows to remove first.

    Returns
    -------
    path
        The index. It is not written again if nothing has changed.

    Raises
    ------
    ResultError
        If it cannot be read or written, with the reasons of `ResultFile`; ``output_exists`` if both names are taken.
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
        _change(lines, rows, failures, removed)
        # The keys make the order the same each time.
        ordered = sorted(lines.values(), key=lambda line: (line.at, line.key), reverse=True)
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
    """Bring the rows up to date."""
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
    """Return which of the two names is the index's."""
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
    """Return whether there is an index, ``ours`` or ``theirs``, or whether it is ``absent``."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return "absent"
    try:
        head = content_of_file(path, HEAD_BYTES)
    except FileNotFoundError:
        return "absent"
    except PermissionError:
        # ours can be read
        return "theirs"
    # What a file that was being written is after a power failure: empty, or full of zeros.
    return "ours" if head is not None and (OURS in head or not head.strip(b"\0")) else "theirs"


def _unreadable(path: pathlib.Path, error: OSError) -> ResultError:
    reason = REASONS.get(error.errno or 0, "output_folder")
    message = f"{path}: cannot be read ({error.strerror or error})"
    return ResultError(message, reason)


def _read(path: pathlib.Path) -> tuple[list[Line], bool]:
    """Return the whole rows of an index, and whether these are all."""
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
    """Yield the parts of the page."""
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
    """Return one of the macros of the template, filled in."""
    return str(getattr(_template(), name)(values)).encode()


@functools.cache
def _template() -> jinja2.environment.TemplateModule:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template("index.html.j2").module


@functools.cache
def _parts() -> tuple[markupsafe.Markup, markupsafe.Markup, str]:
    """Return the style, the script, and what tells the browser that it may run this script and no other."""
    styles = "\n".join((TEMPLATES / name).read_text("utf-8") for name in ("style.css", "index.css"))
    script = (TEMPLATES / "index.js").read_text("utf-8")
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return markupsafe.Markup(styles), markupsafe.Markup(script), script_hash  # noqa: S704 -- our own files
