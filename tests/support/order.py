"""Marks slow tests, and distributes tests among the processes of a test run."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import pytest

WHOLE_PROGRAMS = frozenset(
    {"start_daemon", "usual", "browser", "container", "oracle", "few_kernels", "installed", "site", "long_store"}
)
"""Fixtures that start a daemon, a browser, a computer, dcnum, a compiler, pip or another program."""
SHARED = frozenset({"usual", "shared_cluster"})
"""Those among them that tests of several files share."""
SECONDS_EACH = 4.0
"""Approximate duration of a slow test [s]."""
SECONDS = {
    "tests/benchmarks/": 25.0,
    "tests/daemon/cluster/": 15.0,
    "tests/daemon/test_faults_": 12.0,
    "tests/daemon/test_reports.py": 15.0,
    "tests/docs/test_commands.py": 1.0,
    "tests/docs/test_operator.py": 30.0,
    "tests/logic/": 0.5,
    "tests/parity/test_many.py": 20.0,
    "tests/parity/": 1.5,
    "tests/browser/test_live.py": 15.0,
    "tests/browser/": 1.5,
    "tests/report/": 1.0,
    "tests/simulate/test_demo.py": 30.0,
    "tests/soak/": 20.0,
    "tests/systemd/": 8.0,
    "tests/web/test_browser.py": 1.5,
}
"""Approximate duration of a slow test of these folders or files; the first key that is part of its ID counts [s]."""


def mark_slow(items: Iterable[pytest.Item]) -> None:
    """Mark tests with fixtures of `WHOLE_PROGRAMS` as slow; others are marked where they are defined."""
    for item in items:
        if WHOLE_PROGRAMS & _fixtures(item):
            item.add_marker(pytest.mark.slow)


def _fixtures(item: pytest.Item) -> set[str]:
    return set(getattr(item, "fixturenames", ()))


def is_slow(item: pytest.Item) -> bool:
    """Return whether a test is marked as slow."""
    return item.get_closest_marker("slow") is not None


def seconds(item: pytest.Item) -> float:
    """Return the approximate duration of a slow test [s]."""
    return next((known for part, known in SECONDS.items() if part in item.nodeid), SECONDS_EACH)


def dealt(items: Sequence[pytest.Item], processes: int) -> list[pytest.Item]:
    """Return tests in an order in which slow tests begin first.

    pytest-xdist cuts the list into parts of equal length, one for each process. A process that has finished its part
    takes tests from the end of another one. Therefore each part begins with its share of the slow tests and ends with
    quick ones. The slow tests of a file, or with a fixture of `SHARED`, stay together, because they share fixtures.
    """
    groups: dict[str, list[pytest.Item]] = {}
    for item in filter(is_slow, items):
        groups.setdefault(min(SHARED & _fixtures(item), default=str(item.path)), []).append(item)
    parts: list[list[pytest.Item]] = [[] for _ in range(processes)]
    loads = [0.0] * processes
    for tests in sorted(groups.values(), key=lambda tests: -sum(map(seconds, tests))):
        part = loads.index(min(loads))
        loads[part] += sum(map(seconds, tests))
        parts[part] += tests
    quick = [item for item in items if not is_slow(item)]
    left = len(items)
    for number, part in enumerate(parts):
        # The number of tests that pytest-xdist gives to the process.
        size = left // (processes - number)
        left -= size
        count = max(size - len(part), 0)
        part.extend(quick[:count])
        del quick[:count]
    return [*itertools.chain.from_iterable(parts), *quick]
