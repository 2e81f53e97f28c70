"""The service as an operator would install it, under a real systemd with all of the unit's limits.

It runs in a container of systemd-nspawn (Debian: systemd-container), where systemd applies the unit's system-call
filter, mounts and namespaces as it does elsewhere.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import h5py
import pytest

from tests.support.daemon import START_SECONDS, Daemon, draw_measurement
from tests.systemd.conftest import PYTHON, Container

ADDRESS = "127.0.0.1:8480"
"""Of the live page."""


def start(container: Container, steps: list[str], folders: list[str]) -> None:
    """Follow the steps that install-service printed."""
    for step in steps:
        if step.startswith("setfacl"):
            continue  # the package acl may be missing; the folders are given to the user instead
        if step.startswith("systemctl enable"):
            container.run("chown", "dcnumd", *folders)
        if not step.startswith("journalctl"):
            container.run(*shlex.split(step))


def show(container: Container, unit: str, name: str) -> str:
    """Return a property of a unit."""
    return container.run("systemctl", "show", "--property", name, "--value", unit).stdout.strip()


def record(container: Container, path: str, seed: int = 0) -> None:
    """Have a measurement appear as a whole."""
    draft = container.root / "srv/draft"
    draw_measurement(draft, seed=seed)
    draft.rename(container.root / path.lstrip("/"))


def statuses(container: Container, unit: str) -> list[dict[str, str]]:
    """Return /proc/PID/status of all processes of a unit."""
    group = show(container, unit, "ControlGroup")
    read = f"for pid in $(cat /sys/fs/cgroup{group}/cgroup.procs); do cat /proc/$pid/status; echo; done"
    blocks = container.run("sh", "-c", read).stdout.strip().split("\n\n")
    return [dict(line.split(":\t", 1) for line in block.splitlines() if ":\t" in line) for block in blocks]


@pytest.fixture(scope="module")
def journal(container: Container) -> Iterator[Daemon]:
    """Boot the container, install the service as what it prints says, and follow its journal."""
    for name in ("acquisition", "results"):
        (container.root / "srv" / name).mkdir()
    with container.booted():
        steps = container.install("--output", "/srv/results", "--web", ADDRESS, folder="/srv/acquisition")
        start(container, steps, ["/srv/acquisition", "/srv/results"])
        with container.journal("dcnumd.service") as journal:
            yield journal


def test_the_service_processes_a_measurement_under_its_own_limits(container, journal):
    """What install-service prints is all there is to do: the service gets ready, compiles, works and reloads."""
    acquisition, results = container.root / "srv/acquisition", container.root / "srv/results"
    # It is a service of Type=notify: the command that started it came back because it said that it is ready.
    assert show(container, "dcnumd", "ActiveState") == "active"
    journal.wait_for("daemon.ready")
    assert journal.matching("kernels.status")
    record(container, "/srv/acquisition/M001_data.rtdc")
    finished = journal.wait_for("job.finished", path="/srv/acquisition/M001_data.rtdc")
    assert finished["events"] > 0
    journal.wait_for("report.written", path="/srv/acquisition/M001_data.rtdc")
    assert (results / "M001_data_dcn.html").stat().st_size > 0
    journal.wait_for("web.started", address=ADDRESS)
    healthy = f"import urllib.request; print(urllib.request.urlopen('http://{ADDRESS}/healthz').status)"
    assert container.run(*PYTHON, "-c", healthy).stdout.strip() == "200"
    with h5py.File(results / "M001_data_dcn.rtdc") as h5:
        assert h5.attrs["pipeline:dcnum yield"] == finished["events"] == len(h5["events/area_um"])
    assert not list(acquisition.glob("M001_data_*"))

    processes = statuses(container, "dcnumd")
    assert len(processes) > 2  # the daemon, the pipeline process, a worker
    user = container.run("id", "--user", "dcnumd").stdout.strip()
    for process in processes:
        assert set(process["Uid"].split()) == {user}
        assert int(process["CapEff"], 16) == int(process["CapBnd"], 16) == 0
        assert process["NoNewPrivs"] == "1"
        assert process["Seccomp"] == "2"

    restarts = show(container, "dcnumd", "NRestarts")
    container.run("systemctl", "reload", "dcnumd")
    journal.wait_for("config.reloaded")
    record(container, "/srv/acquisition/M002_data.rtdc", seed=1)
    journal.wait_for("job.finished", path="/srv/acquisition/M002_data.rtdc")
    assert show(container, "dcnumd", "NRestarts") == restarts


def test_what_the_service_may_not_touch(container, journal):
    """It sees no home folders, no foreign processes and no network, and cannot write beside the measurements."""
    pid = show(container, "dcnumd", "MainPID")
    as_user = ["setpriv", "--reuid=dcnumd", "--regid=dcnumd", "--clear-groups"]
    inside = ["nsenter", "--target", pid, "--mount", "--net", "--wd=/", *as_user]
    for path in ("/srv/results/x", "/var/lib/dcnumd/x", "/var/cache/dcnumd/x", "/run/dcnumd/x"):
        container.run(*inside, "touch", path)
    for path in ("/srv/acquisition/x", "/etc/x", "/usr/x", "/sys/x", "/opt/dcnumd/x"):
        refused = container.run(*inside, "touch", path, check=False)
        assert "Read-only file system" in refused.stderr
    assert container.run(*inside, "ls", "/home", check=False).returncode
    assert "1" not in container.run(*inside, "ls", "/proc").stdout.split()
    assert container.run(*inside, "ls", "/sys/class/net").stdout.split() == ["lo"]
    assert not (container.root / "srv/acquisition/x").exists()


def test_a_share_that_is_mounted_late_and_goes_again(container, journal):
    """An instance watches a share in a home folder that is mounted while it runs, and survives that it goes."""
    folder = "/home/lab/acquisition"
    (container.root / folder.lstrip("/")).mkdir(parents=True)
    (kernels,) = (container.root / "var/cache/dcnumd").glob("kernels-*")
    steps = container.install("--name", "left", folder=folder, kernels=kernels)
    start(container, steps, [folder])
    assert show(container, "dcnumd@left", "ActiveState") == "active"
    with container.journal("dcnumd@left.service") as left:
        left.wait_for("daemon.ready")
        container.run("mount", "-t", "tmpfs", "share", folder)
        container.run("chown", "dcnumd", folder)
        record(container, "/srv/M001_data.rtdc")
        container.run("cp", "/srv/M001_data.rtdc", folder)
        left.wait_for("job.finished", path=f"{folder}/M001_data.rtdc")
        assert "M001_data_dcn.rtdc" in container.run("ls", folder).stdout.split()
        container.run("umount", folder)
        assert container.run("ls", folder).stdout == ""
    assert show(container, "dcnumd@left", "ActiveState") == "active"
    container.run("systemctl", "stop", "dcnumd@left")
    assert show(container, "dcnumd@left", "Result") == "success"


def test_the_service_stops_and_is_restarted_when_it_hangs(container, journal):
    """When the event loop answers no more, systemd ends the daemon and starts it anew; what came meanwhile is done."""
    ready = len(journal.matching("daemon.ready"))
    container.run("systemctl", "stop", "dcnumd")
    journal.wait_for("daemon.stopped")
    assert show(container, "dcnumd", "Result") == "success"
    assert show(container, "dcnumd", "ExecMainStatus") == "0"

    quick = container.root / "etc/systemd/system/dcnumd.service.d/90-test.conf"
    quick.write_text("[Service]\nWatchdogSec=5\nRestartSec=0\n")
    container.run("systemctl", "daemon-reload")
    container.run("systemctl", "start", "dcnumd")
    journal.wait_for("daemon.ready", count=ready + 1, timeout=START_SECONDS)
    container.run("systemctl", "kill", "--kill-whom=main", "--signal=STOP", "dcnumd")
    record(container, "/srv/acquisition/M003_data.rtdc", seed=2)
    journal.wait_for("daemon.ready", count=ready + 2, timeout=START_SECONDS)
    journal.wait_for("job.finished", path="/srv/acquisition/M003_data.rtdc")
    assert len(journal.matching("job.finished", path="/srv/acquisition/M003_data.rtdc")) == 1
    assert show(container, "dcnumd", "NRestarts") == "1"
