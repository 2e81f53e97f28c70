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
"""Multiprocessing context of the workers, which are forked from a server that has loaded the kernels."""

SHARED = ("mp_slot_index", "mp_active", "mp_num_workers_done", "mp_shutdown")
"""Attributes that a segmenter shares with its workers."""
CHECK_SECONDS = 0.01
"""Seconds between checks for another chunk by a worker without a pool; no event reports a new chunk to it."""


class MPOSegmenterWorker:
    """A worker that receives tasks from a pool or, without a pool, reacts to the events of its segmenter.

    Without a pool, a worker waits until `mp_active` is set, segments its slice of the slot at `mp_slot_index`, adds one
    to `mp_num_workers_done`, and waits for another chunk, or until `mp_shutdown` is set. This is how dcnum runs
    workers, and code written for dcnum may start them in this way.

    Parameters
    ----------
    segmenter
        The segmentation instance.
    sl_start, sl_stop
        Start and stop of the slice of a slot that this worker segments.

    Attributes
    ----------
    segmenter, slot_list, sl_start, sl_stop
        The current work; changed by the pool.
    mp_slot_index, mp_active, mp_num_workers_done, mp_shutdown
        The attributes of the segmenter with these names.
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
        """Run tasks until the pool closes the pipe or `mp_shutdown` is set."""
        if self._worker_end is None:
            self._follow_events()
        else:
            MessageLoop(self._worker_end, self.mp_shutdown, self._adopt).run()

    def _adopt(self, segmenter: SharedSegmenter, slot_list: Sequence[ChunkSlotData]) -> None:
        self.segmenter, self.slot_list = segmenter, slot_list
        for name in SHARED:
            setattr(segmenter, name, getattr(self, name))

    def _follow_events(self) -> None:
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
        """Connect the worker to a pool; called before `start`."""
        self.connection, self._worker_end = mp_spawn.Pipe()

    def start(self) -> None:
        """Start the child process, with one thread for numerical libraries."""
        try:
            fork_server.start_fork_server()
            self._server_pid = fork_server.server_pid() or 0
            super().start()
        except (OSError, EOFError) as error:
            # the server died at this moment, or memory is exhausted; a later attempt starts another server
            raise WorkerError(
                f"a worker process cannot be started: {error!r}", "worker_start", transient=True
            ) from error
        if self._worker_end is not None:
            self._worker_end.close()

    def __getstate__(self) -> dict[str, Any]:
        if self._worker_end is None:
            return self.__dict__
        # the child receives segmenter and slots with the first message, as with later ones
        return {**self.__dict__, "segmenter": None, "slot_list": None, "connection": None}

    def run(self) -> None:
        """Run as the base class does, ignoring interrupts from the terminal, which the parent handles."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # The pipeline replaces a worker when the server that forked it dies. The worker must end then, because it
        # shares its slots with its replacement.
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
        """Connect the worker to a pool; called before `start`."""
        self.connection, self._worker_end = LocalEnd.pair()

    def kill(self) -> None:
        """Do nothing: a thread cannot be killed, and ends when its pipe is closed."""
