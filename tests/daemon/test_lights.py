"""The traffic lights of results, which come while other measurements are still to be processed."""

from __future__ import annotations

import json
import os
import signal

import pytest

from dcnumd.daemon.ledger.store import Ledger
from tests.support.daemon import draw_measurement
from tests.support.faults import result_of, wait_until

NUMBER = 6
FRAMES = 4000
"""A measurement with this number of frames takes many times as long as rating its result."""
COURTESY = 5
"""With any, processes may be in the idle class: there, lights would come when all measurements are processed."""


@pytest.mark.slow
def test_lights_come_with_the_results(start_daemon, write_config, watched_folder, state_folder, tmp_path):
    """Six measurements wait: the light of each comes before the next result, with its figures and its row."""
    config = write_config("[report]\nenabled = true\n")
    config.write_text(config.read_text().replace("nice = 0", f"nice = {COURTESY}"))
    daemon = start_daemon(config=config)
    daemon.wait_for("worker.started", role="report")
    pipeline = daemon.wait_for("worker.started", role="pipeline")["pid"]
    os.kill(pipeline, signal.SIGSTOP)
    draw_measurement(tmp_path / "drawn.rtdc", frames=FRAMES, shape=(80, 320))
    paths = [watched_folder / f"M{number}.rtdc" for number in range(NUMBER)]
    for path in paths:
        path.hardlink_to(tmp_path / "drawn.rtdc")
    for path in paths:
        daemon.wait_for("job.queued", path=str(path))
    os.kill(pipeline, signal.SIGCONT)
    first = daemon.wait_for("report.rated")
    os.kill(pipeline, signal.SIGSTOP)
    finished = daemon.wait_for("job.finished", path=first["path"])
    with Ledger.open_to_read(state_folder) as ledger:
        entry = ledger.latest(first["path"])
    assert (entry.light, entry.warnings.split()) == (first["light"], first["warnings"])
    name = result_of(watched_folder / entry.path).with_suffix(".json")
    assert json.loads(name.read_text())["events"] == finished["events"]
    index = watched_folder / "index.html"
    wait_until(lambda: index.exists() and f'data-light="{first["light"]}"' in index.read_text())
    os.kill(pipeline, signal.SIGCONT)
    daemon.wait_for("report.rated", count=NUMBER)
    told = [event for event in daemon.events if event["event"] in {"job.finished", "report.rated"}]
    assert [event["event"] for event in told] == ["job.finished", "report.rated"] * NUMBER, daemon.log()
    assert [event["path"] for event in told[::2]] == [event["path"] for event in told[1::2]]
    # The pages come when there is time.
    daemon.wait_for("report.written", count=NUMBER)
    assert sorted(event["path"] for event in daemon.matching("report.written")) == sorted(map(str, paths))
    assert daemon.stop() == 0
