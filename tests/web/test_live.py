"""The live page of a real daemon, while a measurement is recorded and processed."""

from __future__ import annotations

import concurrent.futures
import contextlib
import pathlib
import re
import signal
import time
import urllib.parse
from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dcnumd.cli import main
from tests.support.daemon import START_SECONDS, Daemon, draw_measurement
from tests.support.faults import published
from tests.support.web import TOKEN, ask, hang, write_token

pytestmark = pytest.mark.slow

WAIT_SECONDS = 90.0
BEARER = {"Authorization": f"Bearer {TOKEN}"}
CLOSE_SECONDS = 8.0


class Live:
    """A daemon with its live page."""

    def __init__(self, daemon: Daemon, config: pathlib.Path) -> None:
        self.daemon = daemon
        self.config = config
        self.address = daemon.wait_for("web.started", timeout=START_SECONDS)["address"]

    def status(self):
        return ask(self.address, "/api/v1/status").json

    def post(self, path):
        return ask(self.address, path, "POST", BEARER)

    def until(self, wanted, what):
        """Ask until the status is as wanted, and return it."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not wanted(status := self.status()):
            assert time.monotonic() < deadline, f"{what}: {status}\n{self.daemon.log()}"
            time.sleep(0.05)
        return status


@pytest.fixture
def live(start_daemon, write_config, tmp_path) -> Live:
    token = write_token(tmp_path / "token")
    config = write_config(
        f'[web]\nlisten = "127.0.0.1:0"\ntoken_file = "{token}"\n[report]\nenabled = true\nplot.isoelastics = false\n',
        settle=1,
    )
    return Live(start_daemon(config=config), config)


def check_reload_leaves_plots_alone(live: Live, number: int) -> None:
    """Read the config again: the last plot is shown all the time, and a request for another one is answered."""
    shown = ask(live.address, "/plot.png").body
    with concurrent.futures.ThreadPoolExecutor() as pool:
        asked = pool.submit(ask, live.address, f"/api/v1/measurements/{number}/plots/volume.png")
        live.daemon.process.send_signal(signal.SIGHUP)
        live.daemon.wait_for("config.reloaded")
        assert live.status()["plot_id"] == number
        # between two sessions, the answer is to try again
        assert asked.result().status in {200, 409}
    again = ask(live.address, f"/api/v1/measurements/{number}/plots/volume.png")
    assert again.status == 200, again.text
    assert ask(live.address, "/plot.png").body == shown


def test_page_of_a_daemon(
    live: Live,
    start_daemon: Callable[..., Daemon],
    watched_folder: pathlib.Path,
    tmp_path: pathlib.Path,
):
    """One measurement after the other: recorded, paused, resumed, processed, reported; one fails and is retried.

    The end waits for no client. After another start, the last plot is there again.
    """
    assert ask(live.address, "/healthz").json == {"status": "ok", "reasons": []}
    idle = live.status()
    assert (idle["ready"], idle["running"], idle["done"]) == (True, None, [])

    assert live.post("/api/v1/pause").json == {"paused": True}
    draw_measurement(tmp_path / "drawn.rtdc", frames=400)
    content = (tmp_path / "drawn.rtdc").read_bytes()
    target = watched_folder / "M1 <b>.rtdc"
    with target.open("wb", buffering=0) as file:
        # A file counts as being recorded when it was seen to grow.
        seen = set()
        for start in range(0, len(content), 16384):
            file.write(content[start : start + 16384])
            time.sleep(0.03)
            seen |= {(one["path"], one["size"]) for one in live.status()["recording"]}
    assert len(seen) > 1
    assert {path for path, _ in seen} == {str(target)}
    live.until(lambda now: [one["state"] for one in now["waiting"]] == ["queued"], "paused")
    assert "M1 &lt;b&gt;.rtdc" in ask(live.address, "/").text
    assert live.post("/api/v1/resume").json == {"paused": False}

    live.until(lambda now: now["done"], "done")
    done = live.until(lambda now: not now["done"][0]["report_wanted"], "reported")
    (row,) = done["done"]
    assert row["report_wanted"] is False
    assert (row["id"], row["frames"], row["has_report"]) == (done["plot_id"], 400, True)
    assert row["events"] > 0
    assert ask(live.address, "/plot.png").body.startswith(b"\x89PNG")
    page = f"/measurements/{row['id']}/"
    report = ask(live.address, page)
    assert report.status == 200
    assert "M1 &lt;b&gt;" in report.text
    (link,) = re.findall(r'href="([^"#]+\.json)"', report.text)
    assert ask(live.address, urllib.parse.urljoin(page, link)).json["events"] == row["events"]
    assert ask(live.address, f"{page}other.json").status == 404

    (watched_folder / "M2.rtdc").write_bytes(b"no measurement" * 100)
    failed = live.until(lambda now: now["failed"], "failed")["failed"][0]
    assert failed["reason"] == "not_hdf5"
    assert live.status()["unacknowledged"]["latest"]["id"] == failed["id"]
    assert "1 failure" in ask(live.address, "/").text
    assert live.post("/api/v1/acknowledge").json == {"acknowledged": 1}
    live.daemon.wait_for("daemon.acknowledged", number=1)
    assert live.status()["unacknowledged"]["latest"] is None
    assert ask(live.address, f"/measurements/{failed['id']}/").status == 404
    assert live.post(f"/api/v1/measurements/{failed['id']}/retry").status == 200
    live.daemon.wait_for("job.failed", count=2, reason="not_hdf5")
    families = text_string_to_metric_families(ask(live.address, "/metrics").text)
    found = {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}
    assert found["dcnumd_measurements_finished_total",] == 1
    assert found["dcnumd_frames_processed_total",] == 400
    assert found["dcnumd_result_latency_seconds_count",] == 1
    assert found["dcnumd_light_latency_seconds_count",] == 1
    assert found["dcnumd_measurements_failed_total", "not_hdf5"] == 2
    check_reload_leaves_plots_alone(live, row["id"])
    check_end_does_not_wait_for_clients(live)
    again = Live(start_daemon(config=live.config), live.config)
    again.until(lambda now: now["plot_id"] == row["id"], "plot of before")
    assert ask(again.address, "/plot.png").body.startswith(b"\x89PNG")


def check_end_does_not_wait_for_clients(live: Live) -> None:
    """Stop the daemon: it waits neither for those who listen, nor for those who hang."""
    requests = [
        b"",
        b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /sign-in HTTP/1.1\r\nHost: localhost\r\n",
    ]
    with contextlib.ExitStack() as stack:
        for request in requests * 3:
            stack.enter_context(contextlib.closing(hang(live.address, request)))
        assert ask(live.address, "/healthz").status == 200
        began = time.monotonic()
        assert live.daemon.stop(signal.SIGTERM, timeout=CLOSE_SECONDS) == 0
        assert time.monotonic() - began < CLOSE_SECONDS


def test_everybody_is_told_that_results_have_no_place(start_daemon, write_config, watched_folder, capsys):
    """The page, the API, health, metrics, `status` and `why` say so as long as it lasts, also while nothing runs."""

    def command(*arguments):
        assert main([*arguments, "-c", str(config)]) == 0
        return capsys.readouterr().out

    extra = '[web]\nlisten = "127.0.0.1:0"\n'
    config = write_config(extra)
    roomy = config.read_text()
    config.write_text(roomy.replace("min_free_gb = 0.01", "min_free_gb = 1e9"))
    live = Live(start_daemon(config=config), config)
    path = published(watched_folder, "M1.rtdc")
    status = live.until(lambda now: any(one["error"] for one in now["waiting"]), "told")
    (blocked,) = status["blocked"]
    assert (blocked["folder"], blocked["problem"], blocked["waiting"]) == (str(watched_folder), "disk.low", 1)
    (waiting,) = status["waiting"]
    assert (waiting["reason"], waiting["error"]) == ("no_space", blocked["error"])
    assert "are free" in waiting["error"]
    live.until(lambda now: now["outputs"][0]["free_bytes"], "measured")
    health = ask(live.address, "/healthz")
    assert health.status == 503
    told = "disk.low: The disk for the results is full: "
    assert [reason.startswith(told) for reason in health.json["reasons"]] == [True]
    assert (
        f'dcnumd_output_blocked{{folder="{watched_folder}",reason="no_space"}} 1.0'
        in ask(live.address, "/metrics").text
    )
    assert "No place for results" in ask(live.address, "/").text
    assert f"blocked  {told}" in command("status")
    assert "The disk for the results is full. Delete or move" in command("why", str(path))
    assert live.daemon.stop() == 0
    assert f"blocked  {told}" in command("status")

    config.write_text(roomy)
    live = Live(start_daemon(config=config), config)
    live.until(lambda now: now["done"], "done")
    assert live.status()["blocked"] == []
    assert ask(live.address, "/healthz").status == 200
    assert "blocked" not in command("status")
    assert live.daemon.stop() == 0
