"""Long tests begin first, and in each process."""

from __future__ import annotations

import pathlib

import pytest

from tests.support.order import dealt, is_slow, mark_slow


class Item:
    """What the order of tests depends on."""

    def __init__(self, path, number, *fixtures, marked=False):
        self.path, self.nodeid = pathlib.Path(path), f"{path}::{number}"
        self.fixturenames = fixtures
        self.markers = ["slow"] if marked else []

    def add_marker(self, marker):
        self.markers.append(marker.name)

    def get_closest_marker(self, name):
        return name if name in self.markers else None


def test_who_starts_a_whole_program_is_slow():
    """A fixture is enough, also one that a fixture asks for; other tests say so themselves."""
    items = [Item("a", 1, "tmp_path", "browser"), Item("a", 2, "tmp_path"), Item("a", 3, marked=True)]
    mark_slow(items)
    assert [is_slow(item) for item in items] == [True, False, True]


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_each_process_begins_with_what_is_slow(processes):
    """No test is lost; the slow tests of a file stay together and in order; the parts are those of pytest-xdist."""
    slow = [Item(f"slow{file}", number, marked=True) for file in range(5) for number in range(1 + file)]
    items = [*slow[:7], *[Item("quick", number) for number in range(50)], *slow[7:]]
    order = dealt(items, processes)
    assert sorted(item.nodeid for item in order) == sorted(item.nodeid for item in items)
    left, parts = list(order), []
    for number in range(processes):
        size = len(left) // (processes - number)
        parts.append(left[:size])
        del left[:size]
    begins = [[item for item in part if is_slow(item)] for part in parts]
    assert [part[: len(first)] for part, first in zip(parts, begins, strict=True)] == begins
    assert max(map(len, begins)) - min(map(len, begins)) <= 5
    for first in begins:
        for path in {item.path for item in first}:
            numbers = [item.nodeid for item in first if item.path == path]
            assert numbers == [item.nodeid for item in slow if item.path == path]


def test_tests_that_share_a_program_stay_together():
    """Also those of several files: the program starts in one process only."""
    files = [Item(f"slow{file}", number, "usual", marked=True) for file in range(3) for number in range(2)]
    items = [item for file in files for item in (file, Item(file.path, "own", marked=True))]
    order = dealt([*items, *(Item("quick", number) for number in range(40))], 2)
    places = [order.index(item) for item in files]
    assert places == list(range(places[0], places[0] + len(files)))


def test_only_slow_tests_are_dealt_as_well():
    """More of them than fit into a part are no reason to lose one."""
    slow = [Item("one", number, marked=True) for number in range(9)]
    assert [item.nodeid for item in dealt(slow, 4)] == [item.nodeid for item in slow]
    assert dealt([], 4) == []
