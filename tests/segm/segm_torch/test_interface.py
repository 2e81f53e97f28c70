"""What segmenters with models tell whoever uses them, before a network computes anything."""

from __future__ import annotations

import copy
import pathlib
import shutil

import h5py
import numpy as np
import pytest

from dcnumd.errors import MethodError, ModelError
from dcnumd.extras import lacking
from dcnumd.meta import paths
from dcnumd.read.hdf5_data import HDF5Data
from dcnumd.segm.methods import get_available_segmenters
from dcnumd.segm.segm_torch.segm_torch_mpo import SegmentTorchMPO
from dcnumd.segm.segm_torch.segm_torch_sto import SegmentTorchSTO
from dcnumd.segm.segm_torch.segm_torch_uni import SegmentTorchUNI
from dcnumd.segm.segmenter import Segmenter, SegmenterNotApplicableError
from tests.support.models import G1, G2, describe_2, save_2


@pytest.fixture
def model(shared_model):
    return str(shared_model(G1))


class Lines(list):
    """A logger that keeps lines."""

    info = list.append


def test_segmenters_with_models_are_there_if_torch_is():
    found = get_available_segmenters()
    assert ("torchmpo" in found, "torchuni" in found) == (not lacking("torch"),) * 2
    assert ("torchsto" in found) == SegmentTorchSTO.is_available()
    for segmenter in (SegmentTorchMPO, SegmentTorchSTO, SegmentTorchUNI):
        # without a model there is an identifier, and nothing that can be segmented
        assert segmenter().get_ppid() == f"{segmenter.get_ppid_code()}:m=None:cle=1^f=1^clo=0"
        with pytest.raises(MethodError, match="needs model_file"):
            segmenter().segment_batch(np.zeros((2, 80, 320), np.uint8))


def test_identifiers_have_the_name_of_the_model(model):
    segmenter = SegmentTorchMPO(model_file=model)
    assert segmenter.get_ppid() == f"torchmpo:m={G1}.dcnm:cle=1^f=1^clo=0"
    assert not segmenter.requires_background_correction
    assert segmenter.mask_postprocessing
    assert Segmenter.get_ppkw_from_ppid(segmenter.get_ppid()) == {
        "model_file": f"{G1}.dcnm",
        "kwargs_mask": {"clear_border": True, "fill_holes": True, "closing_disk": 0},
    }
    other = SegmentTorchMPO.get_ppid_from_ppkw({"model_file": "gone/net.dcnm"}, {"closing_disk": 2})
    assert other == "torchmpo:m=gone/net.dcnm:cle=1^f=1^clo=2"


def test_identifiers_do_not_tell_the_backend(tmp_path):
    options = [{"backend": backend, "device": "cpu"} for backend in ("inductor", "torch.eager")]
    path = save_2(tmp_path, describe_2(model_file_format="ExportedProgram", wiring_options=options, batch_size=10))
    segmenter = SegmentTorchUNI(model_file=str(path))
    assert segmenter.kwargs == {"model_file": str(path), "backend": "inductor", "device": "cpu"}
    assert segmenter.required_batch_size == 10
    other = SegmentTorchUNI(model_file=str(path), backend="torch.eager")
    assert other.kwargs["device"] == "cpu"
    assert other.get_ppid() == segmenter.get_ppid() == f"torchuni:m={path.name}:cle=1^f=1^clo=0"
    assert Segmenter.get_ppkw_from_ppid(other.get_ppid()) == {
        "model_file": path.name,
        "kwargs_mask": {"clear_border": True, "fill_holes": True, "closing_disk": 0},
    }
    with pytest.raises(ModelError, match="no way to run"):
        SegmentTorchUNI(model_file=str(path), device="gpu")


def test_models_in_registered_folders_are_found_by_name(model, monkeypatch):
    monkeypatch.setattr(paths, "search_path_registry", {})
    paths.register_search_path("torch_model_files", pathlib.Path(model).parent)
    segmenter = SegmentTorchMPO(model_file=f"{G1}.dcnm")
    # a worker does not know the folder
    assert copy.copy(segmenter).kwargs["model_file"] == model


