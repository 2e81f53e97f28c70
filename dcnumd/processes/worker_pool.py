"""The parent's side of the workers: hand out tasks, collect replies, replace the dead.

Each worker has a pipe of its own and works off its tasks in the order in which they were sent. The parent waits for
pipes and process sentinels together, so that a reply and a death are noticed at once and without polling. Workers
hold no lock that the parent or another worker waits for: a killed one costs its tasks, nothing else.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import multiprocessing.connection
import multiprocessing.util
import time
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

from dcnumd.errors import WorkerError
from dcnumd.processes.local_pipe import PipeEnd

logger = logging.getLogger(__name__)

JOIN_SECONDS = 1.0
"""Time in which workers that were asked to end must end [s]."""
DRAIN_SECONDS = 1.0
"""Time until a worker is replaced whose answer nobody wants any more [s]: it may be stuck in foreign code."""
CHECK_SECONDS = 0.2
"""Largest time between two looks at other things while answers are waited for [s]."""
TASKS_AHEAD = 2
"""Tasks in each worker's pipe, so that it never waits for the parent."""


class WorkerHandle(Protocol):
    """What the parent sees of a worker, be it a process or a thread."""

    connection: PipeEnd

    @property
    def pid(self) -> int | None:
        """Its process id."""

    @property
    def sentinel(self) -> int | None:
        """What becomes ready when it dies; None for a thread, which cannot be killed from outside."""

    def start(self) -> None:
        """Start it."""

    def is_alive(self) -> bool:
        """Return whether it runs."""

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended."""

    def kill(self) -> None:
        """End it at once, if it is a process."""


W = TypeVar("W", bound=WorkerHandle)


@dataclasses.dataclass(frozen=True, slots=True)
class Reply:
    """What became of a task: a value, an error, or neither if the worker died."""

    task: Any
    worker: int
    """Which worker, counted from 0."""
    value: Any = None
    error: BaseException | None = None
    lost: bool = False
    """Whether the worker died before it could answer."""
    suspect: bool = False
    """Whether it died while working on this very task."""


class WorkerPool(Generic[W]):
    """Workers that stay for all files; a message binds them to the next one.

    Parameters
    ----------
    start_worker
        Makes and starts one worker.
    """

    def __init__(self, start_worker: Callable[[int], W]) -> None:
        self.workers: list[W] = []
        # a program that ends without stopping the workers would wait for them for ever
        multiprocessing.util.Finalize(self, self._stop, (self.workers,), exitpriority=0)
        self.set_starter(start_worker)
        self._pending: dict[int, collections.deque[Any]] = {}
        self._binding: object = None
        self.seconds_waited = 0.0
        """Time that the parent has waited for replies."""

    def set_starter(self, start_worker: Callable[[int], W]) -> None:
        """Take another bound method that makes and starts one worker."""
        # held weakly: a cycle would keep the memory of one segmenter for each file until the collector comes by
        self._starter = weakref.WeakMethod(start_worker)

    def start_worker(self, index: int) -> W:
        """Make and start one worker."""
        starter = self._starter()
        assert starter is not None, "a pool does not outlive its segmenter"
        return starter(index)

    def bind(self, message: object, number: int) -> None:
        """Bind all workers to a file, replacing the dead and starting what is missing."""
        self._binding = message
        self._stop(self.workers[number:])
        for index in range(number, len(self.workers)):
            self._pending.pop(index, None)
        del self.workers[number:]
        for index in range(number):
            if index == len(self.workers):
                self.workers.append(self.start_worker(index))
            elif not self.workers[index].is_alive():
                self._restart(index)
            elif self._pending.get(index):
                # an answer to a task of another file must never be taken for one of this file
                self.workers[index].kill()
                self._restart(index)
            self._send_bind(index)

    def _send_bind(self, index: int) -> None:
        self._pending[index] = collections.deque()
        try:
            self.workers[index].connection.send(self._binding)
        except OSError:
            # it died a moment ago; the next `collect` sees that and replaces it
            return

    def _restart(self, index: int) -> None:
        """Put a new worker in the place of a dead one."""
        dead = self.workers[index]
        # if that fails, everything is as it was
        self.workers[index] = self.start_worker(index)
        dead.connection.close()
        dead.join()
        fields = {"event": "worker.lost", "pid": dead.pid, "role": "segmenter"}
        logger.warning("worker process %s died and was replaced", dead.pid, extra={"fields": fields})

    @property
    def idle(self) -> bool:
        """Whether all tasks are answered."""
        return not any(self._pending.values())

    def submit(self, index: int, task: Any) -> None:
        """Send a task to a worker."""
        self._pending[index].append(task)
        try:
            self.workers[index].connection.send(task)
        except OSError:
            # its death is reported by `collect`, with all its tasks
            return

    def work(
        self,
        next_task: Callable[[], Any | None],
        give_back: Callable[[Any], None],
        look_up: Callable[[], None] = lambda: None,
    ) -> Iterator[Reply]:
        """Keep all workers busy and yield what they answer, until there is nothing left to do.

        Parameters
        ----------
        next_task
            Returns the next task, None when there is none at the moment; asked again after each reply.
        give_back
            Takes back the task of a worker that died, for another one to try.
        look_up
            Called often, also while no answer comes; what it raises ends the work.

        Raises
        ------
        Exception
            The first error of a worker, or that a task has killed two; tasks may be pending then, see `drain`.
        """
        suspects: set[Any] = set()
        while True:
            self.hand_out(next_task)
            if self.idle:
                return
            look_up()
            for reply in self.collect(CHECK_SECONDS):
                if reply.error is not None:
                    raise reply.error
                if not reply.lost:
                    yield reply
                    continue
                if reply.suspect and reply.task in suspects:
                    raise lost_worker_error(reply.task)
                if reply.suspect:
                    suspects.add(reply.task)
                give_back(reply.task)

    def hand_out(self, next_task: Callable[[], Any | None]) -> None:
        """Give tasks to the workers that have the fewest."""
        while True:
            index = min(range(len(self.workers)), key=lambda worker: len(self._pending[worker]))
            if len(self._pending[index]) >= TASKS_AHEAD or (task := next_task()) is None:
                return
            self.submit(index, task)

    def run(self, tasks: Sequence[Any], look_up: Callable[[], None] = lambda: None) -> Generator[Reply]:
        """Have tasks done in any order; what is pending when the caller closes the generator is drained.

        Parameters
        ----------
        tasks
            What to do.
        look_up
            As for `work`.

        Raises
        ------
        Exception
            As `work`.
        """
        waiting = collections.deque(tasks)
        try:
            yield from self.work(lambda: waiting.popleft() if waiting else None, waiting.appendleft, look_up)
        finally:
            self.drain()

    def collect(self, timeout: float | None = None) -> list[Reply]:
        """Wait for at least one reply or death and return all there are; dead workers are replaced."""
        sources: dict[Any, int] = {}
        for index, worker in enumerate(self.workers):
            sources[worker.connection] = index
            if worker.sentinel is not None:
                sources[worker.sentinel] = index
        begin = time.perf_counter()
        ready = multiprocessing.connection.wait(list(sources), timeout)
        self.seconds_waited += time.perf_counter() - begin
        readable = {index for index, worker in enumerate(self.workers) if worker.connection in ready}
        replies: list[Reply] = []
        for index in sorted({sources[source] for source in ready}):
            replies.extend(self._receive(index) if index in readable else self._replace(index))
        return replies

    def _receive(self, index: int) -> list[Reply]:
        """Take one answer from a pipe that has something to read; the end of the pipe is the end of the worker."""
        try:
            value, error = self.workers[index].connection.recv()
        except (EOFError, OSError):
            # it died, perhaps in the middle of an answer
            return self._replace(index)
        except Exception as problem:  # noqa: BLE001 -- an answer that cannot be read is the error of its task
            value, error = None, WorkerError(f"a worker's answer cannot be read: {problem!r}", "worker")
        return [Reply(self._pending[index].popleft(), index, value, error)]

    def _replace(self, index: int) -> list[Reply]:
        lost = [
            Reply(task, index, lost=True, suspect=position == 0) for position, task in enumerate(self._pending[index])
        ]
        self._restart(index)
        self._send_bind(index)
        return lost

    def drain(self) -> None:
        """Wait until all tasks are answered and forget the answers; workers that take too long are replaced."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while not self.idle:
            left = deadline - time.monotonic()
            if left > 0:
                self.collect(left)
                continue
            for index in [index for index, tasks in self._pending.items() if tasks]:
                self.workers[index].kill()
                self._replace(index)

    def stop(self) -> None:
        """Ask all workers to end; who does not is made to."""
        self._stop(self.workers)
        self.workers.clear()
        self._pending.clear()

    @staticmethod
    def _stop(workers: Sequence[WorkerHandle]) -> None:
        for worker in workers:
            worker.connection.close()
        deadline = time.monotonic() + JOIN_SECONDS
        for worker in workers:
            worker.join(max(0.0, deadline - time.monotonic()))
        for worker in workers:
            if worker.is_alive():
                worker.kill()
                worker.join()


def lost_worker_error(task: object) -> WorkerError:
    """Return the error for a task that has killed two workers."""
    return WorkerError(
        f"two worker processes died one after the other while working on {task}; "
        "the system log tells whether memory ran out",
        "worker_died",
    )
