"""The Containerfile, as far as a computer without a container engine can follow it."""

from __future__ import annotations

import email.parser
import importlib.metadata
import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import zipfile

import pytest

from dcnumd import __version__
from dcnumd.cli import main
from dcnumd.config.file import load_settings
from tests.support.daemon import START_SECONDS, Daemon

TOP = pathlib.Path(__file__).parents[2]
CONTAINERFILE = TOP / "Containerfile"
CONFIG = TOP / "container" / "config.toml"
KNOWN = {"ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "RUN", "USER", "VOLUME"}

pytestmark = pytest.mark.skipif(not CONTAINERFILE.exists(), reason="the Containerfile is not part of an installation")


def instructions():
    """Return each instruction with its arguments, in one line each."""
    text = re.sub(r"^#.*\n", "", CONTAINERFILE.read_text("utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def given(name):
    """Return the arguments of all instructions of a name."""
    return [arguments for instruction, arguments in instructions() if instruction == name]


def copied():
    """Return source and target of each file that is copied from the project."""
    for arguments in given("COPY"):
        *sources, target = shlex.split(arguments)
        if not sources[0].startswith("--from="):
            yield from ((source, target) for source in sources)


def test_instructions_are_known_and_sources_exist():
    """Every instruction is one that engines have, in an order that they accept."""
    names = [name for name, _ in instructions()]
    assert set(names) <= KNOWN
    assert names[:2] == ["ARG", "FROM"]
    assert [names.count(name) for name in ("USER", "ENTRYPOINT", "CMD", "HEALTHCHECK")] == [1, 1, 1, 1]
    assert names.index("USER") > max(number for number, name in enumerate(names) if name == "FROM")
    assert [source for source, _ in copied() if not (TOP / source).exists()] == []


def test_it_runs_without_privileges_on_volumes_that_the_config_names():
    """The folders of the config are volumes, which belong to the user of the container; the page's port is exposed."""
    settings = load_settings(CONFIG)
    volumes = {pathlib.Path(folder) for folder in given("VOLUME")[0].split()}
    assert volumes == {*settings.folders(), settings.output.folder, settings.state_folder()}
    (user,) = given("USER")
    account = next(command for command in given("RUN") if "useradd" in command)
    assert re.search(r"--uid [1-9]\d+ .* " + user, account)
    owned = account.partition(f"install -d -o {user} ")[2]
    assert all(str(folder) in owned.split() for folder in volumes)
    assert given("EXPOSE") == [settings.web.listen.rpartition(":")[2]]


def test_it_starts_the_daemon(capsys):
    """The entry point is the program; what it is called with by default is a command without further arguments."""
    (entry,), (arguments,) = (json.loads(given(name)[0]) for name in ("ENTRYPOINT", "CMD"))
    assert shutil.which(entry, path=pathlib.Path(sys.executable).parent)
    assert main([arguments, "--help"]) == 0
    assert "Watch folders" in capsys.readouterr().out


@pytest.mark.slow
def test_what_is_copied_makes_the_whole_package(tmp_path):
    """The files in the image make the same package as the whole project, with data files and metadata."""
    for source, _ in copied():
        target = tmp_path / "src" / source
        target.parent.mkdir(parents=True, exist_ok=True)
        if (TOP / source).is_dir():
            shutil.copytree(TOP / source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(TOP / source, target)
    install = next(command for command in given("RUN") if "pip install" in command)
    # What the image gets by default, and with --build-arg EXTRAS=[dask].
    assert install.split()[-1] == '"/src${EXTRAS}"'
    options = ["--no-index", "--no-deps", "--no-build-isolation", "-q", "-w", tmp_path]
    command = [sys.executable, "-m", "pip", "wheel", *options, tmp_path / "src"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("dcnumd-*.whl"))) as wheel:
        names = set(wheel.namelist())
        metadata = wheel.read(f"dcnumd-{__version__}.dist-info/METADATA").decode()
    package = TOP / "dcnumd"
    expected = {f"dcnumd/{path.relative_to(package)}" for path in package.rglob("*") if path.is_file()}
    assert {name for name in expected if "__pycache__" not in name} - names == set()
    requirements = email.parser.Parser().parsestr(metadata).get_all("Requires-Dist")
    assert requirements == importlib.metadata.requires("dcnumd")


def test_kernels_are_compiled_when_it_is_built(compiled_kernels):
    """The command for it works; it has nothing to do here, where tests have compiled them."""
    command = next(command for command in given("RUN") if command.startswith("python "))
    _, *arguments = shlex.split(command)
    subprocess.run([sys.executable, *arguments], check=True, timeout=120)


@pytest.mark.slow
def test_the_health_check_asks_the_daemon(tmp_path):
    """With the config of the image, it succeeds while the daemon runs, and fails when nobody answers."""
    text = CONFIG.read_text("utf-8").replace('"/srv', f'"{tmp_path}').replace('"/var', f'"{tmp_path}')
    (tmp_path / "acquisition").mkdir()
    config = tmp_path / "config.toml"
    config.write_text(text.replace(":8480", ":0"), "utf-8")
    _, option, script = json.loads(given("HEALTHCHECK")[0].partition("CMD ")[2])

    def healthy():
        script_here = script.replace(":8480/", f":{port}/")
        return subprocess.run([sys.executable, option, script_here], capture_output=True, timeout=60, check=False)

    daemon = Daemon.start(config)
    try:
        daemon.wait_for("daemon.ready", timeout=START_SECONDS)
        port = daemon.wait_for("web.started")["address"].rpartition(":")[2]
        assert healthy().returncode == 0, daemon.log()
        assert daemon.stop() == 0
    finally:
        daemon.close()
    assert healthy().returncode == 1
