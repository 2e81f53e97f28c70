"""A Dask cluster of real processes."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from tests.support.cluster import DaskCluster, dask_cluster


@pytest.fixture
def cluster(tmp_path: pathlib.Path) -> Iterator[DaskCluster]:
    """Return a cluster without workers."""
    with dask_cluster(tmp_path) as started:
        yield started
