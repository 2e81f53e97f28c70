"""Which events are looked at."""

from __future__ import annotations

import numpy as np
import pytest

from dcnumd.errors import ConfigError
from dcnumd.read.index_mapping import resolve_index_mapping


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        (3, [0, 1, 2]),
        (np.int64(2), [0, 1]),
        (slice(2, 9, 3), [2, 5, 8]),
        (slice(None, None), list(range(10))),
        (slice(8, None), [8, 9]),
        ([5, 1, 1], [5, 1, 1]),
        ((4,), [4]),
        (np.array([9, 0], np.uint32), [9, 0]),
        ([], []),
    ],
)
def test_resolve_index_mapping_selects(mapping, expected):
    """Numbers, slices and lists select the events one would expect, as int64."""
    indices = resolve_index_mapping(mapping, 10)
    assert indices.dtype == np.int64
    assert indices.tolist() == expected


@pytest.mark.parametrize(
    "mapping",
    [0, -3, 11, slice(-2, None), slice(0, 11), slice(0, 5, -1), slice(0, 5, 0), [10], [-1], [True], [1.5], "3", 2.0],
)
def test_resolve_index_mapping_refuses(mapping):
    """What is out of range or not understood is refused in one line that says so."""
    with pytest.raises(ConfigError, match="index mapping") as caught:
        resolve_index_mapping(mapping, 10)
    assert caught.value.reason == "index_mapping"
    assert "\n" not in str(caught.value)
