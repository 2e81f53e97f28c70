"""Calls that may hang."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import textwrap

import pytest

from dcnumd.daemon import threads


def test_answer_and_error_come_back(tmp_path):
    """What the function returns or raises arrives as if it had been called here."""
    assert asyncio.run(threads.in_thread(os.path.exists, tmp_path)) is True
    with pytest.raises(FileNotFoundError):
        asyncio.run(threads.in_thread(os.stat, tmp_path / "missing"))


def test_call_that_hangs_is_given_up_and_does_not_hold_up_the_end(tmp_path):
    """A call without an answer ends with ETIMEDOUT, further ones are not started without end, and the process exits."""
    script = """
        import asyncio, errno, os, sys
        from dcnumd.daemon import threads
        threads.ANSWER_SECONDS, threads.MAX_WAITING = 0.2, 2
        # nobody ever opens the other end of this pipe
        os.mkfifo(sys.argv[1])

        async def run():
            for _ in range(threads._waiting._value):
                try:
                    await threads.in_thread(open, sys.argv[1])
                except OSError as error:
                    assert error.errno == errno.ETIMEDOUT, error
            try:
                await threads.in_thread(os.getpid)
            except OSError as error:
                print(error)

        asyncio.run(run())
    """
    shown = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "pipe")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert f"[Errno {errno.ETIMEDOUT}]" in shown.stdout
