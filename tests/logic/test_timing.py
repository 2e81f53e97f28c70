"""Where the time of a job goes."""

from __future__ import annotations

import pytest

from dcnumd.logic.timing import PIPELINE, StageClock, StageTimes, bottleneck


def test_clock_notes_one_stage_after_the_other():
    """Each span begins where the one before ended."""
    clock = StageClock()
    for stage in ("load", "segment", "load"):
        clock.tick(stage)
    assert [stage for stage, _, _ in clock.spans] == ["load", "segment", "load"]
    assert clock.spans[0][2] == clock.spans[1][1]
    assert clock.spans[1][2] == clock.spans[2][1]


def test_seconds_are_added_up_and_spans_are_told():
    """The sums are those of the spans, and whoever draws gets each of them with its worker."""
    told = []
    times = StageTimes(lambda *span: told.append(span))
    times.add(0, [("load", 1.0, 2.0), ("segment", 2.0, 2.5)])
    times.add(1, [("load", 1.0, 4.0)])
    with times.stage("finish"):
        pass
    assert times.seconds == pytest.approx({"load": 4.0, "segment": 0.5, "finish": 0.0}, abs=0.1)
    assert told[:3] == [(0, "load", 1.0, 2.0), (0, "segment", 2.0, 2.5), (1, "load", 1.0, 4.0)]
    assert told[3][:2] == (PIPELINE, "finish")


def test_workers_wait_while_they_do_nothing():
    """What the workers do not fill of their time is waiting; what the pipeline process waited comes from its pool."""
    waited = iter([10.0, 10.25])
    times = StageTimes()
    with times.pool(2, lambda: next(waited)):
        times.add(0, [("load", 0.0, 1e-9)])
    assert times.waiting["pipeline"] == 0.25
    assert times.waiting["workers"] > 0


@pytest.mark.parametrize(
    ("seconds", "workers", "expected"),
    [
        ({}, 2, ""),
        ({"load": 1.0, "pack": 3.0, "write": 2.0}, 1, "pack"),
        ({"load": 1.0, "pack": 3.0, "write": 2.0}, 2, "write"),
    ],
)
def test_bottleneck_is_what_takes_longest_on_the_clock(seconds, workers, expected):
    """A stage that all workers share takes less of the duration than one that the pipeline process does alone."""
    assert bottleneck(seconds, workers) == expected
