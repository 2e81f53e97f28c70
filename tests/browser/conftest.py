"""A browser, and results, reports and an index that the real programs have made for it to look at."""

from __future__ import annotations

import dataclasses
import datetime as dt
import fcntl
import json
import pathlib

import pytest

from dcnumd.cli import main
from dcnumd.simulate.measurement import write_measurement
from dcnumd.simulate.spec import MeasurementSpec
from tests.support.browser import browser
from tests.support.daemon import Daemon

__all__ = ["browser"]

SMALL = MeasurementSpec(size=(64, 200), frames=400, density=0.8)
SPARSE = dataclasses.replace(SMALL, frames=250, density=0.1)
LATER = dt.datetime(2026, 6, 1, 10)  # noqa: DTZ001 -- files have local time
"""When the last of the measurements was recorded: later than those that other tests draw, so that its plot is shown."""
MEASUREMENTS = {
    "M001_data": dataclasses.replace(SMALL, frames=1500, seed=1, sample="bone marrow"),
    "M002_data": dataclasses.replace(SMALL, flicker=4.0, density=0.1, seed=2, sample="much flicker, few cells"),
    "M003_data": dataclasses.replace(SPARSE, density=0.0, seed=3, sample="buffer"),
    "M004_data": dataclasses.replace(SMALL, frames=100, density=0.05, kinds=("bead",), seed=16, sample="lonely bead"),
    "M005_moved": dataclasses.replace(SMALL, seed=5, sample="moved away"),
    "<img src=x onerror=alert(1)>&quot;'` 血液 №7 кровь דם \u202e olleh " + "x" * 130: dataclasses.replace(
        SPARSE, seed=6, started=LATER, sample='</script><script>alert("sample")</script> Blut ½ 血液 דם ' + "W" * 120
    ),
}
"""Good, bad, empty, nearly empty, without images, and a name that is made to break pages."""
BROKEN = '"broken" <b>file'


@dataclasses.dataclass(frozen=True)
class Results:
    """A folder of measurements that were processed, with reports and an index."""

    folder: pathlib.Path

    def measurement(self, name: str) -> pathlib.Path:
        """Return a measurement's file."""
        return self.folder / f"{name}.rtdc"

    def report(self, name: str) -> str:
        """Return the address of a measurement's report."""
        return (self.folder / f"{name}_dcn.html").as_uri()

    @property
    def index(self) -> str:
        """Address of the folder's index."""
        return (self.folder / "index.html").as_uri()


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory, compiled_kernels: None, worker_id: str) -> Results:
    """Process measurements with a daemon, once for all processes of a test run."""
    base = tmp_path_factory.getbasetemp()
    base = base if worker_id == "master" else base.parent
    folder = base / "browser results"
    with (base / "browser.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            place = tmp_path_factory.mktemp("browser")
            make_results(place)
            (place / "results").rename(folder)
    return Results(folder)


def make_results(place: pathlib.Path) -> None:
    """Simulate, process, and take the images of one result away."""
    folder = place / "results"
    folder.mkdir()
    for name, spec in MEASUREMENTS.items():
        write_measurement(folder / f"{name}.rtdc", spec)
    (folder / f"{BROKEN}.rtdc").write_bytes(b"no measurement")
    daemon = Daemon.start(config_in(place, folder), "--once", "--set", "resources.nice=0")
    try:
        assert daemon.wait(240) == 1, daemon.log()
        assert len(daemon.matching("report.written")) == len(MEASUREMENTS), daemon.log()
    finally:
        daemon.close()
    (folder / "M005_moved.rtdc").rename(place / "M005_moved.rtdc")
    assert main(["report", str(folder / "M005_moved_dcn.rtdc")]) == 0


def config_in(place: pathlib.Path, folder: pathlib.Path, extra: str = "") -> pathlib.Path:
    """Write a config for a daemon that watches a folder, and return its path."""
    path = place / "config.toml"
    path.write_text(
        f"[watch]\nfolders = [{json.dumps(str(folder))}]\nsettle_seconds = 0.5\nrescan_seconds = 30.0\n"
        f"[state]\nfolder = {json.dumps(str(place / 'state'))}\n"
        "[resources]\nnum_workers = 1\nmin_free_gb = 0.01\n[retry]\nbackoff_seconds = 0.2\n" + extra
    )
    return path
