"""Live pages, each in an event loop of its own."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Iterator

import pytest

from dcnumd.config.values import WebSettings
from dcnumd.status import Snapshot
from tests.daemon.conftest import start_daemon, state_folder, watched_folder, write_config
from tests.support.web import Served, write_token

__all__ = ["start_daemon", "state_folder", "watched_folder", "write_config"]


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """Return a function that serves a live page until the test ends."""
    with contextlib.ExitStack() as stack:

        def start(shown: Snapshot | None = None, **settings: object) -> Served:
            known = {"listen": "127.0.0.1:0", **settings}
            return stack.enter_context(Served(WebSettings(**known), shown))  # type: ignore[arg-type]

        yield start


@pytest.fixture
def token_file(tmp_path: pathlib.Path) -> pathlib.Path:
    return write_token(tmp_path / "token")
