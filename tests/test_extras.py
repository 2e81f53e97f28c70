"""Optional packages: a segmenter that needs one that is missing or too old says what to install."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest

from dcnumd.errors import MethodError
from dcnumd.extras import EXTRAS, MINIMUM_VERSIONS, lacking
from dcnumd.segm.methods import get_segmenter
from dcnumd.segm.segmenter import REQUIRED_EXTRAS
from tests.support.source import PACKAGE

PROJECT = PACKAGE.parent / "pyproject.toml"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Return a function that lays out a version of torch, without code, in front of all other packages."""
    monkeypatch.syspath_prepend(tmp_path)

    def lay_out(version):
        described = tmp_path / f"torch-{version}.dist-info"
        described.mkdir()
        (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")

    return lay_out


@pytest.mark.parametrize(
    ("version", "usable"),
    [("2.2.0", True), ("2.13.0+cpu", True), ("3.0", True), ("2.1.2", False), ("1.13.1+cu117", False)],
)
def test_version_of_an_optional_package_counts(installed, version, usable):
    """It is read from what pip has written; the package itself is not imported."""
    installed(version)
    problem = lacking("torch")
    assert (problem == "") == usable
    if not usable:
        assert problem == (f"torch {version} is too old, torch 2.2 or newer is needed: pip install 'dcnumd[torch]'")


def test_old_package_is_a_mistake_in_the_config(installed):
    """Whoever names the segmenter reads what it needs."""
    installed("2.1.2")
    for code in REQUIRED_EXTRAS:
        with pytest.raises(MethodError, match=rf"segmenter '{code}': torch 2\.1\.2 is too old"):
            get_segmenter(code)


def test_missing_package_is_a_mistake_in_the_config(tmp_path):
    """`check` names the extra to install; an environment without packages of others stands for one without torch."""
    config = tmp_path / "config.toml"
    config.write_text(f"[watch]\nfolders = ['{tmp_path}']\n[state]\nfolder = '{tmp_path}/state'\n")
    program = (
        "import importlib.metadata as found, sys\n"
        "version = found.version\n"
        "def without_torch(name):\n"
        "    if name == 'torch':\n"
        "        raise found.PackageNotFoundError(name)\n"
        "    return version(name)\n"
        "found.version = without_torch\n"
        "from dcnumd.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    arguments = ["check", "-c", str(config), "--set", "pipeline.segmenter.code=torchmpo"]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    problem = "segmenter 'torchmpo': torch 2.2 or newer is not installed: pip install 'dcnumd[torch]'"
    assert any(line.startswith("problem") and line.endswith(problem) for line in done.stdout.splitlines())


@pytest.mark.skipif(not PROJECT.exists(), reason="the project's files are not part of an installation")
def test_extras_ask_for_the_oldest_version_that_works():
    """What pip installs can be used."""
    extras = tomllib.loads(PROJECT.read_text("utf-8"))["project"]["optional-dependencies"]
    for package, version in MINIMUM_VERSIONS.items():
        assert f"{package}>={'.'.join(map(str, version))}" in extras[EXTRAS[package]]
