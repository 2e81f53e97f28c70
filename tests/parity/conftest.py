"""dcnum, once for each module."""

from __future__ import annotations

import pytest

from dcnumd.logic.process import engine
from tests.support.oracle import Oracle


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
    """Run dcnum in a process of its own for all tests of a module; afterwards end our own workers, too."""
    oracle = Oracle(tmp_path_factory.mktemp("dcnum"))
    yield oracle
    oracle.close()
    engine.close()
