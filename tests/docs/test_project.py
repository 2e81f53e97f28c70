"""What the project says of itself in several places agrees: version, date, licence, authors."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import pathlib
import re
import tomllib

import pytest
import yaml

from dcnumd import __version__

TOP = pathlib.Path(__file__).parents[2]
CHANGELOG = TOP / "CHANGELOG.md"

pytestmark = pytest.mark.skipif(not CHANGELOG.exists(), reason="the documents are not part of an installation")


@pytest.fixture(scope="module")
def project():
    """Return the metadata of the package."""
    return tomllib.loads((TOP / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.fixture(scope="module")
def citation():
    """Return the content of CITATION.cff."""
    return yaml.safe_load((TOP / "CITATION.cff").read_text("utf-8"))


def test_the_version_is_the_same_everywhere(project, citation):
    """Package, metadata, citation and the tag in the developer's guide name one version."""
    tags = re.findall(r"git tag -a v(\S+) ", (TOP / "docs" / "developer.md").read_text("utf-8"))
    assert {__version__, project["version"], citation["version"], *tags} == {__version__}


def test_the_citation_is_complete(project, citation):
    """It has what CFF 1.2.0 demands, and nothing that the project does not know."""
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= {*citation}
    assert citation["authors"] == [{"name": "The dcnumd authors"}]
    assert citation["license"] == project["license"] == "MIT"
    assert citation["type"] == "software"
    assert "The dcnumd authors" in (TOP / "LICENSE").read_text("utf-8")


def test_the_changelog_begins_with_the_release(citation):
    """Below what is unreleased comes the present version with its date, sorted into kinds of changes."""
    headings = re.findall(r"^(##+ .*)$", CHANGELOG.read_text("utf-8"), re.MULTILINE)
    releases = [heading for heading in headings if heading.startswith("## ")]
    assert isinstance(citation["date-released"], dt.date)
    assert releases[:2] == ["## [Unreleased]", f"## [{__version__}] - {citation['date-released']}"]
    kinds = {heading for heading in headings if heading.startswith("### ")}
    assert kinds <= {f"### {kind}" for kind in ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")}


def test_the_readme_says_which_python_is_needed(project):
    """The badge is a picture in the repository, which must not promise more than the metadata."""
    least = project["requires-python"].removeprefix(">=")
    assert f"≥ {least}" in (TOP / "docs" / "badges" / "python.svg").read_text("utf-8")
    assert f"Python {least} or newer" in " ".join((TOP / "README.md").read_text("utf-8").split())
    assert importlib.metadata.metadata("dcnumd")["Requires-Python"] == project["requires-python"]


def test_the_speeds_in_the_readme_are_measured():
    """Each row of its table has the medians of a row of the page that the benchmark has written."""
    readme = (TOP / "README.md").read_text("utf-8").partition("## How fast it is")[2]
    rows = re.findall(r"^\| .* \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", readme, re.MULTILINE)
    performance = (TOP / "docs" / "performance.md").read_text("utf-8")
    medians = re.findall(r"\| ([\d.]+) \([^|]* \| ([\d.]+)[ ,][^|]* \| ([\d.]+)[ ,]", performance)
    assert len(rows) > 3
    assert set(rows) <= set(medians)
