"""Lines of the logs in a result, within the length that dclab accepts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

LOG_WIDTH = 100
"""Largest length of a log line that dclab accepts [bytes]."""
CONTINUED = "    "
"""Prefix of a line that continues the line before."""
INDENT = 2
"""Number of blanks per level of JSON."""
_BREAK = re.compile(r"[\t\n\v\f\r]")


def encode_line(line: str) -> bytes:
    """Return a line as stored, in UTF-8; invalid text, for example in file names, becomes escape sequences."""
    return line.encode("utf-8", "backslashreplace")


def fold(line: str) -> list[str]:
    """Split a line that is too long, after a blank if possible; all parts but the first begin with `CONTINUED`.

    The parts without `CONTINUED`, joined, are the line.
    """
    line = _BREAK.sub(" ", line)
    parts = []
    indent = ""
    while (end := _fitting(line, LOG_WIDTH - len(indent), _stored_size)) < len(line):
        cut = line.rfind(" ", 0, end) + 1 or end
        parts.append(indent + line[:cut])
        line = line[cut:]
        indent = CONTINUED
    return [*parts, indent + line]


def unfold(lines: Iterable[str]) -> list[str]:
    """Join the parts of lines that `fold` has split."""
    whole: list[str] = []
    for line in lines:
        if whole and line.startswith(CONTINUED):
            whole[-1] += line.removeprefix(CONTINUED)
        else:
            whole.append(line)
    return whole


def json_lines(document: Mapping[str, Any]) -> list[str]:
    """Return a document as lines of JSON.

    A text that is too long for a line becomes a list of its parts, because JSON has no way to continue a text in the
    next line. Values of types that JSON lacks, such as paths, become text.
    """
    return json.dumps(_with_short_texts(document, 0, LOG_WIDTH), indent=INDENT).splitlines()


def joined(value: object) -> str:
    """Return a text from a document of `json_lines`, joined if it is a list of parts; empty for other values."""
    parts = value if isinstance(value, list) else [value]
    texts = [part for part in parts if isinstance(part, str)]
    return "".join(texts) if len(texts) == len(parts) else ""


def _with_short_texts(value: Any, depth: int, room: int) -> Any:
    """Return a JSON value with texts split so that each fits into its line.

    Parameters
    ----------
    value
        The value.
    depth
        Number of levels above it.
    room
        Number of bytes that fit into its line.
    """
    inner = LOG_WIDTH - INDENT * (depth + 1) - len(",")
    if isinstance(value, Mapping):
        keys = {key: len(json.dumps(str(key)) + ": ") for key in value}
        return {str(key): _with_short_texts(value[key], depth + 1, inner - keys[key]) for key in value}
    if isinstance(value, list | tuple):
        return [_with_short_texts(item, depth + 1, inner) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    return text if len(json.dumps(text)) <= room else _parts(text, inner - len('""'))


def _parts(text: str, room: int) -> list[str]:
    parts = []
    while text:
        end = _fitting(text, room, _json_size)
        parts.append(text[:end])
        text = text[end:]
    return parts


def _fitting(text: str, room: int, size_of: Callable[[str], int]) -> int:
    """Return the number of characters at the beginning of a text that fit."""
    size = 0
    for number, character in enumerate(text):
        size += size_of(character)
        if size > room:
            return number
    return len(text)


def _stored_size(character: str) -> int:
    return len(encode_line(character))


def _json_size(character: str) -> int:
    return len(json.dumps(character)) - len('""')
