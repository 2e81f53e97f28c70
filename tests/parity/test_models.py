"""Segmentation with models: the same results as dcnum's, from real and from simulated measurements."""

from __future__ import annotations

import shutil

import h5py
import pytest

from dcnumd.simulate.measurement import MeasurementSpec, write_measurement
from tests.support import networks
from tests.support.models import G1, G2, needs_compiler, needs_openvino, needs_torch
from tests.support.parity import assert_equal_results

pytestmark = [pytest.mark.slow, needs_torch]

FAST = {"kernel_size": 20, "split_time": 0.1}


def simulated(path, size, frames=130, **changes):
    """Write a simulated measurement, with frames that repeat the one before."""
    write_measurement(path, MeasurementSpec(size=size, frames=frames, density=0.6, seed=7, **changes))
    with h5py.File(path, "r+") as h5:
        images = h5["events/image"]
        for frame in {1, 50, 99, 100, frames - 1}.intersection(range(frames)):
            images[frame] = images[frame - 1]
    return path


@pytest.mark.parametrize(
    ("size", "strategy"),
    [((80, 320), "drain"), ((80, 320), "tap"), ((64, 256), "drain"), ((48, 320), "tap"), ((101, 199), "drain")],
    ids=str,
)
def test_frames_of_any_shape(tmp_path, oracle, shared_model, size, strategy):
    """Frames are cropped and padded to the 64x256 px of the model, and its masks back."""
    path = simulated(tmp_path / "M1.rtdc", size)
    ours, _ = assert_equal_results(
        path,
        tmp_path,
        oracle,
        basin_strategy=strategy,
        background_kwargs=FAST,
        segmenter_code="torchmpo",
        segmenter_kwargs={"model_file": str(shared_model(G1))},
    )
    with h5py.File(ours) as h5:
        assert h5.attrs["pipeline:dcnum segmenter"] == f"torchmpo:m={G1}.dcnm:cle=1^f=1^clo=0"
        assert len(h5["events/nevents"]) > 10
        # nothing where a frame repeats the one before, also at the beginning of a batch
        assert not {1, 50, 99, 100} & set(h5["events/basinmap0"][:].tolist())


@pytest.fixture(scope="module")
def version_2(tmp_path_factory):
    """Return models whose networks take frames of any shape: TorchScript, and an exported program."""
    folder = tmp_path_factory.mktemp("models")
    return {"TorchScript": networks.save_script(folder), "program": networks.save_program_for_any_shape(folder)}


@pytest.mark.parametrize(
    ("network", "backend", "size", "strategy"),
    [
        ("TorchScript", None, (80, 320), "drain"),
        ("TorchScript", "torch.jit", (64, 400), "tap"),
        ("program", None, (64, 256), "tap"),
        ("program", "torch.eager", (101, 399), "drain"),
        ("program", "aot_eager", (64, 256), "drain"),
        ("program", "aot_eager", (101, 399), "tap"),
        pytest.param("program", "inductor", (64, 400), "drain", marks=needs_compiler),
        pytest.param("program", "openvino", (64, 256), "drain", marks=needs_openvino),
        pytest.param("program", "openvino", (101, 399), "tap", marks=needs_openvino),
    ],
    ids=str,
)
def test_models_of_version_2(tmp_path, oracle, version_2, network, backend, size, strategy):
    """Each backend, with frames that are larger and smaller than the 80x320 px of the model."""
    model = version_2[network]
    # whole batches of 10 frames; for others, dcnum would compile again
    frames = 40 if backend == "inductor" else 47
    path = simulated(tmp_path / "M1.rtdc", size, frames=frames, chunk=20)
    kwargs = {"model_file": str(model)} | ({"backend": backend, "device": "cpu"} if backend else {})
    ours, _ = assert_equal_results(
        path,
        tmp_path,
        oracle,
        basin_strategy=strategy,
        background_kwargs=FAST,
        segmenter_code="torchuni",
        segmenter_kwargs=kwargs,
        mask_kwargs={"clear_border": False, "closing_disk": 1},
    )
    with h5py.File(ours) as h5:
        # as in dcnum, the backend is not part of it
        assert h5.attrs["pipeline:dcnum segmenter"] == f"torchuni:m={model.name}:cle=0^f=1^clo=1"
        assert len(h5["events/nevents"]) > 10


@pytest.mark.parametrize(
    ("name", "stem", "strategy"),
    [
        ("fmt-hdf5_cytoshot_full-features_2023", G2, "drain"),
        ("fmt-hdf5_cytoshot_full-features_2024", G1, "tap"),
        ("fmt-hdf5_shapein_raw-with-variable-length-logs", G1, "drain"),
    ],
)
def test_real_measurements(tmp_path, oracle, shared_data, shared_model, name, stem, strategy):
    """Frames of instruments, larger than those of the model in one or both directions."""
    path = tmp_path / "M1.rtdc"
    shutil.copy(shared_data(name), path)
    with h5py.File(path, "r+") as h5:
        # what the rules of the models ask for
        h5.attrs["setup:chip region"] = "channel"
    ours, _ = assert_equal_results(
        path,
        tmp_path,
        oracle,
        basin_strategy=strategy,
        background_kwargs=FAST,
        segmenter_code="torchmpo",
        segmenter_kwargs={"model_file": str(shared_model(stem))},
    )
    with h5py.File(ours) as h5:
        assert len(h5["events/nevents"]) > 5
