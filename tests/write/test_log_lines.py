"""Logs have no long lines, and what is broken can be put together again."""

from __future__ import annotations

import json
import os
import pathlib

import pytest

from dcnumd.write.log_lines import CONTINUED, LOG_WIDTH, encode_line, fold, joined, json_lines

TEXTS = [
    "",
    "x" * LOG_WIDTH,
    "x" * (LOG_WIDTH + 1),
    "12:00:00 INFO Processing /" + "x" * 500,
    "12:00:00 INFO a  b " * 30,
    " " * 500,
    "µ" * 99,
    "12:00:00 WARNING " + "ü \N{MICROSCOPE}" * 200,
    os.fsdecode(b"/srv/\xff\xfe" * 80),
]


@pytest.mark.parametrize("text", TEXTS)
def test_long_lines_are_folded(text):
    """Each part fits as it is stored, none is empty, and together they are the line."""
    first, *rest = fold(text)
    assert all(len(encode_line(part)) <= LOG_WIDTH for part in (first, *rest))
    assert all(part.startswith(CONTINUED) and part != CONTINUED for part in rest)
    assert first + "".join(part.removeprefix(CONTINUED) for part in rest) == text


def test_lines_are_broken_after_blanks():
    """A word is broken only if it is too long itself."""
    assert fold("word " * 30) == ["word " * 20, f"{CONTINUED}{'word ' * 10}"]
    assert fold("one\ntwo\tthree") == ["one two three"]


@pytest.mark.parametrize("text", [*TEXTS, '"\\\n\0' * 50, "é" * 20])
def test_json_stays_json(text):
    """Texts that are too long are there in parts, at every level; the rest is as it was."""
    document = {"a": text, "deep": {"b": {"c key": [text, 1, None, {"d": (text, True)}]}}, "path": pathlib.Path("/a")}
    lines = json_lines(document)
    assert all(len(line) <= LOG_WIDTH and line.isascii() for line in lines)
    for separator in ("\n", ""):
        found = json.loads(separator.join(lines))
        first, one, nothing, inner = found["deep"]["b"]["c key"]
        assert [joined(part) for part in (found["a"], first, inner["d"][0])] == [text] * 3
        assert (one, nothing, inner["d"][1], found["path"]) == (1, None, True, "/a")
    assert isinstance(found["a"], list) is (len(json.dumps(text)) > LOG_WIDTH - len('  "a": ,'))


def test_only_texts_are_joined():
    """What a stranger's log has in place of a text is none."""
    assert [joined(value) for value in (None, 3, ["a", 1], {"a": "b"}, [["a"]])] == [""] * 5
