"""All that tells of the daemon tells the same: the page, its API, health, metrics, `status` and `why`."""

from __future__ import annotations

import contextlib
import dataclasses
import html
import json
import pathlib
import signal
from collections.abc import Callable, Iterator

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dcnumd.cli import main
from dcnumd.reasons import CATALOGUE
from tests.support.daemon import START_SECONDS, Daemon
from tests.support.faults import published, recording, wait_until
from tests.support.places import MountedFolder, mounted, needs_mount
from tests.support.web import TOKEN, ask, write_token

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

IN_LEDGER = {"disk.low": "blocked", "output.blocked": "blocked", "failures": "news"}
"""Conditions that `status` also tells without the daemon, and the word before them."""


@dataclasses.dataclass
class Place:
    """A daemon, its folders, and what can be wrong with them."""

    daemon: Daemon
    config: pathlib.Path
    watched: pathlib.Path
    other: MountedFolder
    state: MountedFolder
    results: MountedFolder
    reports: MountedFolder
    address: str
    capsys: pytest.CaptureFixture[str]

    def get(self, path: str) -> str:
        return ask(self.address, path).text

    def post(self, path: str) -> None:
        assert ask(self.address, f"/api/v1/{path}", "POST", {"Authorization": f"Bearer {TOKEN}"}).status == 200

    def told(self) -> dict[str, dict[str, object]]:
        """Return the conditions that the API tells, by name."""
        return {one["name"]: one for one in json.loads(self.get("/api/v1/status"))["conditions"]}

    def is_calm(self) -> bool:
        """Return whether there is no condition, and nothing to do."""
        now = json.loads(self.get("/api/v1/status"))
        return not (now["conditions"] or now["waiting"] or now["running"] or now["recording"])

    def waiting(self, path: pathlib.Path) -> pathlib.Path:
        """Wait until the ledger says why a measurement waits, and return its path."""

        def noted() -> bool:
            waiting = json.loads(self.get("/api/v1/status"))["waiting"]
            return any(one["path"] == str(path) and one["reason"] for one in waiting)

        wait_until(noted, daemon=self.daemon)
        return path

    def command(self, *arguments: str, code: int = 0) -> str:
        assert main([*arguments, "-c", str(self.config)]) == code
        return self.capsys.readouterr().out

    def set(self, name: str, value: object) -> None:
        """Have the daemon work by another config."""
        lines = self.config.read_text().splitlines(keepends=True)
        changed = [f"{name} = {json.dumps(value)}\n" if line.startswith(f"{name} = ") else line for line in lines]
        assert changed != lines
        count = len(self.daemon.matching("config.reloaded"))
        self.config.write_text("".join(changed))
        self.daemon.process.send_signal(signal.SIGHUP)
        self.daemon.wait_for("config.reloaded", count=count + 1)


@contextlib.contextmanager
def paused(place: Place) -> Iterator[pathlib.Path]:
    place.post("pause")
    path = published(place.watched, "paused.rtdc")
    place.daemon.wait_for("job.queued", path=str(path))
    yield path
    place.post("resume")


@contextlib.contextmanager
def held(place: Place) -> Iterator[pathlib.Path]:
    place.set("pause_while_acquiring", True)
    place.post("pause")
    path = published(place.watched, "held.rtdc")
    place.daemon.wait_for("job.queued", path=str(path))
    with recording(place.watched / "camera.rtdc"):
        wait_until(lambda: json.loads(place.get("/api/v1/status"))["held_for_recording"], daemon=place.daemon)
        place.post("resume")
        yield path
    place.set("pause_while_acquiring", False)


@contextlib.contextmanager
def full_disk(place: Place) -> Iterator[pathlib.Path]:
    ballast = place.results.fill()
    yield place.waiting(published(place.watched, "no space.rtdc"))
    ballast.unlink()


@contextlib.contextmanager
def read_only(place: Place) -> Iterator[pathlib.Path]:
    place.results.remount("ro")
    yield place.waiting(published(place.watched, "read-only.rtdc"))
    place.results.remount("rw")


