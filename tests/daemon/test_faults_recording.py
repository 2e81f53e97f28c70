"""The recording comes first: its program writes undisturbed, and the work rests meanwhile; dates mean nothing."""

from __future__ import annotations

import logging
import os
import pathlib
import random
import time
from collections.abc import Callable

import psutil
import pytest

from tests.soak.processes import cpu_seconds
from tests.soak.results import faults_of
from tests.support.daemon import Daemon, draw_measurement
from tests.support.faults import (
    JOB_SECONDS,
    Writer,
    assert_done_once,
    frames_processed,
    growing,
    published,
    recording,
    result_of,
    wait_until,
    workers_of,
    working,
)
from tests.support.once import assert_nothing_left_to_do

logger = logging.getLogger(__name__)
pytestmark = pytest.mark.timeout(300)

FRAMES = 1200
"""Frames of a measurement that takes long enough to be disturbed."""
LongMeasurement = Callable[..., pathlib.Path]


def test_writers_and_dates_are_no_matter(start_daemon, write_config, watched_folder, long_measurement):
    """A program that writes never fails, at any moment; the result is that of all frames, whatever dates files have."""
    config = write_config(settle=0.05)
    daemon = start_daemon(config=config)
    write_while_settling(daemon, watched_folder / "growing.rtdc")
    change_what_waits(daemon, watched_folder, long_measurement("long.rtdc", FRAMES))
    write_while_running(daemon, long_measurement("running.rtdc", FRAMES))
    dates_far_away(daemon, watched_folder)
    assert daemon.stop() == 0
    assert_nothing_left_to_do(config)


def write_while_settling(daemon: Daemon, path: pathlib.Path) -> None:
    """Open a file again and again, around the moments at which it is looked at, queued and begun."""
    writer = growing(path)
    rng = random.Random(5)
    for _ in range(40):
        writer.append()
        time.sleep(rng.uniform(0.0, 0.25))
    writer.close()
    daemon.wait_for("file.settled", path=str(path))
    wait_until(lambda: frames_processed(daemon, path) == writer.frames, JOB_SECONDS, daemon)
    assert faults_of(result_of(path)) == []
    assert not daemon.matching("job.failed", will_retry=False)


def change_what_waits(daemon: Daemon, folder: pathlib.Path, running: pathlib.Path) -> None:
    """Have one queued measurement grow, which is taken as it is in its turn, and the date of another one jump."""
    working(daemon, running)
    # its job lasts until that is done
    workers = workers_of(daemon)
    for worker in workers:
        worker.suspend()
    path, jumping = folder / "queued.rtdc", published(folder, "M001.rtdc")
    writer = growing(path)
    for count in range(1, 4):
        daemon.wait_for("job.queued", path=str(path), count=count)
        writer.append()
    writer.close()
    daemon.wait_for("job.queued", path=str(jumping))
    for date in (0, 4e9, 1e9):
        os.utime(jumping, (date, date))
    assert not daemon.matching("job.started", path=str(path))
    for worker in workers:
        worker.resume()
    wait_until(lambda: frames_processed(daemon, path) == writer.frames, JOB_SECONDS, daemon)
    daemon.wait_for("job.finished", path=str(jumping), timeout=JOB_SECONDS)
    for done in (running, path, jumping):
        assert len(daemon.matching("job.finished", path=str(done))) == 1


def write_while_running(daemon: Daemon, path: pathlib.Path) -> None:
    """Have a measurement grow while it is processed: it is done again, and the first result is not kept."""
    writer = Writer(path)
    working(daemon, path)
    for _ in range(3):
        writer.append()
    writer.close()
    wait_until(lambda: frames_processed(daemon, path) == writer.frames, JOB_SECONDS, daemon)
    assert len(daemon.matching("job.finished", path=str(path))) == 1
    assert faults_of(result_of(path)) == []


