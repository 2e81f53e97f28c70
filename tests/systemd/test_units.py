"""The units as systemd judges them, and what install-service makes of them."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess

import click.testing
import pytest

from dcnumd.commands.install_service import install_service
from dcnumd.config.file import load_settings
from dcnumd.errors import ConfigError

UNITS = pathlib.Path(__file__).parents[2] / "systemd"
NAMES = ("dcnumd.service", "dcnumd@.service")
PROGRAM = "/usr/bin/env"
"""Stands for dcnumd, in a place that the service sees."""
TEMPORARY = "/tmp"  # noqa: S108 -- nothing is written there


@pytest.fixture(scope="module", autouse=True)
def systemd_analyze() -> None:
    """Skip where the tool is missing."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing (Debian: systemd)")


def exposure(unit: pathlib.Path) -> float:
    """Return how exposed a unit is, as systemd-analyze says: 0 to 10."""
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"Overall exposure level for .*: ([0-9.]+)", told.stdout)
    assert found, told
    return float(found[1])


def verify(unit: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """Return what systemd-analyze finds wrong with a unit."""
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", NAMES)
def test_units_are_sound_and_hardly_exposed(name, tmp_path):
    """Nothing is wrong with the units, once the program is there, and they score 1.0 or less."""
    unit = tmp_path / name
    unit.write_text((UNITS / name).read_text().replace("/usr/bin/dcnumd", PROGRAM))
    done = verify(unit)
    assert (done.returncode, done.stderr) == (0, "")
    assert exposure(unit) <= 1.0


def test_the_unit_of_a_worker_is_sound(tmp_path):
    """It differs from the others in the network, which a worker needs, and in what it has no use for."""
    unit = tmp_path / "dcnumd-worker.service"
    unit.write_text((UNITS / unit.name).read_text().replace("/usr/bin/dcnumd", PROGRAM))
    done = verify(unit)
    assert (done.returncode, done.stderr) == (0, "")
    assert exposure(unit) <= 2.0
    daemon, worker = ((UNITS / name).read_text().splitlines() for name in (NAMES[0], unit.name))
    own = {line.partition("=")[0] for line in worker if line[:1].isupper() and line not in daemon}
    assert own == {
        "Description",
        "Wants",
        "After",
        "EnvironmentFile",
        "ExecStart",
        "CacheDirectory",
        "Environment",
        "RuntimeDirectory",
        "ReadWritePaths",
        "RestrictAddressFamilies",
    }


def test_both_units_are_the_same_but_for_the_instance():
    """An instance has names of its own, and nothing else that differs."""
    single, instance = ((UNITS / name).read_text().partition("[Unit]")[2].splitlines() for name in NAMES)
    plain = [
        line.replace(" (%i)", "").replace("/%i.toml", "/config.toml").replace("/%i", "").replace("/left/", "/")
        for line in instance
    ]
    assert plain == single


@pytest.mark.parametrize("name", NAMES)
def test_each_option_says_why(name):
    """Above each group of options there is a comment."""
    explained = False
    for line in (UNITS / name).read_text().partition("[Service]")[2].partition("[Install]")[0].splitlines():
        explained = line.startswith("#") or (explained and line != "")
        assert explained or "=" not in line, line


class Installer:
    """Calls the command with folders of its own."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.configs = folder / "etc/dcnumd"
        self.units = folder / "etc/systemd/system"

    def __call__(self, *options: str) -> click.testing.Result:
        places = ["--config-dir", str(self.configs), "--unit-dir", str(self.units)]
        program = [] if "--program" in options else ["--program", PROGRAM]
        return click.testing.CliRunner().invoke(install_service, [*places, *program, *options])

    def refusal(self, *options: str) -> str:
        """Return the one line that says why it did nothing."""
        error = self(*options).exception
        assert isinstance(error, ConfigError)
        assert "\n" not in error.message
        assert not self.configs.exists() or not self.units.exists() or "exists" in error.message
        return error.message


@pytest.fixture
def install(tmp_path: pathlib.Path) -> Installer:
    return Installer(tmp_path)


def test_a_dry_run_writes_nothing_and_shows_everything(install, tmp_path):
    """A dry run prints both files of the service, the config, and the commands that are to follow."""
    result = install("--folder", "/srv", "--output", "/mnt", "--dry-run")
    assert result.exit_code == 0
    assert list(tmp_path.iterdir()) == []
    for line in (
        'folders = ["/srv"]',
        'ReadOnlyPaths="-/srv"',
        'ReadWritePaths="-/mnt"',
        "SystemCallFilter=~@privileged",
    ):
        assert line in result.output.splitlines()
    assert "  systemctl enable --now dcnumd.service" in result.output.splitlines()


@pytest.mark.parametrize("name", [None, "left"])
@pytest.mark.parametrize("output", [None, "/mnt"])
def test_what_is_written_is_sound(install, name, output):
    """The written unit passes systemd's checks with its drop-in, and the config names the folders."""
    options = [*(["--name", name] if name else []), *(["--output", output] if output else [])]
    assert install("--folder", "/srv", *options).exit_code == 0
    unit = install.units / (f"dcnumd@{name}.service" if name else "dcnumd.service")
    done = verify(unit)
    assert (done.returncode, done.stderr) == (0, "")
    assert exposure(unit) <= 1.0
    settings = load_settings(install.configs / (f"{name}.toml" if name else "config.toml"))
    assert settings.watch.folders == (pathlib.Path("/srv"),)
    assert settings.output.folder == (pathlib.Path(output) if output else None)
    assert settings.state.folder == pathlib.Path("/var/lib/dcnumd", name or "")
    site = (install.units / f"{unit.name}.d/10-site.conf").read_text().splitlines()
    assert ('ReadOnlyPaths="-/srv"' in site) == bool(output)
    assert f'ReadWritePaths="-{output or "/srv"}"' in site


def test_the_check_would_find_a_wrong_program(install):
    """The drop-in counts in what the test above checks: a program that is missing is found."""
    install("--folder", "/srv")
    site = install.units / "dcnumd.service.d/10-site.conf"
    site.write_text(site.read_text().replace(PROGRAM, "/usr/bin/there-is-no-such-program"))
    assert verify(install.units / "dcnumd.service").returncode != 0


def test_an_existing_config_decides(install):
    """Called again without folders, the service follows the config; the config changes only by --force."""
    install("--folder", "/srv")
    config = install.configs / "config.toml"
    config.write_text('[watch]\nfolders = ["/opt"]\n[output]\nfolder = "/mnt"\n')
    assert "--force" in install.refusal("--folder", "/srv")
    assert install().exit_code == 0
    site = (install.units / "dcnumd.service.d/10-site.conf").read_text()
    assert 'ReadOnlyPaths="-/opt"' in site
    assert 'ReadWritePaths="-/mnt"' in site
    assert "/srv" not in site
    assert install("--folder", "/srv", "--force").exit_code == 0
    assert load_settings(config).watch.folders == (pathlib.Path("/srv"),)


@pytest.mark.parametrize(
    ("address", "allowed"), [("127.0.0.1:8480", "localhost"), ("[::1]:8480", "localhost"), ("0.0.0.0:80", "any")]
)
def test_the_live_page_gets_as_much_network_as_it_needs(install, address, allowed):
    """Only who wants a page has a network; a page for this computer is not reached from others."""
    assert "an address and a port" in install.refusal("--folder", "/srv", "--web", "nonsense")
    assert install("--folder", "/srv", "--web", address).exit_code == 0
    assert load_settings(install.configs / "config.toml").web.listen == address
    unit = install.units / "dcnumd.service"
    assert verify(unit).stderr == ""
    site = (install.units / "dcnumd.service.d/10-site.conf").read_text().splitlines()
    assert "PrivateNetwork=no" in site
    assert f"IPAddressAllow={allowed}" in site
    assert install("--folder", "/srv", "--force").exit_code == 0
    assert "Network" not in (install.units / "dcnumd.service.d/10-site.conf").read_text()


def test_a_daemon_with_a_cluster_reaches_its_scheduler(install):
    """Also one without a live page."""
    install("--folder", "/srv")
    config = install.configs / "config.toml"
    config.write_text(
        '[watch]\nfolders = ["/srv"]\n[executor]\nkind = "dask"\nscheduler = "tls://server.example.org:8786"\n'
    )
    assert install().exit_code == 0
    assert verify(install.units / "dcnumd.service").stderr == ""
    site = (install.units / "dcnumd.service.d/10-site.conf").read_text().splitlines()
    assert {"PrivateNetwork=no", "IPAddressAllow=any"} <= set(site)


def test_the_service_of_a_worker(install):
    """It has the address of the scheduler in a file, and may write to the folders."""
    worker = ("--worker", "tls://server.example.org:8786")
    assert "--folder DIR" in install.refusal(*worker)
    assert "is no address" in install.refusal("--worker", "tls://", "--folder", "/srv")
    assert isinstance(install(*worker, "--folder", "/srv", "--name", "left").exception, SystemExit)
    result = install(*worker, "--folder", "/srv")
    assert result.exit_code == 0
    assert "  systemctl enable --now dcnumd-worker.service" in result.output.splitlines()
    assert (install.configs / "worker.env").read_text() == "SCHEDULER=tls://server.example.org:8786\n"
    unit = install.units / "dcnumd-worker.service"
    assert verify(unit).stderr == ""
    site = (install.units / "dcnumd-worker.service.d/10-site.conf").read_text().splitlines()
    assert f"EnvironmentFile={install.configs}/worker.env" in site
    assert 'ReadWritePaths="-/srv"' in site
    assert not (install.configs / "config.toml").exists()


def test_foreseeable_faults_are_one_line_with_the_cure(install, tmp_path):
    """What the service could not see, run or write is refused before anything is written."""
    assert "--folder DIR" in install.refusal()
    assert "mount it first" in install.refusal("--folder", "/srv/there/is/none")
    assert "choose another folder" in install.refusal("--folder", TEMPORARY)
    assert "no such program" in install.refusal("--folder", "/srv", "--program", "/usr/bin/there-is-none")
    hidden = tmp_path / "dcnumd"
    hidden.write_text("#!/bin/sh\n")
    hidden.chmod(0o755)
    if pathlib.Path(TEMPORARY) in hidden.resolve().parents:
        assert "/opt/dcnumd" in install.refusal("--folder", "/srv", "--program", str(hidden))
    assert "no such user" in install.refusal("--folder", "/srv", "--user", "nobody-of-this-name")
    assert "letters" in install.refusal("--folder", "/srv", "--name", "a b")
    install.units.parent.parent.mkdir(parents=True)
    install.units.parent.write_text("")
    assert "as root" in install.refusal("--folder", "/srv")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user who may see less")
def test_folders_that_the_user_may_not_see_are_told(install, tmp_path):
    """A folder below one that is closed to this user ends with the cure, not with a traceback."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    os.seteuid(65534)
    try:
        error = install("--folder", str(closed / "acquisition")).exception
    finally:
        os.seteuid(0)
    assert isinstance(error, ConfigError)
    assert "call dcnumd install-service with sudo" in error.message
