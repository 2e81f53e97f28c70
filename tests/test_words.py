"""Spans of time are said as people say them."""

from __future__ import annotations

import math

import pytest

from dcnumd.words import UNKNOWN, duration, duration_parts


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
