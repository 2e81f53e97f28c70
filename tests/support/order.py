"""Which tests are slow, and how they are dealt to the processes of a test run."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import pytest

WHOLE_PROGRAMS = frozenset(
    {"start_daemon", "usual", "browser", "container", "oracle", "few_kernels", "installed", "site", "long_store"}
)
"""Fixtures that start a daemon, a browser, a computer, dcnum, a compiler, pip or another program."""
SECONDS_EACH = 4.0
"""What a slow test takes, about [s]."""
SECONDS = {
    "tests/benchmarks/": 25.0,
    "tests/docs/test_operator.py": 30.0,
    "tests/parity/test_many.py": 20.0,
    "tests/parity/": 1.5,
    "tests/browser/": 1.5,
    "tests/simulate/test_demo.py": 30.0,
    "tests/soak/": 20.0,
    "tests/systemd/": 15.0,
    "tests/web/test_browser.py": 1.5,
}
"""The same for a test of a folder or a file, where that differs; of several parts of a name, the first counts."""


def mark_slow(items: Iterable[pytest.Item]) -> None:
    """Mark tests as slow that start a whole program; others are marked where they are written."""
    for item in items:
        if WHOLE_PROGRAMS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


def is_slow(item: pytest.Item) -> bool:
    """Return whether a test is marked as slow."""
    return item.get_closest_marker("slow") is not None


def seconds(item: pytest.Item) -> float:
    """Return what a slow test takes, about [s]."""
    return next((known for part, known in SECONDS.items() if part in item.nodeid), SECONDS_EACH)


def dealt(items: Sequence[pytest.Item], processes: int) -> list[pytest.Item]:
    """Return tests in an order in which no long one begins when the others are over.

    pytest-xdist cuts the list into parts of equal length, one for each process; who has finished its own takes over
    from the end of another one. Each part thus begins with its share of what is slow, and ends with what is quick. The
    slow tests of a file stay together, as they share fixtures.
    """
    files = [list(tests) for _, tests in itertools.groupby(filter(is_slow, items), lambda item: item.path)]
    parts: list[list[pytest.Item]] = [[] for _ in range(processes)]
    loads = [0.0] * processes
    for tests in sorted(files, key=lambda tests: -sum(map(seconds, tests))):
        part = loads.index(min(loads))
        loads[part] += sum(map(seconds, tests))
        parts[part] += tests
    quick = [item for item in items if not is_slow(item)]
    left = len(items)
    for number, part in enumerate(parts):
        # as many as pytest-xdist deals to the process
        size = left // (processes - number)
        left -= size
        count = max(size - len(part), 0)
        part.extend(quick[:count])
        del quick[:count]
    return [*itertools.chain.from_iterable(parts), *quick]
