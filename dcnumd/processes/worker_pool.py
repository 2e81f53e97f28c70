"""The parent's side of the worker pool: distribution of tasks, collection of replies, replacement of dead workers.

Each worker has its own pipe and processes its tasks in the order in which they were sent. The parent waits for all
pipes and process sentinels in one call, so that a reply or a death is noticed at once, without polling.

Why not `multiprocessing.Pool` or `concurrent.futures.ProcessPoolExecutor`? Their workers share a queue with a lock, and
a worker that is killed while it holds the lock blocks all others; here its tasks are repeated by another worker.
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
"""Time after which a worker is killed that was asked to end [s]."""
DRAIN_SECONDS = 1.0
"""Time after which a worker is replaced whose answer is no longer needed [s]; it may hang in foreign code."""
CHECK_SECONDS = 0.2
"""Longest time between two calls of `look_up` while the parent waits for replies [s]."""
TASKS_AHEAD = 2
"""Number of tasks in the pipe of each worker, so that it never waits for the parent."""


class WorkerHandle(Protocol):
    """Interface of a worker, either a process or a thread, for the parent."""

    connection: PipeEnd

    @property
    def pid(self) -> int | None:
        """Process ID."""

    @property
    def sentinel(self) -> int | None:
        """File descriptor that becomes ready when the process dies; None for a thread, which cannot be killed."""

    def start(self) -> None:
        """Start the worker."""

    def is_alive(self) -> bool:
        """Return whether the worker is running."""

    def join(self, timeout: float | None = None) -> None:
        """Wait until the worker has ended."""

    def kill(self) -> None:
        """Kill the worker if it is a process."""


W = TypeVar("W", bound=WorkerHandle)


@dataclasses.dataclass(frozen=True, slots=True)
class Reply:
    """Outcome of a task: a value, an error, or neither if the worker died."""

    task: Any
    worker: int
    """Index of the worker."""
    value: Any = None
    error: BaseException | None = None
    lost: bool = False
    """Whether the worker died before it answered."""
    suspect: bool = False
    """Whether the worker died while it processed this task."""


class WorkerPool(Generic[W]):
    """Persistent workers for all files; a message binds them to the next file.

    Parameters
    ----------
    start_worker
        Bound method that creates and starts a worker, given its index.
    """

    def __init__(self, start_worker: Callable[[int], W]) -> None:
        self.workers: list[W] = []
        # Otherwise a program that ends without stopping the workers would wait for them forever.
        multiprocessing.util.Finalize(self, self._stop, (self.workers,), exitpriority=0)
        self.set_starter(start_worker)
        self._pending: dict[int, collections.deque[Any]] = {}
        self._binding: object = None
        self.seconds_waited = 0.0
        """Total time that the parent has waited for replies [s]."""

    def set_starter(self, start_worker: Callable[[int], W]) -> None:
        """Replace the bound method that creates and starts a worker."""
        # A weak reference: a cycle would keep the memory of each segmenter until the garbage collector runs.
        self._starter = weakref.WeakMethod(start_worker)

    def start_worker(self, index: int) -> W:
        """Create and start a worker."""
        starter = self._starter()
        assert starter is not None, "a pool does not outlive its segmenter"
        return starter(index)

    def bind(self, message: object, number: int) -> None:
        """Bind all workers to a file; replace dead workers, and start missing ones."""
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
                # A late answer to a task of the previous file must not be taken for an answer to a task of this file.
                self.workers[index].kill()
                self._restart(index, died=False)
            self._send_bind(index)

    def _send_bind(self, index: int) -> None:
        self._pending[index] = collections.deque()
        try:
            self.workers[index].connection.send(self._binding)
        except OSError:
            # The worker has just died; the next `collect` replaces it.
            return

    def _restart(self, index: int, *, died: bool = True) -> None:
        """Replace a worker that has died, or that was killed because nobody needs its answer any more."""
        dead = self.workers[index]
        # If this raises, the pool is unchanged.
        self.workers[index] = self.start_worker(index)
        dead.connection.close()
        dead.join()
        if died:
            fields = {"event": "worker.lost", "pid": dead.pid, "role": "segmenter"}
            logger.warning("worker process %s died and was replaced", dead.pid, extra={"fields": fields})

    @property
    def idle(self) -> bool:
        """Whether there are no unanswered tasks."""
        return not any(self._pending.values())

    def submit(self, index: int, task: Any) -> None:
        """Send a task to a worker."""
        self._pending[index].append(task)
        try:
            self.workers[index].connection.send(task)
        except OSError:
            # The worker has died; `collect` reports all its tasks as lost.
            return

    def work(
        self,
        next_task: Callable[[int], Any | None],
        give_back: Callable[[Any], None],
        look_up: Callable[[], None] = lambda: None,
    ) -> Iterator[Reply]:
        """Keep all workers busy and yield their replies, until there are no tasks left.

        Parameters
        ----------
        next_task
            Function that returns the next task for the worker with this index, or None if there is none now; it is
            called again after each reply.
        give_back
            Function that accepts the task of a dead worker, so that another worker processes it.
        look_up
            Function that is called at least every `CHECK_SECONDS`; an exception that it raises ends the work.

        Raises
        ------
        Exception
            The first error of a worker, or a `WorkerError` if two workers died during the same task. Tasks may be
            pending afterwards; see `drain`.
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

    def hand_out(self, next_task: Callable[[int], Any | None]) -> None:
        """Send tasks to the workers with the fewest tasks, up to `TASKS_AHEAD` each."""
        candidates = set(range(len(self.workers)))
        while candidates:
            index = min(candidates, key=lambda worker: (len(self._pending[worker]), worker))
            if len(self._pending[index]) >= TASKS_AHEAD or (task := next_task(index)) is None:
                candidates.remove(index)
            else:
                self.submit(index, task)

    def run(self, tasks: Sequence[Any], look_up: Callable[[], None] = lambda: None) -> Generator[Reply]:
        """Process tasks in any order; if the caller closes the generator, pending tasks are drained.

        Parameters
        ----------
        tasks
            The tasks.
        look_up
            As for `work`.

        Raises
        ------
        Exception
            As for `work`.
        """
        waiting = collections.deque(tasks)
        try:
            yield from self.work(lambda _: waiting.popleft() if waiting else None, waiting.appendleft, look_up)
        finally:
            self.drain()

    def collect(self, timeout: float | None = None) -> list[Reply]:
        """Wait for at least one reply or death, replace dead workers, and return all replies."""
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
        """Receive one answer from a readable pipe; if the pipe is closed, the worker has died."""
        try:
            value, error = self.workers[index].connection.recv()
        except (EOFError, OSError):
            # The worker has died, possibly while it sent an answer.
            return self._replace(index)
        except Exception as problem:  # noqa: BLE001 -- an answer that cannot be read is an error of its task
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
        """Wait until all tasks are answered, and discard the answers; replace workers after `DRAIN_SECONDS`."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while not self.idle:
            left = deadline - time.monotonic()
            if left > 0:
                self.collect(left)
                continue
            for index in [index for index, tasks in self._pending.items() if tasks]:
                self.workers[index].kill()
                self._restart(index, died=False)
                self._send_bind(index)

    def stop(self) -> None:
        """Ask all workers to end, and kill those that have not ended after `JOIN_SECONDS`."""
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


def time_limit(seconds: float, what: str) -> Callable[[], None]:
    """Return a function for `look_up` that ends the work if it takes more than `seconds` [s].

    Parameters
    ----------
    seconds
        The limit [s], from now on.
    what
        What is not finished then, for the message.
    """
    end = time.monotonic() + seconds

    def check() -> None:
        if time.monotonic() > end:
            raise WorkerError(f"{what}: not finished after {seconds:g} s, so it was ended", "timeout")

    return check


def lost_worker_error(task: object) -> WorkerError:
    """Return the error for a task during which two workers died."""
    return WorkerError(
        f"two worker processes died one after the other while working on {task}; "
        "the system log tells whether memory ran out",
        "worker_died",
    )
