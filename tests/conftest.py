"""Shared fixtures."""

from __future__ import annotations

import logging
import os
import pathlib
import sys
import zipfile
from collections.abc import Callable, Generator, Iterator

import pytest
import structlog

from dcnumd.daemon import logs
from dcnumd.kernels.cache import ensure_compiled
from tests.support.daemon import forget_ended, heard_of
from tests.support.order import dealt, mark_slow

# What tests start reads its compiled modules, as an installed program does; else it would compile them at each start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

SHARED_DATA = pathlib.Path(__file__).parents[2] / "shared" / "data"


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None]:
    """Mark what is slow, and deal what is left of all tests, when nobody leaves out any more, to the processes."""
    mark_slow(items)
    yield
    processes = getattr(config, "workerinput", {}).get("workercount", 1)
    items[:] = dealt(items, processes)


def pytest_runtest_setup() -> None:
    """Begin with the daemons that stay from test to test."""
    forget_ended()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the daemons logged in a test that fails, whatever it waited for in vain."""
    report = yield
    if report.failed:
        told = str(report.longrepr)
        logs = [daemon.log() for daemon in heard_of]
        report.sections += [("log of a daemon", log) for log in logs if log not in told]
    return report


@pytest.fixture(scope="session", autouse=True)
def compiled_kernels() -> None:
    """Compile the kernels once for all processes of a test run."""
    ensure_compiled(print)


@pytest.fixture(autouse=True)
def own_logs() -> Iterator[None]:
    """Undo what a command in the process of a test has configured about logs."""
    before, level = structlog.get_config() if structlog.is_configured() else None, logging.getLogger().level
    yield
    if before is None:
        structlog.reset_defaults()
    else:
        structlog.configure(**before)
    root = logging.getLogger()
    root.handlers[:] = [handler for handler in root.handlers if not isinstance(handler, logs._Forward)]
    root.setLevel(level)
    logging.captureWarnings(capture=False)


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


@pytest.fixture(scope="session")
def shared_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], pathlib.Path]:
    """Return a function that unzips a real model by the stem of its file."""
    folder = tmp_path_factory.mktemp("models")

    def unzip(stem: str) -> pathlib.Path:
        source = SHARED_DATA / f"segm-torch-model_{stem}.zip"
        if not source.exists():
            pytest.skip(f"model {source.name} is missing in ../shared/data")
        with zipfile.ZipFile(source) as archive:
            archive.extract(f"{stem}.dcnm", folder)
        return folder / f"{stem}.dcnm"

    return unzip
