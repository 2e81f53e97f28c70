"""Several daemons use one cluster, and each gets its turn."""

from __future__ import annotations

import itertools

import pytest

from dcnumd.daemon.cluster.turns import MAX_LEAD_SECONDS, urgency
from tests.support.daemon import Daemon
from tests.support.faults import published

FILES = 4
"""Number of measurements of each daemon."""


def test_a_priority_is_a_limited_lead():
    """Whatever the priorities are, a job precedes all that are handed out long after it."""
    assert urgency(1, 1000.0) > urgency(0, 1000.0) > urgency(-1, 1000.0)
    assert urgency(1, 1059.0) > urgency(0, 1000.0) > urgency(1, 1061.0)
    assert urgency(10**6, 1000.0) < urgency(-(10**6), 999.0 - 2 * MAX_LEAD_SECONDS)


@pytest.mark.slow
@pytest.mark.soak
def test_three_daemons_share_a_worker(cluster, tmp_path):
    """Those with equal priorities take turns; every second turn is that of the one with a higher priority."""
    daemons = {}
    try:
        for name, priority in (("a", 0), ("b", 0), ("urgent", 1)):
            folder = tmp_path / name
            folder.mkdir()
            config = tmp_path / f"{name}.toml"
            config.write_text(
                f'[watch]\nfolders = ["{folder}"]\nsettle_seconds = 0.3\npriority = {priority}\n'
                f'[state]\nfolder = "{folder}/.state"\n[report]\nenabled = false\n{cluster.config()}'
            )
            for number in range(FILES):
                published(folder, f"{name}{number}.rtdc", seed=number)
            daemons[name] = Daemon.start(config)
        for daemon in daemons.values():
            daemon.wait_for("job.queued", count=FILES)
        worker = cluster.start_worker("shared")
        for daemon in daemons.values():
            daemon.wait_for("job.finished", count=FILES)
        ends = [(event["timestamp"], name) for name, one in daemons.items() for event in one.matching("job.finished")]
        order = [name for _, name in sorted(ends)]
        # Its next job is handed out while the worker has another one already.
        assert len(order) - order[::-1].index("urgent") <= 2 * FILES + 1, order
        others = [name for name in order if name != "urgent"]
        assert max(len(list(same)) for _, same in itertools.groupby(others)) <= 2, order
        assert worker.stop() == 0
        assert [daemon.stop() for daemon in daemons.values()] == [0, 0, 0]
    finally:
        for daemon in daemons.values():
            daemon.close()
