"""An executor with one process.

Why not `concurrent.futures.ProcessPoolExecutor`? Its queues use named semaphores, which are left behind if all
processes are killed; it cannot ask a running call to stop, and a running call cannot send notes.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, ParamSpec, TypeVar

from dcnumd.processes.child_line import Answer, Call, Note, Stop, work

P = ParamSpec("P")
R = TypeVar("R")


class ProcessDied(BrokenProcessPool):
    """The process ended before it answered.

    Parameters
    ----------
    exitcode
        Exit code of the process; negative if a signal ended it, None if there was no process.
    """

    def __init__(self, exitcode: int | None = None) -> None:
        super().__init__(exitcode)
        self.exitcode = exitcode

    def __str__(self) -> str:
        return f"the process {self.end}"

    @property
    def end(self) -> str:
        """Description of the end of the process, as the predicate of a sentence."""
        if self.exitcode is None:
            return "was not there"
        if self.exitcode < 0:
            return f"was killed by {signal.Signals(-self.exitcode).name}"
        return f"ended with exit code {self.exitcode}"


def _ignore(_: object) -> None:
    pass


class PipeExecutor(Executor):
    """Executes calls in a spawned process, one after the other, in the order of their submission.

    When the process dies, all unanswered calls fail with `ProcessDied`.

    Parameters
    ----------
    prepare
        Function that is called in the process before anything else; it must be picklable.
    on_note
        Function that is called in a thread of this executor with each note of a running call.
    """

    def __init__(self, prepare: Callable[[], object], on_note: Callable[[Any], object] = _ignore) -> None:
        context = multiprocessing.get_context("spawn")
        self._line, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=work, args=(theirs, prepare))
        self.ended: Future[None] = Future()
        """Future that is done when the process has ended."""
        self._on_note = on_note
        self._lock = threading.Lock()
        self._number = 0
        self._pending: dict[int, Future[Any]] = {}
        self._broken = False
        self.process.start()
        # The child has its own copy now. With this one open, the pipe would not signal the end of the child.
        theirs.close()
        self._listener = threading.Thread(target=self._listen, name="answers", daemon=True)
        self._listener.start()

    @property
    def dead(self) -> bool:
        """Whether the process has died, even if the listener has not noticed it yet."""
        return bool(wait([self.process.sentinel], timeout=0))

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Schedule a call in the process."""
        future: Future[R] = Future()
        # The call cannot be cancelled once it was sent.
        future.set_running_or_notify_cancel()
        with self._lock:
            if self._broken:
                future.set_exception(ProcessDied(self.process.exitcode))
                return future
            self._number += 1
            self._pending[self._number] = future
            try:
                self._line.send(Call(self._number, fn, args, kwargs))
            except OSError:
                # The process has just died; the listener sets the exception of all futures.
                return future
            except BaseException as error:  # noqa: BLE001 -- the caller passed something that cannot be pickled
                del self._pending[self._number]
                future.set_exception(error)
        return future

    def ask_to_stop(self) -> None:
        """Ask the running call to stop."""
        with self._lock, contextlib.suppress(OSError):
            if self._pending:
                self._line.send(Stop(min(self._pending)))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 -- of `Executor`
        """End the process as soon as all calls are answered."""
        with self._lock, contextlib.suppress(OSError):
            self._line.send(None)
        if wait:
            self.process.join()
            self._listener.join()

    def _listen(self) -> None:
        """Set the results of the futures until the process ends."""
        while True:
            if self._line not in wait([self._line, self.process.sentinel]):
                break
            try:
                message = self._line.recv()
            except (EOFError, OSError):
                break
            except Exception as problem:  # noqa: BLE001 -- it fails the call that was answered
                message = Answer(min(self._pending, default=0), error=problem)
            if isinstance(message, Note):
                self._on_note(message.value)
            else:
                self._hand_out(message)
        self.process.join()
        with self._lock:
            self._broken = True
            lost, self._pending = self._pending, {}
            self._line.close()
        for future in lost.values():
            future.set_exception(ProcessDied(self.process.exitcode))
        self.ended.set_result(None)

    def _hand_out(self, answer: Answer) -> None:
        with self._lock:
            future = self._pending.pop(answer.number, None)
        if future is None:
            # The call was ended before by a note that could not be read.
            return
        if answer.error is not None:
            future.set_exception(answer.error)
        else:
            future.set_result(answer.value)
