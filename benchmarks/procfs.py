"""What Linux tells of running processes under /proc."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
from collections.abc import Iterable

PROC = pathlib.Path("/proc")
VOLUNTARY_LINE = re.compile(r"^voluntary_ctxt_switches:\s+(\d+)", re.MULTILINE)
READ_LINE = re.compile(r"^rchar:\s+(\d+)", re.MULTILINE)
GONE = (FileNotFoundError, ProcessLookupError)


def process_tree(root: int) -> list[int]:
    """Return the process `root` and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (fields := stat_fields(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    tree, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        tree.append(pid)
        waiting.extend(children.get(pid, ()))
    return tree


def stat_fields(pid: int) -> list[str]:
    """Return the fields of a process from its state on; none when it has ended."""
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except GONE:
        return []
    # the name in brackets before them may hold spaces
    return stat.rpartition(")")[2].split()


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU time of processes and of their ended children [s]."""
    ticks = sum(int(field) for pid in pids for field in stat_fields(pid)[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def minor_faults(pids: Iterable[int]) -> int:
    """Return how often processes were given a page of memory."""
    return sum(int(field) for pid in pids for field in stat_fields(pid)[7:8])


def wake_ups(pids: Iterable[int]) -> int:
    """Return how often the threads of processes went to sleep, which is how often they were woken."""
    count = 0
    for pid in pids:
        for status in (PROC / str(pid) / "task").glob("*/status"):
            with contextlib.suppress(*GONE):
                match = VOLUNTARY_LINE.search(status.read_text())
                count += int(match[1]) if match else 0
    return count


def bytes_read(pids: Iterable[int]) -> int:
    """Return how many bytes processes have read, from the disk or its cache."""
    count = 0
    for pid in pids:
        match = READ_LINE.search((PROC / str(pid) / "io").read_text())
        count += int(match[1]) if match else 0
    return count
