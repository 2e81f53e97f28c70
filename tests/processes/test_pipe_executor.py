"""The executor of one process: real processes, real signals."""

from __future__ import annotations

import functools
import os
import pathlib
import pickle
import signal
import sys
import threading
from concurrent.futures.process import BrokenProcessPool

import pytest

from dcnumd.errors import MeasurementError
from dcnumd.processes import child_line
from dcnumd.processes.pipe_executor import PipeExecutor

NOTHING = functools.partial(os.getpid)


@pytest.fixture
def executor():
    made = PipeExecutor(NOTHING)
    yield made
    made.process.kill()
    made.shutdown()


def test_calls_are_answered_in_order(executor):
    """What functions return comes back, from one process that is not this one."""
    futures = [executor.submit(divmod, number, 7) for number in range(20)]
    assert [future.result(60) for future in futures] == [divmod(number, 7) for number in range(20)]
    pids = {executor.submit(os.getpid).result(60) for _ in range(3)}
    assert pids == {executor.process.pid}
    assert os.getpid() not in pids


def test_errors_come_back_as_they_are(executor, tmp_path):
    """An error of the call is raised here, also one that cannot be sent; the process goes on."""
    with pytest.raises(FileNotFoundError):
        executor.submit(os.stat, tmp_path / "missing").result(60)
    with pytest.raises(RuntimeError, match="cannot be sent"):
        executor.submit(threading.Lock).result(60)
    with pytest.raises(MeasurementError, match="no such") as caught:
        executor.submit(fail, "no such", "vanished").result(60)
    assert caught.value.reason == "vanished"
    with pytest.raises((AttributeError, pickle.PicklingError)):
        executor.submit(lambda: None).result(60)
    assert executor.submit(abs, -3).result(60) == 3


def fail(message, reason):
    raise MeasurementError(message, reason)


def test_death_ends_all_calls(executor):
    """When the process is killed every call that waits is told so, and later ones are, too."""
    executor.submit(abs, 1).result(60)
    blocked = executor.submit(signal.pause)
    waiting = executor.submit(abs, 2)
    os.kill(executor.process.pid, signal.SIGKILL)
    for future in (blocked, waiting):
        with pytest.raises(BrokenProcessPool, match="killed by SIGKILL"):
            future.result(60)
    with pytest.raises(BrokenProcessPool):
        executor.submit(abs, 3).result(60)


def test_shutdown_lets_calls_end(executor):
    """What was asked for is answered before the process ends by itself."""
    future = executor.submit(sum, range(1000))
    executor.shutdown()
    assert future.result(0) == sum(range(1000))
    assert executor.process.exitcode == 0


def test_nothing_has_a_name_that_could_stay(executor):
    """No semaphore and no shared memory is made, which nobody would remove after a SIGKILL of everything."""
    assert executor.submit(abs, -1).result(60) == 1
    mine = {os.getpid(), executor.process.pid}
    mapped = {line.split()[-1] for pid in mine for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines()}
    assert not [name for name in mapped if "/sem.mp-" in name]


def test_preparation_that_fails_ends_the_process(capfd):
    """A process that cannot be prepared is gone, and its calls say so."""
    made = PipeExecutor(functools.partial(sys.exit, 3))
    with pytest.raises(BrokenProcessPool, match="exit code 3"):
        made.submit(abs, 1).result(60)
    made.shutdown()


def test_note_that_cannot_be_read_costs_its_call_and_no_other(executor):
    """The call fails, its answer is passed over, and the process goes on."""
    with pytest.raises(ZeroDivisionError):
        executor.submit(tell_what_cannot_be_read).result(60)
    assert executor.submit(abs, -3).result(60) == 3


class Unreadable:
    """Can be written, but not read again."""

    def __reduce__(self):
        return divmod, (1, 0)


def tell_what_cannot_be_read():
    child_line.current().tell(Unreadable())
    return 1
