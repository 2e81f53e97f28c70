"""A Dask cluster of real processes."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterator

import pytest

from tests.support.cluster import HURRIED, DaskCluster, dask_cluster
from tests.support.daemon import Daemon
from tests.support.faults import draw_long
from tests.support.hosts import Host, Network, network

FRAMES = 1500
"""Number of frames of a measurement during whose processing something happens."""


@pytest.fixture
def cluster(tmp_path: pathlib.Path) -> Iterator[DaskCluster]:
    """Return a cluster without workers."""
    with dask_cluster(tmp_path) as started:
        yield started


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """Return a cluster that is started once for all tests that use it; nothing must be left on its scheduler."""
    with dask_cluster(tmp_path_factory.mktemp("shared")) as started:
        yield started
        assert not started.left_over()


@pytest.fixture
def pair(shared_cluster: DaskCluster) -> tuple[Daemon, Daemon]:
    """Return the workers "one" and "two" of the shared cluster, ready."""
    one, two = shared_cluster.have_workers("one", "two")
    return one, two


@dataclasses.dataclass
class Facility:
    """An instrument and a server, with a network between them."""

    network: Network
    instrument: Host
    server: Host
    cluster: DaskCluster
    """The cluster, whose scheduler runs on the server."""


@pytest.fixture(scope="module")
def facility(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Facility]:
    """Return an instrument and a server without workers; nothing must be left on the scheduler at the end."""
    with network() as made:
        instrument, server = made.host("instrument"), made.host("server")
        with dask_cluster(tmp_path_factory.mktemp("server"), server, HURRIED) as cluster:
            yield Facility(made, instrument, server, cluster)
            assert not cluster.left_over()


@pytest.fixture
def long(watched_folder: pathlib.Path) -> Callable[..., pathlib.Path]:
    """Return a function that writes a measurement whose processing takes long."""

    def write(name: str, frames: int = FRAMES) -> pathlib.Path:
        draw_long(watched_folder / ".writing", frames=frames)
        return (watched_folder / ".writing").rename(watched_folder / f"{name}.rtdc")

    return write
