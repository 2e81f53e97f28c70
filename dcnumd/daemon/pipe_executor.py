"""An executor with one process and nothing else: no semaphores or other names that stay when everything is killed."""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

Call = tuple[int, Callable[..., Any], tuple[Any, ...], dict[str, Any]]
Answer = tuple[int, Any, BaseException | None]


class PipeExecutor(Executor):
    """Calls functions in a spawned process, one after the other, in the order in which they were submitted.

    When the process dies, all calls without an answer end with `BrokenProcessPool`.

    Parameters
    ----------
    prepare
        Called in the process before anything else; it must be picklable.
    """

    def __init__(self, prepare: Callable[[], None]) -> None:
        context = multiprocessing.get_context("spawn")
        self._line, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_answer_calls, args=(theirs, prepare))
        self.ended: Future[None] = Future()
        """Done when the process has ended."""
        self._lock = threading.Lock()
        self._number = 0
        self._pending: dict[int, Future[Any]] = {}
        self._broken = False
        self.process.start()
        # The child has its copy now; ours would hide its end.
        theirs.close()
        self._listener = threading.Thread(target=self._listen, name="answers", daemon=True)
        self._listener.start()

    @property
    def dead(self) -> bool:
        """Whether the process has died, be it noticed by its listener or not."""
        return bool(wait([self.process.sentinel], timeout=0))

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Have a function called in the process."""
        future: Future[R] = Future()
        # It cannot be taken back any more.
        future.set_running_or_notify_cancel()
        with self._lock:
            if self._broken:
                future.set_exception(BrokenProcessPool("the process is gone"))
                return future
            self._number += 1
            self._pending[self._number] = future
            call: Call = (self._number, fn, args, kwargs)
            try:
                self._line.send(call)
            except OSError:
                # It died a moment ago, and the listener says so to everybody.
                return future
            except BaseException as error:  # noqa: BLE001 -- what cannot be pickled is the caller's mistake
                del self._pending[self._number]
                future.set_exception(error)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 -- Executor's
        """End the process when it has answered everything."""
        with self._lock, contextlib.suppress(OSError):
            self._line.send(None)
        if wait:
            self.process.join()
            self._listener.join()

    def _listen(self) -> None:
        """Hand out answers until the process ends."""
        while True:
            if self._line not in wait([self._line, self.process.sentinel]):
                break
            try:
                number, value, error = self._line.recv()
            except (EOFError, OSError):
                break
            except Exception as problem:  # noqa: BLE001 -- it belongs to the call whose answer cannot be read
                number, value, error = min(self._pending), None, problem
            with self._lock:
                future = self._pending.pop(number)
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(value)
        self.process.join()
        with self._lock:
            self._broken = True
            lost, self._pending = self._pending, {}
            self._line.close()
        for future in lost.values():
            future.set_exception(BrokenProcessPool(f"the process ended with exit code {self.process.exitcode}"))
        self.ended.set_result(None)


def _answer_calls(line: Connection, prepare: Callable[[], None]) -> None:
    """Work in the process: call what is asked for until there is nothing more."""
    prepare()
    while (call := _next_call(line)) is not None:
        number, function, args, kwargs = call
        answer: Answer
        try:
            answer = number, function(*args, **kwargs), None
        except BaseException as error:  # noqa: BLE001 -- it belongs to whoever asked
            answer = number, None, error
        try:
            data = pickle.dumps(answer)
            pickle.loads(data)  # noqa: S301 -- our own; some errors can be written, but not read again
        except Exception as error:  # noqa: BLE001 -- whatever it is, the caller must not wait for ever
            shown = repr(answer[2] or answer[1])[:2000]
            answer = number, None, RuntimeError(f"the answer cannot be sent ({error!r}): {shown}")
        line.send(answer)


def _next_call(line: Connection) -> Call | None:
    try:
        call: Call | None = line.recv()
    except EOFError:
        # Whoever asked is gone.
        return None
    return call