def dates_far_away(daemon: Daemon, folder: pathlib.Path) -> None:
    """Have files of another time, which are processed once; a date that jumps only makes the daemon look again."""
    for number, moment in enumerate((0.0, time.time() + 4e9)):
        hidden = folder / ".writing"
        draw_measurement(hidden, seed=number)
        os.utime(hidden, (moment, moment))
        path = hidden.rename(folder / f"far away {number}.rtdc")
        daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
        for count, date in enumerate((1, time.time(), moment), start=1):
            os.utime(path, (date, date))
            daemon.wait_for("file.ignored", path=str(path), reason="already_done", count=count)
        assert_done_once(daemon, path)
        assert len(daemon.matching("job.queued", path=str(path))) == 1


def test_recording_stops_the_work_at_once(start_daemon, watched_folder, long_measurement):
    """While a file grows all work rests, within 200 ms, and dcnumd leaves the processor to the recording.

    A job that is held keeps no lock on its own measurement, which can grow meanwhile.
    """
    daemon = start_daemon("--set", "resources.pause_while_acquiring=true")
    write_while_held(daemon, long_measurement("held.rtdc", FRAMES))
    delays: list[float] = []
    shares: list[float] = []
    paths: list[pathlib.Path] = []
    while len(delays) < 3:
        assert len(paths) < 8, "no job was held before its end"
        paths.append(long_measurement(f"long {len(paths)}.rtdc"))
        # as often as it can be held before it is over
        while len(delays) < 3 and (measured := rest(daemon, paths[-1])) is not None:
            delays.append(measured[0])
            shares.append(measured[1])
    for path in paths:
        daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    logger.info("seconds until the work rests: %s; processor during the pause: %s", delays, shares)
    # A computer that others use, too, is late now and then; a fault of ours would be there each time.
    assert min(delays) <= 0.2, delays
    assert sorted(delays)[1] <= 0.5, delays
    # The daemon notices each change of the file, which takes 0.01 to 0.09 of a processor, depending on the speed of the
    # computer at that moment; a job takes two processors.
    assert min(shares) <= 0.15, shares
    assert_done_once(daemon, *paths)


def write_while_held(daemon: Daemon, path: pathlib.Path) -> None:
    """Have a measurement grow whose job is held because of another recording."""
    writer = Writer(path)
    working(daemon, path)
    with recording(path.with_name("other.rtdc")):
        daemon.wait_for("pipeline.held")
        for _ in range(3):
            writer.append()
    writer.close()
    wait_until(lambda: frames_processed(daemon, path) == writer.frames, JOB_SECONDS, daemon)
    assert len(daemon.matching("job.finished", path=str(path))) == 1


def rest(daemon: Daemon, path: pathlib.Path) -> tuple[float, float] | None:
    """Record while a measurement is processed; return for how long work goes on [s], and its share of a processor.

    None if the job was over before the recording was seen, because it is short or others keep this computer busy.
    """
    working(daemon, path)
    pids = [process.pid for process in psutil.Process(daemon.process.pid).children(recursive=True)]
    held, resumed = (len(daemon.matching(name)) + 1 for name in ("pipeline.held", "pipeline.resumed"))
    if daemon.matching("job.finished", path=str(path)):
        return None
    with recording(path.with_name(f"recording {held}.rtdc")):
        delay = seconds_of_work(pids, seconds=1.0)
        before, begin = cpu_seconds([daemon.process.pid, *pids]), time.monotonic()
        time.sleep(1.5)
        used = cpu_seconds([daemon.process.pid, *pids]) - before
        share = used / (time.monotonic() - begin)
        ended = daemon.matching("job.finished", path=str(path))
    if ended:
        return None
    daemon.wait_for("pipeline.held", count=held)
    daemon.wait_for("pipeline.resumed", count=resumed)
    return delay, share


def seconds_of_work(pids: list[int], seconds: float) -> float:
    """Return for how long processes go on working, measured until they rest for the last part of `seconds`."""
    begin = last = time.monotonic()
    used = {pid: cpu_seconds([pid]) for pid in pids}
    while time.monotonic() - begin < seconds:
        time.sleep(0.005)
        now = {pid: cpu_seconds([pid]) for pid in pids}
        # a probe or a server that wakes for a moment does no work
        if any(now[pid] > used[pid] + 0.002 for pid in pids):
            last = time.monotonic()
            used = now
    return last - begin
