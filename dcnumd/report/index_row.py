"""One measurement as one line of an index: what is shown of it, and how it is recognised when the index is read."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import json
import os
import urllib.parse
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Self

import markupsafe

from dcnumd.report.request import IndexRow
from dcnumd.report.wording import LIGHTS

MAX_TEXT = 400
"""Characters of a name or sentence that are shown."""
MAX_TEXTS = 12
MAX_THUMBNAIL = 2**16
"""Bytes; a larger picture is left out, since it would make the page of thousands of rows slow."""
PRINTED = frozenset("\u200c\u200d\u00a0")
"""Not printable to Python, and yet part of words and numbers: they join characters or keep them apart."""

STATES = frozenset((*(light.encode() for light in LIGHTS), b"failed"))
NAMES = [b"<tr data-key=", b" data-at=", b" data-light=", b" data-events="]
"""How a row begins, without the values."""
END = b"</tr>"
NEWLINE = memoryview(b"\n")


class Line(NamedTuple):
    """A row of the index as it is in the file."""

    key: bytes
    """The row's key as `encoded_key` writes it."""
    at: bytes
    """When it was processed, as it is written."""
    light: bytes
    """Its traffic light, or ``failed``."""
    events: bytes
    """Their number; empty if it is not known."""
    source: bytes
    """What has the line, without its end, from `start` to before `end`. Rows that stay as they are, of which a page
    may have thousands, are not copied."""
    start: int
    end: int

    @classmethod
    def read_all(cls, content: bytes) -> list[Self]:
        """Return all whole rows of a file."""
        lines = []
        start = 0
        while start < len(content):
            end = content.find(b"\n", start)
            end = len(content) if end < 0 else end
            # Twice as fast as a regular expression.
            parts = content[start:end].split(b'"', 8)
            if parts[:7:2] == NAMES and parts[-1].endswith(END):
                _, key, _, at, _, light, _, events, _ = parts
                if light in STATES and (events.isdigit() or not events):
                    lines.append(cls(key, at, light, events, content, start, end))
            start = end + 1
        return lines

    @property
    def text(self) -> bytes:
        """The line, without its end."""
        return self.source[self.start : self.end]

    @property
    def identity(self) -> tuple[bytes, bool]:
        """What is there once: a measurement that failed may have the name of a result."""
        return self.key, self.light == b"failed"


def joined(lines: Iterable[Line]) -> Iterator[memoryview]:
    """Yield lines, each with its end, in as few pieces as possible."""
    source, start, end = b"", 0, 0
    for line in lines:
        if line.source is source and line.start == end + 1:
            end = line.end
            continue
        if source:
            yield memoryview(source)[start:end]
            yield NEWLINE
        source, start, end = line.source, line.start, line.end
    if source:
        yield memoryview(source)[start:end]
        yield NEWLINE


@dataclasses.dataclass(frozen=True, slots=True)
class ShownRow:
    """What the template writes; everything but `key` and `link` is text that is escaped there."""

    key: markupsafe.Markup
    at: str
    light: str
    colour: str
    word: str
    name: str
    link: str
    sample: str
    recorded: str
    processed: str
    events: int | None
    reason: str
    texts: tuple[str, ...]
    picture: str


def shown_row(row: IndexRow) -> ShownRow:
    """Return what is shown of a measurement."""
    failed = row.state == "failed"
    texts = [shown(text) for text in row.texts[: MAX_TEXTS + failed]]
    return ShownRow(
        key=encoded_key(row.key),
        at=shown(row.finished),
        light="failed" if failed else row.light,
        colour="red" if failed else row.light,
        word="Failed" if failed else LIGHTS[row.light],
        name=shown(row.name) or "(no name)",
        link=encoded_link(row.link),
        sample=shown(row.sample),
        recorded=shown(row.recorded),
        processed=local_time(row.finished),
        events=row.events,
        reason=texts[0] if failed and texts else "",
        texts=tuple(texts[failed:]),
        picture=base64.b64encode(row.thumbnail).decode() if len(row.thumbnail) <= MAX_THUMBNAIL else "",
    )


def encoded_key(key: str) -> markupsafe.Markup:
    """Return a key as the value of an attribute.

    It is a string of JSON in ASCII, so that bytes of a name that are no UTF-8, and whatever ends a line, survive.
    """
    return markupsafe.escape(json.dumps(key))


def encoded_link(path: str) -> str:
    """Return a relative path as a link, byte by byte as the file system has it; empty for a path that is absolute."""
    if path.startswith("/"):
        return ""
    try:
        return urllib.parse.quote(os.fsencode(path))
    except UnicodeEncodeError:
        # half a character, which no file can be called
        return ""


def shown(text: str) -> str:
    """Return text in which everything can be seen, in one line.

    Control characters, those that turn the direction of writing, and bytes that are no text become escapes.
    """
    if len(text) > MAX_TEXT:
        text = f"{text[:MAX_TEXT]} …"
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in PRINTED else _escaped(character) for character in text
    )


def local_time(stamp: str) -> str:
    """Return a time of the computer's zone, as the instrument writes it; as it is if it is none."""
    try:
        moment = dt.datetime.fromisoformat(stamp)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=dt.UTC)
        return moment.astimezone().strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError):
        return shown(stamp)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
