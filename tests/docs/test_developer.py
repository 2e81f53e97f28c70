"""The developer's page names rooms and modules that exist."""

from __future__ import annotations

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "developer.md").read_text()
ROWS = re.findall(r"^\| (`[^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE)
"""First and second cell of each row of a table of rooms."""


def modules(*folders: pathlib.Path) -> set[str]:
    """Return the names of all modules and rooms directly in these folders."""
    return {path.stem for folder in folders for path in folder.iterdir()}


@pytest.mark.parametrize(("rooms", "text"), [row for row in ROWS if not row[0].startswith("`tests/")])
def test_tables_name_rooms_and_modules_that_exist(rooms, text):
    """A room is a module or folder of the package or of its daemon; what its row names is in it, or beside it."""
    package, names = ROOT / "dcnumd", re.findall(r"`(\w+)`", rooms)
    parents = [package, package / "daemon"]
    homes = [parent / name for parent in parents for name in names if (parent / name).is_dir()]
    assert set(names) <= modules(*parents)
    assert set(re.findall(r"`(\w+)`", text)) <= modules(*parents, *homes)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:tests/)?\w+/\w+\.py)`", PAGE))))
def test_paths_of_modules_exist(path):
    """A path is given from the top, from the package, or from its daemon."""
    assert any((parent / path).exists() for parent in (ROOT, ROOT / "dcnumd", ROOT / "dcnumd" / "daemon"))
