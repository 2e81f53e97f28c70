"""Lines are written in order by a thread, and whoever has one to say does not wait for their reader."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import threading

import pytest

from dcnumd.daemon import line_writer
from dcnumd.daemon.line_writer import LineWriter, append, write_all

WAIT_SECONDS = 30.0


class Pipe:
    """A pipe of 4 KiB that is read only when the test wants it."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, 4096)
        self.text = b""
        self._writers: list[LineWriter] = []

    def line_writer(self) -> LineWriter:
        """Return a writer of lines into the pipe."""
        made = LineWriter("test", functools.partial(write_all, self.writer), lambda number: b"lost %d\n" % number)
        self._writers.append(made)
        return made

    def read_until(self, end: bytes) -> list[bytes]:
        """Return all lines up to one that ends with `end`."""
        while not self.text.endswith(end + b"\n"):
            part = os.read(self.reader, 65536)
            assert part, self.text[-100:]
            self.text += part
        lines, self.text = self.text.splitlines(), b""
        return lines

    def close(self) -> None:
        """Close both ends; the number of the one that is written to may belong to another file right after."""
        with contextlib.suppress(OSError):
            os.close(self.reader)
        for writer in self._writers:
            writer.close()
            writer._thread.join(WAIT_SECONDS)
        os.close(self.writer)


@pytest.fixture
def pipe():
    made = Pipe()
    yield made
    made.close()


def test_lines_come_in_order_and_a_line_stands_for_the_lost_ones(pipe, monkeypatch):
    """What fits in the queue is written when the reader comes back; what did not fit is counted in its place."""
    monkeypatch.setattr(line_writer, "MAX_WAITING", 20_000)
    writer = pipe.line_writer()
    for number in range(5000):
        writer.put(b"line %d\n" % number)
    lines = []
    while not lines or not lines[-1].startswith(b"lost"):
        part = os.read(pipe.reader, 65536)
        pipe.text += part
        lines = pipe.text.splitlines()
    pipe.text = b""
    kept = len(lines) - 1
    assert lines[:kept] == [b"line %d" % number for number in range(kept)]
    assert 2000 < kept < 5000
    assert lines[kept] == b"lost %d" % (5000 - kept)
    writer.put(b"next\n")
    assert pipe.read_until(b"next") == [b"next"]
    assert writer.flush()


def test_end_waits_for_a_reader_that_reads(pipe):
    writer = pipe.line_writer()
    for number in range(3000):
        writer.put(b"line %d\n" % number)
    reader = threading.Thread(target=pipe.read_until, args=(b"line 2999",))
    reader.start()
    assert writer.flush()
    reader.join(WAIT_SECONDS)
    assert not reader.is_alive()


def test_end_does_not_wait_for_a_reader_that_stalls(pipe, monkeypatch):
    monkeypatch.setattr(line_writer, "STALL_SECONDS", 0.05)
    writer = pipe.line_writer()
    for _ in range(100):
        writer.put(b"x" * 999 + b"\n")
    assert not writer.flush()


def test_end_does_not_wait_for_ever_for_a_slow_reader(pipe, monkeypatch):
    """One that takes a line now and then is no reason to stay for hours."""
    monkeypatch.setattr(line_writer, "FLUSH_SECONDS", 0.0)
    writer = pipe.line_writer()
    for _ in range(100):
        writer.put(b"x" * 999 + b"\n")
    reader = threading.Thread(target=os.read, args=(pipe.reader, 1000))
    reader.start()
    assert not writer.flush()
    reader.join(WAIT_SECONDS)


def test_reader_that_is_gone_is_no_fault(pipe):
    os.close(pipe.reader)
    writer = pipe.line_writer()
    writer.put(b"nobody\n")
    assert writer.flush()


def test_descriptor_that_never_waits_gets_everything(pipe):
    """Another program may have asked for that where both write."""
    os.set_blocking(pipe.writer, False)
    writer = pipe.line_writer()
    for number in range(3000):
        writer.put(b"line %d\n" % number)
    assert len(pipe.read_until(b"line 2999")) == 3000


def test_closed_writer_finishes_and_ends_its_thread(tmp_path):
    path = tmp_path / "log.jsonl"
    writer = LineWriter("test", functools.partial(append, os.fspath(path)), lambda _: b"")
    for number in range(100):
        writer.put(b"line %d\n" % number)
    writer.close()
    writer._thread.join(WAIT_SECONDS)
    assert not writer._thread.is_alive()
    assert len(path.read_bytes().splitlines()) == 100
