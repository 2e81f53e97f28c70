"""The workers of a segmenter: processes, or one thread for debugging."""

from __future__ import annotations

import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Sequence
from typing import Any

from dcnumd.errors import WorkerError
from dcnumd.processes import fork_server
from dcnumd.processes.local_pipe import LocalEnd, PipeEnd
from dcnumd.segm.session import MessageLoop, SegmentSession, SegmentTask, SharedSegmenter
from dcnumd.shared_memory.slot import ChunkSlotData

mp_spawn = fork_server.context
"""Starts the workers: they are forked from a server that has loaded the kernels."""

SHARED = ("mp_slot_index", "mp_active", "mp_num_workers_done", "mp_shutdown")
"""Attributes that a segmenter and its workers have in common."""
CHECK_SECONDS = 0.01
"""Seconds between two checks for another chunk by a worker without a pool, which no event reports to it."""


class MPOSegmenterWorker:
    """A worker: takes tasks from its pool or, if it has none, heeds the events of its segmenter.

    Without a pool it segments its slice of the slot at `mp_slot_index` as soon as `mp_active` is set, adds one to
    `mp_num_workers_done`, and waits until there is another chunk, or until `mp_shutdown` is set.

    Parameters
    ----------
    segmenter
        The segmentation instance.
    sl_start, sl_stop
        Start and stop of the slice of a slot that this worker segments.

    Attributes
    ----------
    segmenter, slot_list, sl_start, sl_stop
        What to do; the pool changes it.
    mp_slot_index, mp_active, mp_num_workers_done, mp_shutdown
        Those of the segmenter.
    """

    connection: PipeEnd
    """The pool's end of the pipe."""
    _worker_end: PipeEnd | None = None

    def __init__(self, segmenter: SharedSegmenter, sl_start: int, sl_stop: int) -> None:
        super().__init__()
        self.segmenter = segmenter
        self.slot_list = segmenter.slot_list
        self.mp_slot_index = segmenter.mp_slot_index
        self.mp_active = segmenter.mp_active
        self.mp_num_workers_done = segmenter.mp_num_workers_done
        self.mp_shutdown = segmenter.mp_shutdown
        self.sl_start = sl_start
        self.sl_stop = sl_stop

    def run(self) -> None:
        """Work until the pool is gone or `mp_shutdown` is set."""
        if self._worker_end is None:
            self._heed_events()
        else:
            MessageLoop(self._worker_end, self.mp_shutdown, self._adopt).run()

    def _adopt(self, segmenter: SharedSegmenter, slot_list: Sequence[ChunkSlotData]) -> None:
        self.segmenter, self.slot_list = segmenter, slot_list
        for name in SHARED:
            setattr(segmenter, name, getattr(self, name))

    def _heed_events(self) -> None:
        slots = self.slot_list or []
        session = SegmentSession(self.segmenter, slots)
        last_chunk = -1
        events = [self.mp_active.fileno(), self.mp_shutdown.fileno()]
        while multiprocessing.connection.wait(events) and not self.mp_shutdown.is_set():
            index = self.mp_slot_index.value
            slot = slots[index]
            if slot.chunk == last_chunk:
                self.mp_shutdown.wait(CHECK_SECONDS)
                continue
            if self.sl_start < slot.length:
                session.run(SegmentTask(index, self.sl_start, min(self.sl_stop, slot.length)))
            last_chunk = slot.chunk
            with self.mp_num_workers_done:
                self.mp_num_workers_done.value += 1


class MPOSegmenterWorkerProcess(MPOSegmenterWorker, mp_spawn.Process):  # type: ignore[name-defined, misc]  # the context's class is made at run time
    """Worker process for CPU-based segmentation; see `MPOSegmenterWorker`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._server_pid = 0

    def connect(self) -> None:
        """Make the worker one of a pool, before it is started."""
        self.connection, self._worker_end = mp_spawn.Pipe()

    def start(self) -> None:
        """Start the child process, with one thread for numerical libraries."""
        try:
            fork_server.start_fork_server()
            self._server_pid = fork_server.server_pid() or 0
            super().start()
        except (OSError, EOFError) as error:
            # the server died at this moment, or there is no memory; a later attempt starts another one
            raise WorkerError(
                f"a worker process cannot be started: {error!r}", "worker_start", transient=True
            ) from error
        if self._worker_end is not None:
            self._worker_end.close()

    def __getstate__(self) -> dict[str, Any]:
        if self._worker_end is None:
            return self.__dict__
        # the child gets segmenter and slots with the first message, like any later ones
        return {**self.__dict__, "segmenter": None, "slot_list": None, "connection": None}

    def run(self) -> None:
        """Work as the base class says; an interrupt from the terminal is for the parent to answer."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # To the pipeline, a worker is dead when the server is that it was forked from. It must be so indeed: it
        # shares its slots with the one that replaces it.
        fork_server.die_with(self._server_pid)
        super().run()


class MPOSegmenterWorkerThread(MPOSegmenterWorker, threading.Thread):
    """Worker thread in this process, for debugging; see `MPOSegmenterWorker`."""

    sentinel: int | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.daemon = True

    @property
    def pid(self) -> int | None:
        """Process id of this process."""
        return os.getpid()

    def connect(self) -> None:
        """Make the worker one of a pool, before it is started."""
        self.connection, self._worker_end = LocalEnd.pair()

    def kill(self) -> None:
        """Threads end when their pipe is closed; there is nothing stronger."""
