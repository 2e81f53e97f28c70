"""A real daemon as a process of its own, heard through its log; and small measurements for it."""

from __future__ import annotations

import contextlib
import json
import pathlib
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.daemon import START_SECONDS, Daemon, draw_measurement
from tests.support.faults import LONG_FRAMES, draw_long, shorten
from tests.support.usual import Usual


@pytest.fixture
def state_folder(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "state"


@pytest.fixture
def watched_folder(tmp_path: pathlib.Path) -> pathlib.Path:
    folder = tmp_path / "acquisition"
    folder.mkdir()
    return folder


@pytest.fixture
def write_config(
    tmp_path: pathlib.Path, watched_folder: pathlib.Path, state_folder: pathlib.Path
) -> Callable[..., pathlib.Path]:
    """Return a function that writes a config for quick tests and returns its path."""

    def write(extra: str = "", *, settle: float = 0.3, rescan: float = 30.0) -> pathlib.Path:
        path = tmp_path / "config.toml"
        if "[report]" not in extra:
            # Only the tests of reports need the time that they take.
            extra += "\n[report]\nenabled = false\n"
        path.write_text(
            f"[watch]\nfolders = [{json.dumps(str(watched_folder))}]\n"
            f"settle_seconds = {settle}\nrescan_seconds = {rescan}\n"
            f"[state]\nfolder = {json.dumps(str(state_folder))}\n"
            # what other tests compute at the same time must not starve it
            "[resources]\nnum_workers = 1\nmin_free_gb = 0.01\nnice = 0\n"
            "[retry]\nbackoff_seconds = 0.2\n" + extra
        )
        return path

    return write


@pytest.fixture
def start_daemon(write_config: Callable[..., pathlib.Path]) -> Iterator[Callable[..., Daemon]]:
    """Return a function that starts a daemon; what is still running at the end is killed."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: str, config: pathlib.Path | None = None, ready: bool = True, **options: Any) -> Daemon:
            daemon = Daemon.start(config or write_config(), *arguments, **options)
            stack.callback(daemon.close)
            if ready:
                daemon.wait_for("daemon.ready", timeout=START_SECONDS)
            return daemon

        yield start


@pytest.fixture(scope="session")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Usual]:
    """Return a daemon that is started once for all tests that use it."""
    with Usual.running_in(tmp_path_factory.mktemp("usual")) as running:
        yield running


@pytest.fixture
def measurement() -> Callable[..., None]:
    """Return the function that writes a small measurement."""
    return draw_measurement


@pytest.fixture
def path(tmp_path: pathlib.Path, measurement: Callable[..., None]) -> pathlib.Path:
    """Return a small measurement."""
    made = tmp_path / "M.rtdc"
    measurement(made)
    return made


@pytest.fixture
def files(tmp_path: pathlib.Path, measurement: Callable[..., None]) -> list[pathlib.Path]:
    """Return four small measurements."""
    made = [tmp_path / f"M{number}.rtdc" for number in range(4)]
    for number, one in enumerate(made):
        measurement(one, seed=number)
    return made


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Have all disks be full, as long as the returned event is set."""
    event, usage = threading.Event(), shutil.disk_usage("/")
    event.set()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0 if event.is_set() else 10**12))
    return event


@pytest.fixture(scope="session")
def long_store(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("long") / "long.rtdc"
    draw_long(path)
    return path


@pytest.fixture
def long_measurement(long_store: pathlib.Path, watched_folder: pathlib.Path) -> Callable[..., pathlib.Path]:
    """Return a function that puts a measurement that takes seconds, or its beginning, into the watched folder."""

    def publish(name: str = "long.rtdc", frames: int = LONG_FRAMES) -> pathlib.Path:
        hidden = watched_folder / ".writing"
        hidden.write_bytes(long_store.read_bytes())
        if frames < LONG_FRAMES:
            shorten(hidden, frames)
        return hidden.rename(watched_folder / name)

    return publish
