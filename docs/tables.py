"""Writes the tables of settings and of log events into the documents: ``python -m docs.tables``.

The settings come from ``config.toml`` and its comments, their types from `dcnumd.config.values`; the log events come
from their schema. Each table lies between two marks, ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->``.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dcnumd.config.values import Settings

DOCS = pathlib.Path(__file__).parent
SAMPLE = DOCS.parent / "config.toml"
SCHEMA = DOCS.parent / "dcnumd" / "daemon" / "events.schema.json"
SECTION = re.compile(r"\[([\w.]+)\]")
KEY = re.compile(r"(?:# )?(\w+) = (.*)")
WORDS = {bool: "`true`, `false`", int: "whole number", float: "number", str: "text", pathlib.Path: "path"}
EVERY_LINE = ("event", "level", "timestamp")
"""Fields of every line, which the page describes once; likewise those of `JOB`."""
JOB = ("job_id", "path", "ppid", "pphash")


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """Setting in the sample."""

    name: str
    """Section and key, with dots."""
    default: str
    """Default as TOML."""
    meaning: str
    """Comment above the key."""


def sample_keys() -> Iterator[Key]:
    """Yield the settings of the sample in their order, also those that are commented out."""
    section, comment = "", list[str]()
    for line in SAMPLE.read_text("utf-8").splitlines():
        if found := KEY.fullmatch(line):
            yield Key(f"{section}.{found[1]}", found[2], " ".join(comment))
            comment.clear()
        elif line.startswith("# "):
            comment.append(line[2:])
        else:
            comment.clear()
            if found := SECTION.fullmatch(line):
                section = found[1]


def settings() -> str:
    """Return a table of settings for each section of the sample."""
    lines, section = list[str](), ""
    for key in sample_keys():
        name = key.name.rpartition(".")[0]
        if name != section:
            section = name
            lines += ["", f"### [{section}]", "", "| key | default | value | meaning |", "|---|---|---|---|"]
        cells = (f"`{key.name}`", f"`{key.default}`", value(key.name), key.meaning)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines[1:])


def value(name: str) -> str:
    """Return which values a setting may have; an empty text for keywords of methods, which the method decides."""
    kind: Any = Settings
    *sections, last = name.split(".")
    for section in sections:
        kind = typing.get_type_hints(kind).get(section)
    if not dataclasses.is_dataclass(kind):
        return ""
    field = {field.name: field for field in dataclasses.fields(kind)}.get(last)
    return "" if field is None else described(typing.get_type_hints(kind)[last], field.metadata)


def described(hint: Any, limits: Mapping[str, Any]) -> str:
    """Return the words for a type and for the limits of its values."""
    if typing.get_origin(hint) is types.UnionType:
        hint = typing.get_args(hint)[0]
    if limits.get("short"):
        return "text or section"
    if limits.get("ends"):
        return "list of two numbers, the smaller one first, or `[]`"
    if limits.get("path_pairs"):
        return "table of paths"
    if typing.get_origin(hint) is tuple:
        return f"list of {described(typing.get_args(hint)[0], {})}s".replace("`s", "`")
    if typing.get_origin(hint) is typing.Literal:
        choices = [f'`"{choice}"`' for choice in typing.get_args(hint)]
        return ", ".join(choices if len(choices) < 6 else [*choices[:2], f"… {choices[-1]}"])
    words = WORDS[hint]
    if "above" in limits:
        words += f" above {limits['above']}"
    elif "maximum" in limits:
        words += f", {limits['minimum']} to {limits['maximum']}"
    elif "minimum" in limits or "minimum_or_0" in limits:
        words += f", {limits.get('minimum', 0)} or more"
    return words


def events() -> str:
    """Return the table of log events with their fields."""
    definitions = json.loads(SCHEMA.read_text("utf-8"))["$defs"]
    lines = ["| event | level | meaning | fields |", "|---|---|---|---|"]
    for name, definition in sorted(definitions.items()):
        if "." not in name:
            continue
        level = definition["properties"]["level"]
        levels = ", ".join(level.get("enum", [level.get("const")]))
        about_job = definition["$ref"].endswith("/job")
        known = (*EVERY_LINE, *JOB) if about_job else EVERY_LINE
        required = definition.get("required", ())
        fields = [
            field_words(field, content, required=field in required)
            for field, content in definition["properties"].items()
            if field not in known
        ]
        fields = ["the fields of a job", *fields] if about_job else fields
        lines.append(f"| `{name}` | {levels} | {definition['description']} | {'<br>'.join(fields)} |")
    return "\n".join(lines)


def field_words(name: str, content: Mapping[str, Any], *, required: bool) -> str:
    """Return a field of an event with its meaning and the codes that it may have."""
    words = content.get("description", "").rstrip(".")
    if content.get("$ref", "").endswith("/failure"):
        words = "one of the [reason codes](../operations.md#of-jobfailed)"
    codes = content.get("enum", [content["const"]] if "const" in content else [])
    listed = ", ".join(f"`{code}`" for code in codes)
    if inner := content.get("items", {}).get("properties", {}):
        listed = "; ".join(f"`{part}`, {about['description'].rstrip('.').lower()}" for part, about in inner.items())
    text = f"{words} ({listed})" if words and listed else words or listed
    return f"`{name}`{'' if required else ' (optional)'}: {text[0].lower()}{text[1:]}"


TABLES: Mapping[str, tuple[str, Callable[[], str]]] = {
    "settings": ("reference/config.md", settings),
    "events": ("reference/events.md", events),
}
"""Page and content of each table."""


def filled(page: str, name: str, content: str) -> str:
    """Return a page with the content between the marks of a name.

    Raises
    ------
    ValueError
        If the page lacks the marks.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, first, rest = page.partition(begin)
    _, last, after = rest.partition(end)
    if not (first and last):
        raise ValueError(f"the page has no section from {begin} to {end}")
    return f"{before}{begin}\n\n{content}\n\n{end}{after}"


def main() -> None:
    """Write all tables."""
    for name, (page, content) in TABLES.items():
        path = DOCS / page
        path.write_text(filled(path.read_text("utf-8"), name, content()), "utf-8")


if __name__ == "__main__":
    main()
