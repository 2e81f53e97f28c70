"""Reports that wait for folders that accept none, with a clock that does not wait."""

from __future__ import annotations

import asyncio
import itertools
import pathlib

from dcnumd.daemon.clock import now
from dcnumd.daemon.measurements.waiting_reports import CHECK_SECONDS, WaitingReports
from dcnumd.errors import ResultError
from dcnumd.status import Blocked
from tests.support.loop import in_loop

FULL, OTHER = pathlib.Path("/full"), pathlib.Path("/other")
ERROR = ResultError("no space there", "no_space")


@in_loop
async def test_one_report_is_tried_for_all_until_the_folder_accepts_it():
    """Each in turn, at growing intervals; then all others are made, with the attempts that they had."""
    tried: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
    reports = WaitingReports(lambda row, attempts: tried.put_nowait((row, attempts)))
    assert not reports.join(FULL, 1, 0)
    assert reports.add(FULL, 1, 0, ERROR)
    for row in (2, 3):
        assert reports.join(FULL, row, 2)
    assert not reports.join(OTHER, 4, 0)
    assert reports.blocked() == (Blocked("/full", "report.blocked", "no_space", "no space there", 3),)
    times, rows = [now()], []
    for _ in range(9):
        row, attempts = await tried.get()
        times.append(now())
        rows.append(row)
        assert not reports.join(FULL, row, attempts)
        assert not reports.add(FULL, row, attempts, ERROR)
        assert tried.empty()
    assert rows == [1, 2, 3] * 3
    pauses = [round(later - earlier) for earlier, later in itertools.pairwise(times)]
    assert pauses == [1, 2, 4, 8, 16, 32, *[CHECK_SECONDS] * 3]
    row, _ = await tried.get()
    reports.release(FULL, row)
    assert [tried.get_nowait() for _ in range(2)] == [(2, 2), (3, 2)]
    assert not reports.join(FULL, 5, 0)
    assert not reports.blocked()


@in_loop
async def test_another_report_is_tried_if_one_is_not_wanted_any_more():
    """Also if it was just to be tried; after the last of them nothing waits for the folder."""
    tried: asyncio.Queue[int] = asyncio.Queue()
    reports = WaitingReports(lambda row, _: tried.put_nowait(row))
    for row in (1, 2, 3):
        if not reports.join(FULL, row, 0):
            reports.add(FULL, row, 0, ERROR)
    reports.forget(3)
    assert await tried.get() == 1
    reports.forget(1)
    assert await tried.get() == 2
    assert reports.blocked()[0].waiting == 1
    reports.forget(2)
    assert not reports.join(FULL, 4, 0)
