"""Small measurements for calls of the pipeline."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.daemon import draw_measurement


@pytest.fixture
def measurement() -> Callable[..., None]:
    """Return the function that writes a small measurement."""
    return draw_measurement
