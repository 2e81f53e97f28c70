"""The engineer's guide, as the tests read it."""

from __future__ import annotations

import re

from tests.support.source import PACKAGE

MANUAL = PACKAGE.parent / "docs" / "operations.md"


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the tables below a heading, until the next one of its rank, of rows that define codes."""
    rank = heading.partition(" ")[0]
    _, _, below = MANUAL.read_text("utf-8").partition(f"\n{heading}\n")
    assert below, f"{MANUAL.name} has no heading {heading!r}"
    section = re.split(rf"^#{{1,{len(rank)}}} ", below, maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def codes_in(cell: str) -> list[str]:
    """Return what a cell has in backticks."""
    return re.findall(r"`([a-z0-9_.]+)`", cell)


def documented(heading: str) -> list[str]:
    """Return the codes that the tables below a heading define."""
    return [code for row in rows(heading) for code in codes_in(row[0])]
