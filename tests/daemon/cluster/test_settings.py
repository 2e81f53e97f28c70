"""Settings of a cluster: what is wrong with them, what `check` says, and that Dask is not loaded without them."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import dask.config
import pytest

from dcnumd import extras
from dcnumd.cli import main
from dcnumd.config.file import load_settings
from dcnumd.config.path_map import PathMap
from dcnumd.errors import ConfigError
from tests.support.daemon import HANG_SECONDS

SCHEDULER = "[executor]\nkind = 'dask'\nscheduler = 'tcp://127.0.0.1:8786'\n"


@pytest.fixture
def load(tmp_path):
    """Return a function that writes a config and loads it."""

    def load(text):
        path = tmp_path / "config.toml"
        path.write_text(f"[watch]\nfolders = ['{tmp_path}/in']\n[state]\nfolder = '{tmp_path}/state'\n{text}")
        return load_settings(path)

    return load


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[executor]\nkind = 'slurm'", "executor.kind: got 'slurm'; allowed are 'local', 'dask'"),
        ("[executor]\nkind = 'dask'", "either scheduler or scheduler_file is needed"),
        (f"{SCHEDULER}scheduler_file = '/s.json'", "either scheduler or scheduler_file is needed"),
        (f"{SCHEDULER}capacity = -1", "executor.capacity: got -1; 0 or more is allowed"),
        (f"{SCHEDULER}paths = {{ in = '/mnt' }}", "executor.paths: got 'in' = '/mnt'; two absolute paths"),
        (f"{SCHEDULER}paths = {{ '/elsewhere' = '/mnt' }}", "/in; add its folder on the workers"),
    ],
)
def test_wrong_settings_are_named(load, text, complaint):
    """Also a watched folder that no worker could find."""
    with pytest.raises(ConfigError) as failure:
        load(text)
    assert complaint in failure.value.message


def test_a_cluster_needs_the_extra(load, monkeypatch):
    """The message says what to install."""
    monkeypatch.setattr(extras, "installed_version", lambda _: "")
    with pytest.raises(ConfigError, match=r"pip install 'dcnumd\[dask\]'"):
        load(SCHEDULER)
    load("[executor]\nkind = 'local'")


def test_the_longest_folder_says_where_a_file_is():
    """A folder in another one may be mounted elsewhere."""
    paths = PathMap.of({"/srv": "/mnt/srv", "/srv/acquisition": "/mnt/instrument3"})
    assert paths.there(pathlib.Path("/srv/acquisition/a/M1.rtdc")) == pathlib.Path("/mnt/instrument3/a/M1.rtdc")
    assert paths.there(pathlib.Path("/srv/acquisition")) == pathlib.Path("/mnt/instrument3")
    assert paths.there(pathlib.Path("/srv/acquisition2/M1.rtdc")) == pathlib.Path("/mnt/srv/acquisition2/M1.rtdc")
    with pytest.raises(ValueError, match="in none of the folders"):
        paths.there(pathlib.Path("/home/M1.rtdc"))
    assert PathMap.of({}).there(pathlib.Path("/home/M1.rtdc")) == pathlib.Path("/home/M1.rtdc")


@pytest.mark.parametrize(
    ("scheduler", "level"),
    [
        ("tcp://127.0.0.1:8786", "ok"),
        ("localhost:8786", "ok"),
        ("tcp://[::1]:8786", "ok"),
        ("tls://server.example.org:8786", "problem"),
        ("tcp://192.0.2.7:8786", "warning"),
        ("server.example.org:8786", "warning"),
        ("tcp://", "problem"),
    ],
)
def test_check_warns_of_a_scheduler_that_others_can_use(load, tmp_path, capsys, scheduler, level):
    """Whoever reaches it can run programs here."""
    load(f"[executor]\nkind = 'dask'\nscheduler = '{scheduler}'\n")
    code = main(["check", "--json", "-c", str(tmp_path / "config.toml")])
    findings = json.loads(capsys.readouterr().out)["findings"]
    (found,) = [finding for finding in findings if finding["subject"] == "executor"]
    assert (found["level"], code) == (level, 2 if level == "problem" else 0)
    assert level != "warning" or "not encrypted" in found["text"]


def test_a_time_limit_with_which_dask_cannot_connect_is_named(load, tmp_path, capsys):
    """By `check` and by the daemon, in one line."""
    load(SCHEDULER)
    config, problem = str(tmp_path / "config.toml"), "distributed.comm.timeouts.tcp is '10s'; 11 s or more is allowed"
    with dask.config.set({"distributed.comm.timeouts.tcp": "10s"}):
        assert main(["check", "-c", config]) == 2
    assert problem in capsys.readouterr().out
    done = subprocess.run(
        [sys.executable, "-m", "dcnumd", "run", "-c", config],
        env={**os.environ, "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "10s"},
        timeout=HANG_SECONDS, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert problem in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_of_dask_is_loaded_for_jobs_on_this_computer():
    """Dask would cost memory, and need not be installed."""
    code = (
        "import sys; from dcnumd.config.values import Settings; from dcnumd.daemon import supervisor; "
        "import dcnumd.commands.worker; "
        "print(type(supervisor.Workers.of(Settings(), print, print).executor).__name__, "
        "sorted({'dask', 'distributed', 'tornado', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "LocalExecutor []\n"