@contextlib.contextmanager
def no_place_for_reports(place: Place) -> Iterator[pathlib.Path]:
    place.set("enabled", True)
    place.reports.remount("ro")
    path = published(place.watched, "unreported.rtdc")
    place.daemon.wait_for("report.failed", path=str(path))
    yield path
    place.reports.remount("rw")
    place.daemon.wait_for("report.written", path=str(path))
    place.set("enabled", False)


@contextlib.contextmanager
def unmounted(place: Place) -> Iterator[pathlib.Path]:
    place.post("pause")
    path = published(place.other.folder, "lost.rtdc")
    place.daemon.wait_for("job.queued", path=str(path))
    place.other.unmount()
    yield path
    place.other.mount()
    place.post("resume")


@contextlib.contextmanager
def failure(place: Place) -> Iterator[pathlib.Path]:
    path = place.watched / "bad.rtdc"
    path.write_bytes(b"no measurement")
    yield path
    place.post("acknowledge")


@contextlib.contextmanager
def full_state_folder(place: Place) -> Iterator[pathlib.Path]:
    ballast = [place.state.fill()]
    # So many, since what is noted of a few may go where something was before.
    for number in range(10):
        published(place.watched, f"not noted {number}.rtdc", seed=number)
    place.daemon.wait_for("ledger.unwritable")
    # What is freed when the ledger is closed must not suffice to open it again.
    wait_until(lambda: not json.loads(place.get("/api/v1/status"))["folders"], daemon=place.daemon)
    ballast.append(place.state.fill("more"))
    yield published(place.watched, "not seen.rtdc")
    for file in ballast:
        file.unlink()
    place.daemon.wait_for("ledger.recovered")


@contextlib.contextmanager
def no_process(place: Place) -> Iterator[pathlib.Path]:
    """Kill the process that does the work, and the next one while it starts; the delay before another one is long."""
    place.set("backoff_seconds", 3600.0)
    place.post("pause")
    path = published(place.watched, "no process.rtdc")
    place.daemon.wait_for("job.queued", path=str(path))
    pid = place.daemon.matching("worker.started", role="pipeline")[-1]["pid"]
    psutil.Process(pid).kill()
    place.daemon.wait_for("worker.lost", pid=pid)
    place.post("resume")
    supervisor = psutil.Process(place.daemon.process.pid)
    roles = {event["pid"] for event in place.daemon.matching("worker.started")}

    def failed() -> bool:
        for child in supervisor.children():
            # It may have ended meanwhile, also as a zombie.
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.pid not in roles and "spawn_main" in " ".join(child.cmdline()):
                    child.kill()
        return bool(place.daemon.matching("worker.failed", role="pipeline"))

    wait_until(failed, daemon=place.daemon)
    yield path


STATES: dict[str, tuple[set[str], Callable[[Place], contextlib.AbstractContextManager[pathlib.Path]], str]] = {
    "paused": ({"daemon.paused"}, paused, ""),
    "held by a recording": ({"pipeline.held"}, held, ""),
    "disk full": ({"disk.low"}, full_disk, "no_space"),
    "results read-only": ({"output.blocked"}, read_only, "output_read_only"),
    "reports read-only": ({"report.blocked"}, no_place_for_reports, ""),
    "folder gone": ({"watch.unreachable", "daemon.paused"}, unmounted, ""),
    "failure": ({"failures"}, failure, "not_hdf5"),
    "ledger unwritable": ({"ledger.unwritable"}, full_state_folder, ""),
    "pipeline cannot start": ({"worker.failed"}, no_process, ""),
}
"""The names of the conditions in each state, what brings it about and cures it, and its reason code if it has one."""


CONFIG = """
[watch]
folders = {folders}
settle_seconds = 0.3
rescan_seconds = 0.5
[output]
folder = {results}
[state]
folder = {state}
[resources]
num_workers = 1
min_free_gb = 0.0
nice = 0
pause_while_acquiring = false
[retry]
backoff_seconds = 0.2
[report]
enabled = false
folder = {reports}
[web]
listen = "127.0.0.1:0"
token_file = {token}
"""


