"""Reads the tables of the engineer's guide, and of the page of log events."""

from __future__ import annotations

import pathlib
import re

from tests.support.source import PACKAGE

MANUAL = PACKAGE.parent / "docs" / "operations.md"
EVENTS = MANUAL.parent / "reference" / "events.md"


def rows(heading: str, page: pathlib.Path = MANUAL) -> list[list[str]]:
    """Return the cells of each table row that begins with a code, from a heading to the next one of its level."""
    rank = heading.partition(" ")[0]
    _, _, below = f"\n{page.read_text('utf-8')}".partition(f"\n{heading}\n")
    assert below, f"{page.name} has no heading {heading!r}"
    section = re.split(rf"^#{{1,{len(rank)}}} ", below, maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def codes_in(cell: str) -> list[str]:
    """Return the codes in backticks in a cell."""
    return re.findall(r"`([a-z0-9_.]+)`", cell)


def documented(heading: str, page: pathlib.Path = MANUAL) -> list[str]:
    """Return the codes that the tables below a heading define."""
    return [code for row in rows(heading, page) for code in codes_in(row[0])]
