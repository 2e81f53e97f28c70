"""A config that changes while the daemon runs: real daemons, real signals."""

from __future__ import annotations

import json
import signal

import h5py
import pytest

pytestmark = pytest.mark.timeout(300)


def put(draw, folder, name, **keywords):
    """Write a measurement elsewhere and move it into place."""
    hidden = folder / ".writing"
    draw(hidden, **keywords)
    return hidden.rename(folder / name)


def ppid_of(path):
    with h5py.File(path) as h5:
        return h5.attrs["pipeline:dcnum segmenter"]


def test_new_config_holds_from_the_next_measurement_on(
    start_daemon, write_config, watched_folder, measurement, long_measurement, tmp_path
):
    """SIGHUP: the running measurement ends as it began, the next one gets the new pipeline, in the same processes."""
    config = write_config()
    daemon = start_daemon(config=config)
    long = long_measurement()
    started = daemon.wait_for("job.started", path=str(long))
    config.write_text(config.read_text() + "[pipeline.segmenter]\nthresh = -4\n")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for("config.reloaded")
    finished = daemon.wait_for("job.finished", path=str(long))
    assert finished["ppid"] == started["ppid"]
    path = put(measurement, watched_folder, "next.rtdc", seed=1)
    after = daemon.wait_for("job.finished", path=str(path))
    assert "t=-4" in ppid_of(after["output"])
    assert len(daemon.matching("worker.started", role="pipeline")) == 1
    assert len(daemon.matching("daemon.ready")) == 1
    assert daemon.stop() == 0


def test_bad_config_is_refused_and_the_old_one_kept(start_daemon, write_config, watched_folder, measurement, tmp_path):
    """SIGHUP with a config that is wrong, or that names another ledger, changes nothing, and says what is wrong."""
    config = write_config()
    usual = config.read_text()
    bad = [
        (usual + "[watch\n", "not valid TOML"),
        (usual + "[pipeline.segmenter]\nthresh = 'low'\n", "thresh"),
        (usual + "[output]\nsufix = 'x'\n", "output.sufix: unknown key"),
        # another ledger needs another daemon
        (usual.replace(str(tmp_path / "state"), str(tmp_path / "other")), "state.folder"),
    ]
    daemon = start_daemon(config=config)
    for count, (text, complaint) in enumerate(bad, start=1):
        config.write_text(text)
        daemon.process.send_signal(signal.SIGHUP)
        assert complaint in daemon.wait_for("config.refused", count=count)["error"]
        path = put(measurement, watched_folder, f"M{count}.rtdc", seed=count)
        daemon.wait_for("job.finished", path=str(path))
    assert not daemon.matching("config.reloaded")
    assert daemon.stop() == 0


def test_folders_and_workers_may_change(start_daemon, write_config, watched_folder, measurement, tmp_path):
    """A folder that is watched from now on is scanned; other resources start other processes; nothing is repeated."""
    config = write_config()
    daemon = start_daemon(config=config)
    first = put(measurement, watched_folder, "first.rtdc")
    daemon.wait_for("job.finished", path=str(first))
    more = tmp_path / "more"
    more.mkdir()
    second = put(measurement, more, "second.rtdc", seed=1)
    text = config.read_text().replace(
        json.dumps(str(watched_folder)), json.dumps(str(watched_folder)) + f", {json.dumps(str(more))}"
    )
    config.write_text(text.replace("num_workers = 1", "num_workers = 2").replace("nice = 0", "nice = 11"))
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for("job.finished", path=str(second))
    assert len(daemon.matching("worker.started", role="pipeline")) == 2
    assert len(daemon.matching("job.finished")) == 2
    assert len(daemon.matching("job.queued")) == 2
    assert daemon.stop() == 0


def test_folders_with_settings_of_their_own(start_daemon, write_config, watched_folder, measurement, tmp_path):
    """Each [[watch]] table has its own pipeline and place of results; the higher priority is first."""
    config = write_config()
    urgent, results = tmp_path / "urgent", tmp_path / "results"
    urgent.mkdir()
    table = (
        f"[[watch]]\nfolders = [{json.dumps(str(urgent))}]\nsettle_seconds = 0.3\npriority = 1\n"
        f"output.folder = {json.dumps(str(results))}\npipeline.segmenter.thresh = -8\n"
    )
    config.write_text(config.read_text().replace("[watch]", "[[watch]]") + table)
    usual = [put(measurement, watched_folder, f"{name}.rtdc", seed=name) for name in range(3)]
    first = put(measurement, urgent, "first.rtdc", seed=9)
    daemon = start_daemon("--once", config=config, ready=False)
    assert daemon.wait() == 0
    finished = {event["path"]: event["output"] for event in daemon.matching("job.finished")}
    assert finished == {
        str(first): str(results / "first_dcn.rtdc"),
        **{str(path): str(path.with_name(f"{path.stem}_dcn.rtdc")) for path in usual},
    }
    assert "t=-8" in ppid_of(finished[str(first)])
    assert "t=-6" in ppid_of(finished[str(usual[0])])