@pytest.fixture
def place(start_daemon, watched_folder, state_folder, tmp_path, capsys) -> Iterator[Place]:
    """Run a daemon with a second folder, a folder of results and a state folder that can be full or unmounted."""
    with (
        mounted(tmp_path / "other") as other,
        mounted(tmp_path / "results", megabytes=32) as results,
        mounted(tmp_path / "reports") as reports,
        mounted(state_folder, megabytes=8) as state,
    ):
        paths = {
            "folders": [str(watched_folder), str(other.folder)],
            "results": str(results.folder),
            "reports": str(reports.folder),
            "state": str(state.folder),
            "token": str(write_token(tmp_path / "token")),
        }
        config = tmp_path / "config.toml"
        config.write_text(CONFIG.format(**{name: json.dumps(value) for name, value in paths.items()}))
        daemon = start_daemon(config=config)
        address = daemon.wait_for("web.started", timeout=START_SECONDS)["address"]
        yield Place(daemon, config, watched_folder, other, state, results, reports, address, capsys)
        # Before its folders are unmounted.
        daemon.stop()


@needs_mount
def test_everybody_tells_the_same(place):
    """Each state has one name and the same words of cause and cure everywhere, as long as it lasts."""
    for names, bring_about, reason in STATES.values():
        wait_until(place.is_calm, daemon=place.daemon)
        agree(place, set())
        with bring_about(place) as path:
            wait_until(lambda names=names: set(place.told()) == names, daemon=place.daemon)
            agree(place, names)
            for name in names:
                is_explained(place, place.told()[name], path, reason)


def agree(place: Place, names: set[str]) -> None:
    """Fail unless all that tells of the daemon tells these conditions and no other one."""
    told = place.told()
    assert set(told) == names
    health = ask(place.address, "/healthz")
    serious = [one for one in told.values() if one["light"] in {"red", "grey"} or "output" in str(one["name"])]
    assert health.status == (503 if serious else 200)
    assert health.json["reasons"] == [line_of(one) for one in serious]
    page = html.unescape(place.get("/"))
    assert [one["title"] for one in told.values() if f">{one['title']}</h1>" in page] == [
        one["title"] for one in told.values()
    ][:1]
    assert all(str(one["text"]) in page for one in told.values())
    families = text_string_to_metric_families(place.get("/metrics"))
    values = {one.labels["name"]: one.value for family in families for one in family.samples if "condition" in one.name}
    assert {name for name, value in values.items() if value} == names
    assert names < set(values)

    status = json.loads(place.command("status", "--json"))
    assert (status["daemon_answers"], status["conditions"]) == (True, list(told.values()))
    plain = place.command("status")
    for one in told.values():
        word = IN_LEDGER.get(str(one["name"]), "state")
        line = str(one["title"]) if word == "news" else line_of(one)
        assert f"{word:9}{line}" in plain
    assert plain.count("\nstate ") == len(names - set(IN_LEDGER))


def line_of(condition: dict[str, object]) -> str:
    return str(condition["detailed"] or f"{condition['name']}: {condition['text']}")


def is_explained(place: Place, condition: dict[str, object], path: pathlib.Path, reason: str) -> None:
    """Fail unless `why` says of a measurement what the condition says, in its words."""
    unknown = condition["name"] == "ledger.unwritable"
    told = place.command("why", str(path), code=int(unknown))
    if not reason:
        assert f"    {line_of(condition)}\n" in told
        document = json.loads(place.command("why", "--json", str(path), code=int(unknown)))
        assert condition in (document if unknown else document["entries"][0])["conditions"]
        return
    cause = CATALOGUE[reason]
    assert f"    {cause.what}. {cause.cure}\n" in told
    assert cause.what in str(condition["text"])
    assert cause.cure in str(condition["text"])
