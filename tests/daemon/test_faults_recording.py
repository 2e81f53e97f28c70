"""The recording comes first: its program writes undisturbed, and the work rests meanwhile; dates mean nothing."""

from __future__ import annotations

import logging
import os
import pathlib
import random
import time

import psutil
import pytest

from tests.soak.processes import cpu_seconds
from tests.soak.results import faults_of
from tests.support.daemon import draw_measurement
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

logger = logging.getLogger(__name__)
pytestmark = pytest.mark.timeout(300)


def test_writer_appends_undisturbed_while_its_file_settles(start_daemon, watched_folder):
    """A program that opens its file again and again, at any moment of the daemon's looks, never fails."""
    daemon = start_daemon("--set", "watch.settle_seconds=0.05")
    path = watched_folder / "growing.rtdc"
    writer = growing(path)
    rng = random.Random(5)
    for _ in range(60):
        writer.append()
        # around the moments at which it is looked at, queued and begun
        time.sleep(rng.uniform(0.0, 0.25))
    writer.close()
    daemon.wait_for("file.settled", path=str(path))
    wait_until(lambda: frames_processed(daemon, path) == writer.frames, JOB_SECONDS, daemon)
    assert faults_of(result_of(path)) == []
    assert not daemon.matching("job.failed", will_retry=False)


def test_writer_appends_undisturbed_to_a_queued_measurement(start_daemon, watched_folder, long_measurement):
    """What grows while it waits for its turn is taken as it is then."""
    daemon = start_daemon()
    long = long_measurement()
    working(daemon, long)
    # its job lasts until the other measurement has grown
    workers = workers_of(daemon)
    for worker in workers:
        worker.suspend()
    path = watched_folder / "queued.rtdc"
    writer = growing(path)
    for count in range(1, 4):
        daemon.wait_for("job.queued", path=str(path), count=count)
        writer.append()
    assert daemon.matching("job.started", path=str(path)) == []
    writer.close()
    for worker in workers:
        worker.resume()
    daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    wait_until(lambda: frames_processed(daemon, path) == writer.frames, JOB_SECONDS, daemon)
    assert len(daemon.matching("job.finished", path=str(path))) == 1


def test_writer_appends_undisturbed_to_a_running_measurement(start_daemon, long_measurement):
    """What grows while it is processed is done again, as it is then; the first result is not kept."""
    daemon = start_daemon()
    path = long_measurement()
    writer = Writer(path)
    working(daemon, path)
    for _ in range(3):
        writer.append()
    writer.close()
    daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    wait_until(lambda: frames_processed(daemon, path) == writer.frames, JOB_SECONDS, daemon)
    assert len(daemon.matching("job.finished", path=str(path))) == 1
    assert faults_of(result_of(path)) == []


def test_writer_appends_undisturbed_to_a_held_measurement(start_daemon, long_measurement):
    """A job that is held because of another recording keeps no lock on its own measurement."""
    daemon = start_daemon("--set", "resources.pause_while_acquiring=true")
    path = long_measurement()
    writer = Writer(path)
    working(daemon, path)
    with recording(path.with_name("other.rtdc")):
        daemon.wait_for("pipeline.held")
        for _ in range(3):
            writer.append()
    writer.close()
    wait_until(lambda: frames_processed(daemon, path) == writer.frames, JOB_SECONDS, daemon)
    assert len(daemon.matching("job.finished", path=str(path))) == 1


def test_recording_stops_the_work_at_once(start_daemon, watched_folder, long_measurement):
    """While a file grows all work rests, within 200 ms, and dcnumd leaves the processor to the recording."""
    daemon = start_daemon("--set", "resources.pause_while_acquiring=true")
    paths: list[pathlib.Path] = []
    delays, shares = [], []
    while len(delays) < 3:
        assert len(paths) < 8, "no job was held before its end"
        path = long_measurement(f"long {len(paths)}.rtdc")
        paths.append(path)
        working(daemon, path)
        everybody = psutil.Process(daemon.process.pid).children(recursive=True)
        pids = [process.pid for process in everybody]
        held, resumed = (len(daemon.matching(name)) + 1 for name in ("pipeline.held", "pipeline.resumed"))
        with recording(watched_folder / f"recording {len(paths)}.rtdc"):
            delay = seconds_of_work(pids, seconds=1.0)
            before, begin = cpu_seconds([daemon.process.pid, *pids]), time.monotonic()
            time.sleep(1.5)
            used = cpu_seconds([daemon.process.pid, *pids]) - before
            share = used / (time.monotonic() - begin)
            ended = daemon.matching("job.finished", path=str(path))
        if not ended:
            # else others kept this computer so busy that the job was over before the recording was seen
            daemon.wait_for("pipeline.held", count=held)
            daemon.wait_for("pipeline.resumed", count=resumed)
            delays.append(delay)
            shares.append(share)
        daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    logger.info("seconds until the work rests: %s; processor during the pause: %s", delays, shares)
    # A computer that others use, too, is late now and then; a fault of ours would be there each time.
    assert min(delays) <= 0.2, delays
    assert sorted(delays)[1] <= 0.5, delays
    assert min(shares) <= 0.02, shares
    assert_done_once(daemon, *paths)


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


def test_dates_far_away_change_nothing(start_daemon, watched_folder):
    """A file of another time is processed once; a date that jumps only makes the daemon look again."""
    daemon = start_daemon()
    for number, moment in enumerate((0.0, time.time() + 4e9)):
        hidden = watched_folder / ".writing"
        draw_measurement(hidden, seed=number)
        os.utime(hidden, (moment, moment))
        path = hidden.rename(watched_folder / f"M00{number}.rtdc")
        daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
        for count, date in enumerate((1, time.time(), moment), start=1):
            os.utime(path, (date, date))
            daemon.wait_for("file.ignored", path=str(path), reason="already_done", count=count)
        assert_done_once(daemon, path)
        assert len(daemon.matching("job.queued", path=str(path))) == 1


def test_dates_that_jump_while_a_measurement_waits(start_daemon, watched_folder, long_measurement):
    """A queued measurement whose date jumps is processed once."""
    daemon = start_daemon()
    long = long_measurement()
    working(daemon, long)
    path = published(watched_folder, "M001.rtdc")
    daemon.wait_for("job.queued", path=str(path))
    for date in (0, 4e9, 1e9):
        os.utime(path, (date, date))
    daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    again = pathlib.Path(daemon.wait_for("job.finished", path=str(path))["output"]).stat().st_ino
    assert daemon.stop() == 0
    second = start_daemon("--once", ready=False)
    assert second.wait() == 0
    assert not second.matching("job.started")
    assert result_of(path).stat().st_ino == again
