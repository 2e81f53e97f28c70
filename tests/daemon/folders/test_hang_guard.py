"""Calls that may hang."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import subprocess
import sys
import textwrap
import threading

import pytest

from dcnumd.daemon.folders import hang_guard
from tests.support.faults import wait_until
from tests.support.loop import in_real_time


def test_answer_and_error_come_back(tmp_path):
    """What the function returns or raises arrives as if it had been called here."""
    assert asyncio.run(hang_guard.in_thread("/in", os.path.exists, tmp_path)) is True
    with pytest.raises(FileNotFoundError):
        asyncio.run(hang_guard.in_thread("/in", os.stat, tmp_path / "missing"))


@in_real_time
async def test_share_that_gives_up_itself_has_answered(tmp_path):
    """The error of a share that is mounted `soft` is an answer like others: the next call is made as usual."""

    def give_up():
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    with pytest.raises(TimeoutError):
        await hang_guard.in_thread("/in", give_up)
    assert await hang_guard.in_thread("/in", os.path.exists, tmp_path) is True


@in_real_time
async def test_threads_are_used_again():
    """Calls that overlap have one thread each; a later call needs no new one."""
    meet = threading.Barrier(3)

    def who():
        meet.wait()
        return threading.current_thread()

    together = await asyncio.gather(*(hang_guard.in_thread(f"/{one}", who) for one in range(3)))
    assert len(set(together)) == 3
    wait_until(lambda: all(thread in hang_guard._idle for thread in together))
    assert await hang_guard.in_thread("/in", threading.current_thread) in together


@pytest.mark.parametrize("turns", range(4))
def test_error_that_nobody_waits_for_is_not_reported(turns, caplog, monkeypatch):
    """Who is told to end while an answer comes leaves nothing that Python complains about later."""
    # The thread ends with its call.
    monkeypatch.setattr(hang_guard, "IDLE_THREADS", 0)
    go = threading.Event()

    def refuse():
        go.wait()
        raise PermissionError

    async def run():
        asked = asyncio.create_task(hang_guard.in_thread("/in", refuse))
        await asyncio.sleep(0)
        (thread,) = [thread for thread in threading.enumerate() if thread.name == "refuse"]
        go.set()
        thread.join()
        for _ in range(turns):
            await asyncio.sleep(0)
        asked.cancel()
        await asyncio.wait([asked])
        assert asked.cancelled() or isinstance(asked.exception(), PermissionError)

    asyncio.run(run())
    gc.collect()
    assert not caplog.records


@pytest.mark.slow
@in_real_time
async def test_call_that_gives_signs_of_life_may_take_long(monkeypatch):
    """What is slow, and says so, is waited for; what comes back too late is told to whoever wants to know."""
    monkeypatch.setattr(hang_guard, "ANSWER_SECONDS", 1.0)
    go = threading.Event()
    late = asyncio.Event()
    guard = hang_guard.HangGuard(late.set)

    def slow():
        for _ in range(15):
            guard.give_sign()
            go.wait(0.1)
        return "done"

    assert await guard.call(slow) == "done"
    assert not late.is_set()
    for function in (go.wait, os.getpid):
        with pytest.raises(TimeoutError, match="no answer for"):
            await guard.call(function)
    go.set()
    async with asyncio.timeout(30):
        await late.wait()
    assert await guard.call(os.getpid) == os.getpid()


def test_call_that_hangs_is_given_up_and_keeps_nobody_waiting(tmp_path):
    """Where one call hangs no other follows until it comes back; other folders go on, and the process can end."""
    script = """
        import asyncio, errno, os, sys
        from dcnumd.daemon.folders import hang_guard
        hang_guard.ANSWER_SECONDS = 0.3
        pipe = sys.argv[1]
        os.mkfifo(pipe)

        async def refused(*call):
            try:
                await hang_guard.in_thread(*call)
            except OSError as error:
                return error.errno == errno.ETIMEDOUT
            return False

        async def run():
            # nobody has opened the other end of this pipe
            assert await refused("/down", open, pipe)
            hang_guard.ANSWER_SECONDS = 30.0
            assert await refused("/down", os.getpid)
            assert await hang_guard.in_thread("/up", os.getpid) == os.getpid()
            with open(pipe, "w"):
                while await refused("/down", os.getpid):
                    await asyncio.sleep(0.01)
            hang_guard.ANSWER_SECONDS = 0.3
            assert await refused("/down", open, pipe)
            print("ended")

        asyncio.run(run())
    """
    shown = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "pipe")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert shown.stdout.strip() == "ended", shown.stderr
