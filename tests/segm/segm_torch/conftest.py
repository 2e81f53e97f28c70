"""Fixtures for tests of models."""

from __future__ import annotations

import zipfile
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from tests.conftest import SHARED_DATA
from tests.support.models import G1


@pytest.fixture(scope="session")
def pictures() -> Callable[[str], np.ndarray]:
    """Return a function that reads a picture by its name: frames, and the masks that the model G1 finds in them.

    There are masks before and after post-processing.
    """
    source = SHARED_DATA / f"segm-torch-test-data_{G1}.zip"
    if not source.exists():
        pytest.skip(f"{source.name} is missing in ../shared/data")

    def read(name: str) -> np.ndarray:
        with zipfile.ZipFile(source) as file, Image.open(file.open(f"{name}.png")) as image:
            return np.asarray(image.convert("L"))

    return read
