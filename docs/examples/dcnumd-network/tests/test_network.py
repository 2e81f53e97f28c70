"""The network finds cells, and is used only for what it is made for."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from dcnumd_network import SegmentNetwork
from dcnumd_network.network import read_network, write_network

from dcnumd.errors import MethodError, ModelError
from dcnumd.segm.methods import get_segmenter
from dcnumd.segm.segmenter import SegmenterNotApplicableError


@pytest.fixture
def model(tmp_path: pathlib.Path) -> str:
    """Return the path of a network."""
    return str(write_network(tmp_path))


def frame(depth: float) -> npt.NDArray[Any]:
    """Return a frame minus its background, with a square cell of 20 x 20 pixels in the middle."""
    image = np.random.default_rng(1).normal(0, 2, (80, 320))
    image[30:50, 150:170] -= depth
    return np.round(image).astype(np.int16)


def test_it_is_installed() -> None:
    """It is found by the name that configurations use."""
    assert get_segmenter("network") is SegmentNetwork


def test_pipeline_id_has_the_name_of_the_file(model: str) -> None:
    """Not its folder, so that results are equal wherever it is."""
    name = pathlib.Path(model).name
    assert SegmentNetwork(model_file=model).get_ppid() == f"network:m={name}^l=0.5:cle=1^f=1^clo=2"


def test_a_cell_is_found(model: str) -> None:
    """With mask processing, as dcnumd calls it for a batch of frames."""
    frames = np.stack([frame(0), frame(20), frame(-40)])
    with SegmentNetwork(model_file=model, num_workers=1, debug=True) as segmenter:
        masks = segmenter.segment_batch(frames)
    assert not masks[0].any()
    assert all(350 < mask.sum() <= 460 for mask in masks[1:])


def test_it_is_for_the_region_of_its_training(model: str) -> None:
    """Other measurements are refused with the reason."""
    kwargs = {"model_file": model}
    assert SegmentNetwork.validate_applicability(kwargs, {"setup:chip region": "channel"}, {})
    with pytest.raises(SegmenterNotApplicableError, match="the network is for recordings in the channel"):
        SegmentNetwork.validate_applicability(kwargs, {"setup:chip region": "reservoir"}, {})


def test_what_cannot_be_used_is_named(model: str, tmp_path: pathlib.Path) -> None:
    """No file, a file that was renamed or damaged, and a level that is no probability."""
    with pytest.raises(MethodError, match="needs model_file"):
        SegmentNetwork.check_values({})
    with pytest.raises(ModelError, match="No such file"):
        SegmentNetwork.check_values({"model_file": str(tmp_path / "none.npz")})
    with pytest.raises(MethodError, match="level is 2, expected a number between 0 and 1"):
        SegmentNetwork.check_values({"model_file": model, "level": 2})
    renamed = pathlib.Path(model).rename(tmp_path / "renamed_00000.npz")
    with pytest.raises(ModelError, match="its name ends otherwise"):
        read_network(str(renamed))
    pickled = tmp_path / "object_e9b00.npz"
    pickled.write_bytes(b"no archive")
    with pytest.raises(ModelError):
        read_network(str(pickled))