def test_models_say_for_what_they_are_made(model, shared_model, tmp_path):
    channel, reservoir = {"setup:chip region": "channel"}, {"setup:chip region": "reservoir"}
    assert SegmentTorchMPO.validate_applicability({"model_file": model}, meta=channel, logs={})
    with pytest.raises(SegmenterNotApplicableError, match="only experiments in channel region supported") as error:
        SegmentTorchMPO.validate_applicability({"model_file": model}, meta=reservoir)
    assert error.value.reason == "not_applicable"
    with pytest.raises(SegmenterNotApplicableError) as error:
        SegmentTorchMPO.validate_applicability({"model_file": str(shared_model(G2))})
    assert error.value.reasons_list == [
        "'setup:identifier' is missing in meta",
        "'setup:channel width' is missing in meta",
    ]
    with pytest.raises(SegmenterNotApplicableError, match="version 1, and the segmenter needs version 2"):
        SegmentTorchUNI.validate_applicability({"model_file": model}, meta=channel)
    with pytest.raises(MethodError, match="needs model_file"):
        SegmentTorchMPO.validate_applicability({})


def test_settings_are_checked_before_a_measurement_needs_them(model, tmp_path):
    SegmentTorchMPO.check_values({"model_file": model})
    with pytest.raises(MethodError, match="'torchmpo' needs model_file"):
        SegmentTorchMPO.check_values({})
    with pytest.raises(ModelError, match=r"'torchuni': .* is a model of version 1") as error:
        SegmentTorchUNI.check_values({"model_file": model})
    assert error.value.reason == "model_unsupported"
    with pytest.raises(ModelError) as error:
        SegmentTorchMPO.check_values({"model_file": str(tmp_path / "gone.dcnm")})
    assert error.value.reason == "model_missing"


def reasons(path, segmenter, model):
    """Return why a segmenter refuses a measurement."""
    with HDF5Data(path) as data:
        try:
            assert segmenter.validate_applicability({"model_file": model}, meta=data.meta, logs=data.logs)
        except SegmenterNotApplicableError as error:
            return error.reasons_list
    return []


def test_attributes_and_logs_of_a_file_decide(shared_data, shared_model, tmp_path):
    """For models of both versions."""
    rules = [
        {"type": "meta", "key": "setup:channel width", "value": 20.0, "reason": "wide"},
        {"type": "logs", "key": "dclab-compress", "regexp": '"date": "2024', "reason": "not compressed"},
    ]
    path = shutil.copy(shared_data("fmt-hdf5_cytoshot_full-features_2024"), tmp_path / "M1.rtdc")
    g2, made = (SegmentTorchMPO, shared_model(G2)), (SegmentTorchUNI, save_2(tmp_path, describe_2(validation=rules)))
    assert reasons(path, *g2) == ["must not be compressed 2024-05-07"]
    assert reasons(path, *made) == []
    with h5py.File(path, "r+") as h5:
        del h5["logs/dclab-compress"]
    assert reasons(path, *g2) == []
    assert reasons(path, *made) == ["'dclab-compress' is missing in logs"]
    with h5py.File(path, "r+") as h5:
        h5.attrs["setup:channel width"] = 30.0
    assert reasons(path, *g2) == ["channel width must be 20 micrometers"]
    assert reasons(path, *made) == ["wide", "'dclab-compress' is missing in logs"]


def test_log_tells_the_model_and_how_it_is_run(model, tmp_path):
    SegmentTorchMPO(model_file=model).log_info(lines := Lines())
    assert lines[0].startswith("Model 'Test model for dcnum' of 2024-06-07, MD5 910c259ecc1bc4aa491d42cf502b7883: This")
    assert lines[1:] == ["Segmenter backend 'torch.jit' with device 'cpu'", "No batch size restrictions"]
    made = save_2(tmp_path, describe_2(batch_size=7, wiring_options=[{"backend": "cudagraphs", "device": "cuda:1"}]))
    SegmentTorchUNI(model_file=made).log_info(lines := Lines())
    assert lines[1:] == ["Segmenter backend 'cudagraphs' with device 'cuda:1'", "Batch size: 7"]


def test_one_process_has_the_card_and_all_the_processors(tmp_path):
    made = save_2(tmp_path, describe_2(wiring_options=[]))
    options = {
        device: SegmentTorchUNI(model_file=made, backend="inductor", device=device) for device in ("cpu", "cuda")
    }
    assert {device: segmenter.is_exclusive for device, segmenter in options.items()} == {"cpu": False, "cuda": True}
    assert [segmenter.required_batch_size for segmenter in options.values()] == [0, 0]
