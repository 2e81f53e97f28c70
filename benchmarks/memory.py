"""Peak memory of a process and everything below it."""

from __future__ import annotations

import re
import threading

from benchmarks.procfs import GONE, PROC, process_tree

SAMPLE_SECONDS = 0.1
PSS_LINE = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)


class PeakMemory:
    """Samples the proportional set size (PSS) of a process tree while the context is open.

    PSS counts a page that several processes share once in all, so the sum over the tree is what the tree takes.

    Parameters
    ----------
    pid
        Process identifier of the root.
    """

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self.peak_processes = 0
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="peak-memory")

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            pids = process_tree(self._pid)
            self.peak_bytes = max(self.peak_bytes, sum(pss_bytes(pid) for pid in pids))
            self.peak_processes = max(self.peak_processes, len(pids))


def pss_bytes(pid: int) -> int:
    """Return the proportional set size of a process; 0 when it has ended meanwhile."""
    try:
        rollup = (PROC / str(pid) / "smaps_rollup").read_text()
    except GONE:
        return 0
    match = PSS_LINE.search(rollup)
    return int(match[1]) * 1024 if match else 0
