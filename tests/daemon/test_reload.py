"""A config that changes while the daemon runs: real daemons, real signals."""

from __future__ import annotations

import contextlib
import signal

import h5py
import pytest

from tests.support.faults import published
from tests.support.usual import table

pytestmark = pytest.mark.timeout(300)


def ppid_of(path):
    with h5py.File(path) as h5:
        return h5.attrs["pipeline:dcnum segmenter"]


def test_new_config_holds_from_the_next_measurement_on(usual):
    """SIGHUP: the running measurement ends as it began, the next one gets the new pipeline, in the same processes."""
    daemon, folder = usual.daemon, usual.folder()
    before = len(daemon.matching("worker.started", role="pipeline"))
    with contextlib.ExitStack() as stack:
        with usual.standing_still():
            running = published(folder, "running.rtdc")
            started = daemon.wait_for("job.started", path=str(running))
            stack.enter_context(usual.changed("[pipeline.segmenter]\nthresh = -4\n"))
        finished = daemon.wait_for("job.finished", path=str(running))
        assert finished["ppid"] == started["ppid"]
        path = published(folder, "next.rtdc", seed=1)
        after = daemon.wait_for("job.finished", path=str(path))
        assert "t=-4" in ppid_of(after["output"])
    assert len(daemon.matching("worker.started", role="pipeline")) == before
    assert len(daemon.matching("daemon.ready")) == 1


def test_bad_config_is_refused_and_the_old_one_kept(usual):
    """SIGHUP with a config that is wrong, or that names another ledger, changes nothing, and says what is wrong."""
    daemon, folder, text = usual.daemon, usual.folder(), usual.config.read_text()
    bad = [
        (text + "[watch\n", "not valid TOML"),
        (text + "[pipeline.segmenter]\nthresh = 'low'\n", "thresh"),
        (text + "[output]\nsufix = 'x'\n", "output.sufix: unknown key"),
        # another ledger needs another daemon
        (text.replace(f"{usual.config.parent}/state", f"{usual.config.parent}/other"), "state.folder"),
    ]
    reloaded = len(daemon.matching("config.reloaded"))
    for count, (wrong, complaint) in enumerate(bad, start=1):
        usual.config.write_text(wrong)
        daemon.process.send_signal(signal.SIGHUP)
        assert complaint in daemon.wait_for("config.refused", count=count)["error"]
        path = published(folder, f"M{count}.rtdc", seed=count)
        daemon.wait_for("job.finished", path=str(path))
    usual.config.write_text(text)
    assert len(daemon.matching("config.reloaded")) == reloaded


def test_folders_and_workers_may_change(usual, tmp_path):
    """A folder that is watched from now on is scanned; other resources start other processes; nothing is repeated."""
    daemon, folder = usual.daemon, usual.folder()
    first = published(folder, "first.rtdc")
    daemon.wait_for("job.finished", path=str(first))
    second = published(tmp_path, "second.rtdc", seed=1)
    pipelines = len(daemon.matching("worker.started", role="pipeline"))
    with usual.changed(table(tmp_path), num_workers=2, nice=11):
        daemon.wait_for("job.finished", path=str(second))
        assert len(daemon.matching("worker.started", role="pipeline")) == pipelines + 1
    # the next test has the processes of the first config again
    daemon.wait_for("worker.started", count=pipelines + 2, role="pipeline")
    for name in ("job.queued", "job.finished"):
        assert [len(usual.about(place, name)) for place in (folder, tmp_path)] == [1, 1]
