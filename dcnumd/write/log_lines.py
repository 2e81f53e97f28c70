"""Lines of the logs in a result, none of which is too long for dclab's check."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

LOG_WIDTH = 100
"""Longest line of a log that dclab accepts [bytes]."""
CONTINUED = "    "
"""A line that begins so goes on with the line before."""
INDENT = 2
"""Blanks before a line of JSON, for each level."""
_BREAK = re.compile(r"[\t\n\v\f\r]")


def encode_line(line: str) -> bytes:
    """Return a line as it is stored; names of files need not be valid text, and what is not comes as an escape."""
    return line.encode("utf-8", "backslashreplace")


def fold(line: str) -> list[str]:
    """Break a line where it is too long, after a blank if there is one, and indent the rest.

    What follows `CONTINUED` in the second line and further ones, appended to the first, is the line again.
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
    """Return the lines that `fold` has broken in one piece each."""
    whole: list[str] = []
    for line in lines:
        if whole and line.startswith(CONTINUED):
            whole[-1] += line.removeprefix(CONTINUED)
        else:
            whole.append(line)
    return whole


def json_lines(document: Mapping[str, Any]) -> list[str]:
    """Return a document as lines of JSON; a text that is too long for a line becomes a list of its parts.

    JSON cannot break a text. What JSON does not know, such as a path, is written as text.
    """
    return json.dumps(_with_short_texts(document, 0, LOG_WIDTH), indent=INDENT).splitlines()


def joined(value: object) -> str:
    """Return a text from a document of `json_lines`, which may be there in parts; empty for anything else."""
    parts = value if isinstance(value, list) else [value]
    texts = [part for part in parts if isinstance(part, str)]
    return "".join(texts) if len(texts) == len(parts) else ""


def _with_short_texts(value: Any, depth: int, room: int) -> Any:
    """Return a JSON value in which each text fits into its line.

    Parameters
    ----------
    value
        What is to be written.
    depth
        How many levels it is inside.
    room
        How many characters may be in its line.
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
    """Return how many characters at the beginning of a text have room."""
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
