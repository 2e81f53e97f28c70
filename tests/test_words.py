"""Spans of time are said as people say them, and names of files tell them apart."""

from __future__ import annotations

import math
import os
import time

import pytest

from dcnumd.words import UNKNOWN, distinct_names, duration, duration_parts


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, UNKNOWN),
        (math.inf, UNKNOWN),
        (0.04, "0 s"),
        (2.8984, "2.9 s"),
        (3, "3 s"),
        (9.96, "10 s"),
        (119.4, "119 s"),
        (119.6, "2:00 min"),
        (187, "3:07 min"),
        (3599.6, "1:00 h"),
        (4800, "1:20 h"),
        (7199, "2:00 h"),
        (400_000, "5 d"),
    ],
)
def test_a_duration_has_the_unit_that_fits(seconds, text):
    """Never more digits than anybody needs, and never a rest of 60."""
    assert duration(seconds) == text
    assert " ".join(duration_parts(seconds)).rstrip() == text


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        ([], []),
        (["/srv/a/M1.rtdc"], ["M1.rtdc"]),
        (["/srv/a/M1.rtdc", "/srv/a/M2.rtdc"], ["M1.rtdc", "M2.rtdc"]),
        (["/srv/a/M1.rtdc", "/srv/b/M1.rtdc", "/srv/b/M2.rtdc"], ["a/M1.rtdc", "b/M1.rtdc", "M2.rtdc"]),
        (["/srv/a/run/M1.rtdc", "/srv/b/run/M1.rtdc"], ["a/run/M1.rtdc", "b/run/M1.rtdc"]),
        (["/srv/a/r/M1.rtdc", "/srv/b/r/M1.rtdc", "/srv/a/s/M1.rtdc"], ["a/r/M1.rtdc", "b/r/M1.rtdc", "s/M1.rtdc"]),
        (["/M1.rtdc", "/a/M1.rtdc", "/b/a/M1.rtdc"], ["/M1.rtdc", "/a/M1.rtdc", "b/a/M1.rtdc"]),
        (["M1.rtdc", "a/M1.rtdc", "b/a/M1.rtdc"], ["M1.rtdc", "a/M1.rtdc", "b/a/M1.rtdc"]),
        (["/srv/a/M1.rtdc", "/srv/a/M1.rtdc"], ["M1.rtdc", "M1.rtdc"]),
        (["/srv/1a/M1.rtdc", "/srv/a/M1.rtdc"], ["1a/M1.rtdc", "a/M1.rtdc"]),
        (["/srv/a/M1.rtdc", "/srv/a/XM1.rtdc"], ["M1.rtdc", "XM1.rtdc"]),
        (["/a//M1.rtdc", "/a/M1.rtdc", "/", "", "/a/"], ["/M1.rtdc", "a/M1.rtdc", "/", "", "a/"]),
        ([os.fsdecode(b"/\xff/M\xfe"), os.fsdecode(b"/\xfe/M\xfe")], ["\udcff/M\udcfe", "\udcfe/M\udcfe"]),
    ],
)
def test_a_name_has_as_much_of_its_folder_as_tells_it_from_the_others(paths, names):
    """A name that no other path has stays short; names are the same in any order."""
    assert [distinct_names(paths)[path] for path in paths] == names
    assert distinct_names(reversed(paths)) == distinct_names(paths)


def test_many_names_are_told_apart_in_a_moment():
    """Also where all are called the same, and where only the first of very many folders tells them apart."""
    paths = [f"/srv/acquisition/{number // 20}/M{number % 20:03}_data.rtdc" for number in range(20_000)]
    begin = time.process_time()
    names = distinct_names([*paths, f"/a{'/x' * 1000}/M.rtdc", f"/b{'/x' * 1000}/M.rtdc"])
    assert time.process_time() - begin < 3.0
    assert names[paths[-1]] == "999/M019_data.rtdc"
    assert len(set(names.values())) == len(names)
