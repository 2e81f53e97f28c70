"""The processes that belong to a daemon, found by a variable in their environment, whoever their parent is."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import signal
import time
import uuid
from collections.abc import Iterable

MARK = "DCNUMD_SOAK"
PROC = pathlib.Path("/proc")
GONE = (FileNotFoundError, ProcessLookupError, PermissionError)


@dataclasses.dataclass(frozen=True)
class Process:
    """One process of a daemon."""

    pid: int
    parent: int
    role: str
    """``daemon``, ``child`` (pipeline, probe or reporter), ``fork server``, ``worker``, ``tracker`` or ``other``."""

    def kill(self, number: int = signal.SIGKILL) -> bool:
        """Send a signal; return whether there was a process to send it to."""
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True


class Family:
    """All processes that were started with the same mark in their environment.

    Parameters
    ----------
    environment
        Further variables for the daemon.
    """

    def __init__(self, environment: dict[str, str] | None = None) -> None:
        self._mark = uuid.uuid4().hex
        self.environment = {**(environment or {}), MARK: self._mark}

    def processes(self) -> list[Process]:
        """Return those that live, without zombies, which only wait for their parent to take note."""
        marked = f"{MARK}={self._mark}".encode()
        found: dict[int, tuple[int, str]] = {}
        for folder in PROC.iterdir():
            with contextlib.suppress(*GONE):
                if folder.name.isdigit() and marked in (folder / "environ").read_bytes().split(b"\0"):
                    # the name in brackets before these fields may hold spaces
                    state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
                    if state not in "ZX":
                        found[int(folder.name)] = int(parent), (folder / "cmdline").read_text().replace("\0", " ")
        return [Process(pid, parent, _role(pid, found)) for pid, (parent, _) in found.items()]

    def of_role(self, *roles: str) -> list[Process]:
        """Return the processes that do this."""
        return [process for process in self.processes() if process.role in roles]

    def named_memory(self) -> set[pathlib.Path]:
        """Return what processes share by a name, which would stay when all of them are killed."""
        found = set()
        for process in self.processes():
            with contextlib.suppress(*GONE):
                lines = (PROC / str(process.pid) / "maps").read_text().splitlines()
                found |= {pathlib.Path(line.split(maxsplit=5)[5]) for line in lines if "/dev/shm/" in line}  # noqa: S108
        return found

    def wait_until_gone(self, seconds: float) -> list[Process]:
        """Wait until no process is left; return those that are."""
        deadline = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return left

    def kill_all(self) -> None:
        """Leave nothing behind."""
        while processes := self.processes():
            for process in processes:
                process.kill()
            time.sleep(0.02)


def _role(pid: int, family: dict[int, tuple[int, str]]) -> str:
    parent, command = family[pid]
    above = family.get(parent, (0, ""))[1]
    if "resource_tracker" in command:
        return "tracker"
    if "multiprocessing.forkserver" in command:
        return "worker" if "multiprocessing.forkserver" in above else "fork server"
    if "multiprocessing.spawn" in command:
        return "child"
    # between fork and exec a process looks like its parent
    return "daemon" if "-m dcnumd" in command and "-m dcnumd" not in above else "other"


@dataclasses.dataclass(frozen=True)
class Usage:
    """What processes hold together."""

    processes: int
    threads: int
    open_files: int
    rss: int
    """Resident memory, what is shared counts for each [bytes]."""
    pss: int
    """Resident memory but what is mapped from files, what is shared counts once [bytes].

    Programs that others run have the same libraries mapped, and would count.
    """
    shared: int
    """Resident shared memory, counts once [bytes]."""

    @classmethod
    def of(cls, pids: Iterable[int]) -> Usage:
        """Add up what processes hold now."""
        totals = dict.fromkeys((field.name for field in dataclasses.fields(cls)), 0)
        for pid in pids:
            with contextlib.suppress(*GONE):
                folder = PROC / str(pid)
                sizes = _sizes(folder / "smaps_rollup")
                one = {
                    "processes": 1,
                    "threads": len(list((folder / "task").iterdir())),
                    "open_files": len(list((folder / "fd").iterdir())),
                    "rss": sizes["Rss"],
                    "pss": sizes["Pss_Anon"] + sizes["Pss_Shmem"],
                    "shared": sizes["Pss_Shmem"],
                }
                totals = {name: totals[name] + value for name, value in one.items()}
        return cls(**totals)


def _sizes(path: pathlib.Path) -> dict[str, int]:
    """Return the sizes in a rollup of memory maps [bytes]."""
    lines = (line.split() for line in path.read_text().splitlines()[1:])
    return {fields[0].rstrip(":"): int(fields[1]) * 1024 for fields in lines}


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU time that processes have used [s], as fine as the scheduler counts it."""
    nanoseconds = 0
    for pid in pids:
        for task in (PROC / str(pid) / "task").glob("*/schedstat"):
            with contextlib.suppress(*GONE):
                nanoseconds += int(task.read_text().split()[0])
    return nanoseconds / 1e9
