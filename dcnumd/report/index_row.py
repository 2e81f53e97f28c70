"""One measurement as one line of an index: how it is written, and how it is recognised when the index is read."""

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
"""Largest length of a name or sentence that is shown [characters]."""
MAX_TEXTS = 12
MAX_THUMBNAIL = 2**16
"""Largest size of a thumbnail that is shown; larger ones would make a page with thousands of rows slow [bytes]."""
PRINTED = frozenset("\u200c\u200d\u00a0")
"""Characters that Python counts as not printable but that are part of words and numbers: joiners and a space."""

STATES = frozenset((*(light.encode() for light in LIGHTS), b"failed"))
NAMES = [b"<tr data-key=", b" data-name=", b" data-at=", b" data-light=", b" data-events="]
"""The beginning of a row, split at its values."""
END = b"</tr>"
NEWLINE = memoryview(b"\n")


class Line(NamedTuple):
    """A row of the index as it is stored in the file."""

    key: bytes
    """The row's key as `encoded_key` writes it."""
    name: bytes
    """The name that is shown for the measurement, as written in the row."""
    at: bytes
    """The time when the measurement was processed, as written in the row."""
    light: bytes
    """The traffic light, or ``failed``."""
    events: bytes
    """The number of events; empty if not known."""
    source: bytes
    """The bytes that contain the line from `start` to `end`, without its line break. Why not a copy of the line: a
    page may have thousands of rows, most of which an update does not change."""
    start: int
    end: int

    @classmethod
    def read_all(cls, content: bytes) -> list[Self]:
        """Return all intact rows of a file."""
        lines = []
        start = 0
        while start < len(content):
            end = content.find(b"\n", start)
            end = len(content) if end < 0 else end
            # Why not a regular expression: it takes twice as long.
            parts = content[start:end].split(b'"', 10)
            if parts[:9:2] == NAMES and parts[-1].endswith(END):
                _, key, _, name, _, at, _, light, _, events, _ = parts
                if light in STATES and (events.isdigit() or not events):
                    lines.append(cls(key, name, at, light, events, content, start, end))
            start = end + 1
        return lines

    @property
    def text(self) -> bytes:
        """The line, without its line break."""
        return self.source[self.start : self.end]

    @property
    def identity(self) -> tuple[bytes, bool]:
        """What identifies a row: the key, and whether it is a failure, since a failure may have the key of a result."""
        return self.key, self.light == b"failed"


def joined(lines: Iterable[Line]) -> Iterator[memoryview]:
    """Yield lines with their line breaks; lines that are adjacent in their source are joined into one piece."""
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
    """The values that the template writes. It escapes all of them but `key`, which is escaped already."""

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
    """Return the values that the index shows for a measurement."""
    failed = row.state == "failed"
    texts = [shown(text) for text in row.texts[: MAX_TEXTS + failed]]
    return ShownRow(
        key=encoded_key(row.key),
        at=shown(row.finished),
        light="failed" if failed else row.light,
        colour="red" if failed else row.light,
        word="Failed" if failed else LIGHTS[row.light],
        name=shown_name(row.name) or "(no name)",
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
    """Return a key as the value of an HTML attribute.

    It is a JSON string in ASCII, which preserves line breaks and bytes that are not UTF-8.
    """
    return markupsafe.escape(json.dumps(key))


def encoded_link(path: str) -> str:
    """Return a relative path, percent-encoded byte by byte; empty for an absolute path or one that no file can have."""
    if path.startswith("/"):
        return ""
    try:
        return urllib.parse.quote(os.fsencode(path))
    except UnicodeEncodeError:
        # A lone surrogate that does not stand for a byte cannot be part of a file name.
        return ""


def shown(text: str) -> str:
    """Return text in one line, in which every character is visible, cut after `MAX_TEXT` characters.

    Control characters, characters that change the direction of writing, and undecodable bytes become escapes.
    """
    if len(text) > MAX_TEXT:
        text = f"{text[:MAX_TEXT]} …"
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in PRINTED else _escaped(character) for character in text
    )


def shown_name(name: str) -> str:
    """Return a name as `shown`, but cut at its beginning, since its end matters most."""
    return shown(name if len(name) <= MAX_TEXT else f"… {name[-MAX_TEXT + 2 :]}")


def local_time(stamp: str) -> str:
    """Return a time stamp as local time, to the minute; text that is not a time stamp is returned as `shown`."""
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
