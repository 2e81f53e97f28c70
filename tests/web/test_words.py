"""Warnings have words, and numbers are said as people say them."""

from __future__ import annotations

import time

import pytest

from dcnumd.report import wording
from dcnumd.web import words


def test_unknown_warnings_speak_for_themselves():
    assert wording.warning_words(("few_events", "flux_capacitor")) == "few events, flux capacitor"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (99_400, "99.4 kB"), (999_900, "1.0 MB"), (28.4e6, "28.4 MB")],
)
def test_sizes(value, text):
    assert words.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "time left not known yet"),
        (0.2, "less than 1 s left"),
        (61, "about 61 s left"),
        (200, "about 3:20 min left"),
    ],
)
def test_time_left(value, text):
    assert words.time_left(value) == text


def test_times_of_other_days_have_the_day(monkeypatch):
    monkeypatch.setenv("TZ", "Etc/GMT-2")
    time.tzset()
    try:
        now = "2026-11-21T23:30:00.000Z"
        assert words.clock("2026-11-21T22:00:01.000Z", now) == "00:00:01"
        assert words.clock("2026-11-21T21:59:59.000Z", now) == "Nov 21, 23:59"
        assert words.clock("2025-11-21T21:59:59.000Z", now) == "2025-11-21"
        assert words.clock(None, now) == words.clock("", now) == "\N{EN DASH}"
        assert str(words.local_day(now)) == "2026-11-22"
    finally:
        monkeypatch.undo()
        time.tzset()
