"""Reports are made on the workers of a cluster."""

from __future__ import annotations

import json

import pytest

from tests.support.faults import published, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.soak]
REPORTS = '[report]\nformats = ["html", "json"]\n'


def test_reports_are_made_on_workers(cluster, start_daemon, write_config, watched_folder, tmp_path):
    """Also by another one than has processed the measurement; paths in the ledger and the index are those of here."""
    there = tmp_path / "there"
    there.symlink_to(watched_folder)
    first = cluster.start_worker("first")
    config = write_config(cluster.config(paths={str(watched_folder): str(there)}) + REPORTS)
    daemon = start_daemon(config=config)
    measurements = [published(watched_folder, f"M{number}.rtdc", seed=number) for number in range(2)]
    for path in measurements:
        rated = daemon.wait_for("report.rated", path=str(path))
        written = daemon.wait_for("report.written", path=str(path))
        page, figures = path.with_name(f"{path.stem}_dcn.html"), path.with_name(f"{path.stem}_dcn.json")
        assert written["report"] == [str(page), str(figures)]
        assert rated["light"] == written["light"] == json.loads(figures.read_text())["light"]
        wait_until(lambda page=page: page.name in (watched_folder / "index.html").read_text())
    assert first.matching("worker.started", role="report")

    third = published(watched_folder, "M2.rtdc", seed=2)
    daemon.wait_for("job.finished", path=str(third))
    first.process.kill()
    second = cluster.start_worker("second")
    daemon.wait_for("report.written", path=str(third))
    assert second.matching("worker.started", role="report")
    assert not daemon.matching("report.failed")
    assert not list(watched_folder.glob(".*~"))
