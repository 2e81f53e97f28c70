"""Shared fixtures."""

from __future__ import annotations

import pathlib
import zipfile
from collections.abc import Callable

import pytest

from dcnumd.kernels.cache import ensure_compiled

SHARED_DATA = pathlib.Path(__file__).parents[2] / "shared" / "data"


LONG_TESTS = (
    "test_demo_processes_what_it_records",
    "test_killed_processes_cost_no_result",
    "test_one_command_runs_cases",
    "tests/systemd/test_service.py",
    "tests/browser/",
    "tests/docs/",
    "tests/web/test_browser.py",
    "tests/web/test_live.py",
    "tests/report/",
    "tests/daemon/test_faults_",
    "tests/soak/",
    "tests/parity/",
    "tests/daemon/test_run.py",
    "tests/kernels/test_cache.py",
    "tests/logic/test_memory.py",
    "tests/browser/",
    "tests/docs/test_example.py",
    "tests/web/",
    "tests/daemon/",
    "tests/report/",
)
"""What takes long, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long, so that no long test is left for the end, where other workers have none."""

    def rank(item: pytest.Item) -> int:
        return next((number for number, part in enumerate(LONG_TESTS) if part in item.nodeid), len(LONG_TESTS))

    items.sort(key=rank)


@pytest.fixture(scope="session", autouse=True)
def compiled_kernels() -> None:
    """Compile the kernels once for all processes of a test run."""
    ensure_compiled(print)


@pytest.fixture(scope="session")
def shared_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], pathlib.Path]:
    """Return a function that unzips a real measurement by the name of its zip file (without suffix)."""
    folder = tmp_path_factory.mktemp("shared")

    def unzip(name: str) -> pathlib.Path:
        source = SHARED_DATA / f"{name}.zip"
        if not source.exists():
            pytest.skip(f"real measurement {source.name} is missing in ../shared/data")
        with zipfile.ZipFile(source) as archive:
            (member,) = [info for info in archive.namelist() if info.endswith(".rtdc")]
            archive.extract(member, folder / name)
        return folder / name / member

    return unzip
