"""Segmenters with models: what dcnum's offer a caller, with the same masks, and every kind of bad model."""

from __future__ import annotations

import io
import os
import pathlib
import pickle
import subprocess
import sys
import zipfile

import h5py
import hdf5plugin  # noqa: F401 -- registers Zstandard
import numpy as np
import pytest

from dcnumd.errors import MethodError, ModelError, WorkerError
from dcnumd.segm.methods import get_segmenter
from dcnumd.segm.segm_torch import torch_model
from dcnumd.segm.segm_torch.compiled import MAX_SHAPES
from dcnumd.segm.segm_torch.model_file import read_model
from dcnumd.segm.segm_torch.model_memory import network_bytes
from dcnumd.segm.segm_torch.segm_torch_mpo import SegmentTorchMPO
from dcnumd.segm.segm_torch.segm_torch_uni import SegmentTorchUNI
from dcnumd.segm.segmenter_uni import UNISegmenter
from dcnumd.shared_memory.slot import ChunkSlotData
from tests.support import networks
from tests.support.models import G1, G2, archive, describe, describe_2, needs_openvino, needs_torch, save_1, save_2


@pytest.fixture
def model(shared_model):
    return str(shared_model(G1))


@needs_torch
@pytest.mark.parametrize("name", [f"cell_image_{number}" for number in range(1, 6)])
def test_the_expected_masks_are_found(pictures, model, name):
    image = pictures(name)
    mask = SegmentTorchMPO.segment_algorithm(image, model_file=model)
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, pictures(f"{name}_mask_segm") > 0)
    labels = SegmentTorchMPO.process_labels(mask, **SegmentTorchMPO.mask_default_kwargs)
    np.testing.assert_array_equal(labels > 0, pictures(f"{name}_mask") > 0)
    segmenter = SegmentTorchMPO(model_file=model)
    np.testing.assert_array_equal(segmenter.segment_single(image), labels > 0)
    np.testing.assert_array_equal(segmenter.segment_batch(image[np.newaxis])[0], labels > 0)


@needs_torch
def test_labels_of_a_real_frame(shared_data, model):
    with h5py.File(shared_data("fmt-hdf5_cytoshot_full-features_2024")) as h5:
        slot = ChunkSlotData((2, *h5["events/image"].shape[1:]))
        slot.image[:] = h5["events/image"][0]
    segmenter = SegmentTorchMPO(model_file=model)
    segmenter.label_batch(slot, 0, 2, slot.image[:1], np.zeros(2, np.int64))
    assert np.unique(slot.labels[0], return_counts=True)[1].tolist() == [24194, 831, 575]
    # the second frame is the first one again, and yields no events
    assert not slot.labels[1].any()
    with pytest.raises(MethodError, match="does not employ background correction"):
        segmenter.segment_single(slot.image[0], 1.0)


@needs_torch
@pytest.mark.slow
def test_workers_segment_chunks(pictures, model):
    image = pictures("cell_image_1")
    slot = ChunkSlotData((5, *image.shape))
    slot.image[:], slot.chunk = image, 3
    with SegmentTorchMPO(model_file=model, num_workers=2) as segmenter:
        mask = segmenter.segment_chunk(3, [slot])
        assert (mask == (pictures("cell_image_1_mask") > 0)).all()
        pids = [worker.pid for worker in segmenter.pool.workers]
        assert (segmenter.segment_chunk(3, [slot]) == mask).all()
        assert [worker.pid for worker in segmenter.pool.workers] == pids
        os.kill(pids[0], 9)
        slot.mask[:] = False
        assert (segmenter.segment_chunk(3, [slot]) == (pictures("cell_image_1_mask") > 0)).all()


@needs_torch
def test_programs_and_scripts_find_the_same(tmp_path):
    frames = np.random.default_rng(2).normal(150, 2, (23, 80, 320))
    frames[:, 30:50, 100:130] -= 40
    frames = frames.astype(np.uint8)
    script, program = networks.save_script(tmp_path), networks.save_program(tmp_path)
    masks = SegmentTorchUNI.segment_algorithm(frames, model_file=str(script))
    assert masks[:, 40, 115].all()
    assert masks.mean() < 0.1
    for backend in ("torch.eager", "eager"):
        segmenter = SegmentTorchUNI(model_file=str(program), backend=backend, device="cpu")
        np.testing.assert_array_equal(segmenter.segment_algorithm(frames, **segmenter.kwargs), masks)
        np.testing.assert_array_equal(segmenter.segment_batch(frames)[4], segmenter.segment_single(frames[4]))
    numbers = networks.save_script(tmp_path, answer="numbers", batch_size=10)
    segmenter = SegmentTorchUNI(model_file=str(numbers))
    np.testing.assert_array_equal(segmenter.segment_algorithm(frames, **segmenter.kwargs), masks)
    with pytest.raises(MethodError, match="only segments batches of 10 frames"):
        segmenter.segment_single(frames[0])


@needs_torch
def test_compiled_networks_take_frames_of_many_shapes(tmp_path):
    """A worker may get measurements with any number of shapes, and torch compiles for a few of them only."""
    program = networks.save_program_for_any_shape(tmp_path)
    for width in (*range(20, 21 + MAX_SHAPES), 20):
        frames = np.full((2, 8, width), 150, np.uint8)
        frames[:, 2:6, 5:9] = 90
        masks = SegmentTorchUNI.segment_algorithm(frames, model_file=program, backend="eager", device="cpu")
        assert masks[:, 4, 7].all(), width


@needs_torch
@needs_openvino
def test_openvino_finds_the_same(tmp_path):
    frames = np.random.default_rng(2).normal(150, 2, (13, 80, 320))
    frames[:, 30:50, 100:130] -= 40
    frames = frames.astype(np.uint8)
    program = str(networks.save_program(tmp_path))
    masks = SegmentTorchUNI.segment_algorithm(frames, model_file=program, backend="openvino", device="cpu")
    np.testing.assert_array_equal(masks, SegmentTorchUNI.segment_algorithm(frames, model_file=program))


@needs_torch
def test_networks_are_kept_until_there_is_no_room(tmp_path, model, shared_model):
    cache = torch_model.NetworkCache(2 * network_bytes(170_000))
    first = cache.get(model, "torch.jit", "cpu")
    second = cache.get(shared_model(G2), "torch.jit", "cpu")
    assert cache.get(model, "torch.jit", "cpu") is first
    third = cache.get(networks.save_script(tmp_path), None, None)
    assert third.model.version == 2
    # the file of the second model was used least recently
    assert cache.get(model, "torch.jit", "cpu") is first
    assert cache.get(shared_model(G2), "torch.jit", "cpu") is not second


def test_torch_is_imported_by_workers_only():
    """Neither the command line nor the server from which workers are forked loads it."""
    names = ("dcnumd.logic.tasks", "dcnumd.logic.process", "dcnumd.segm.methods", "dcnumd.commands.models")
    code = f"import sys, {', '.join(names)}; dcnumd.segm.methods.get_available_segmenters()"
    code += (
        "; print(sorted({'torch', 'openvino'} & set(sys.modules)), 'dcnumd.segm.segm_torch.torch_model' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] True"


@needs_torch
def test_one_thread_and_deterministic_algorithms(model):
    torch_model.networks.get(model, "torch.jit", "cpu")
    import torch  # noqa: PLC0415 -- optional

    assert torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.enabled


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


@needs_torch
def test_no_code_in_a_pickle_is_run(tmp_path):
    trace = tmp_path / "trace"
    evil = pickle.dumps(Evil(trace), 2)
    meta = describe()
    members = {"net/data.pkl": evil, "net/constants.pkl": evil, "net/version": b"3\n", "net/byteorder": b"little"}
    for path in (save_1(tmp_path, meta, **members), save_1(tmp_path, meta)):
        with pytest.raises(ModelError, match="cannot load the network") as error:
            SegmentTorchMPO.segment_algorithm(np.zeros((64, 256), np.uint8), model_file=str(path))
        assert error.value.reason == "model_unsupported"
    script = save_2(tmp_path, describe_2(), archive(members))
    with pytest.raises(ModelError, match="cannot load the network"):
        SegmentTorchUNI.segment_algorithm(np.zeros((10, 64, 256), np.uint8), model_file=str(script))
    assert not trace.exists()


@needs_torch
def test_no_code_in_an_exported_program_is_run(tmp_path):
    import torch  # noqa: PLC0415 -- optional

    trace, file = tmp_path / "trace", io.BytesIO()
    torch.save(Evil(trace), file)
    model = read_model(networks.save_program(tmp_path))
    with zipfile.ZipFile(io.BytesIO(model.read_network())) as program:
        members = {name: program.read(name) for name in program.namelist()}
    (inputs,) = (name for name in members if "sample_inputs" in name)
    meta = describe_2(model_file_format="ExportedProgram", wiring_options=[{"backend": "torch.eager", "device": "cpu"}])
    for name in (inputs, inputs.replace("sample_inputs/model.pt", "constants/opaque_obj_0")):
        path = save_2(tmp_path, meta, archive({**members, name: file.getvalue()}, zipfile.ZIP_STORED))
        with pytest.raises(ModelError) as error:
            SegmentTorchUNI.segment_algorithm(np.zeros((10, 80, 320), np.uint8), model_file=str(path))
        assert error.value.reason == "model_unsupported"
    assert not trace.exists()


@needs_torch
def test_backends_that_do_not_fit_the_format(tmp_path):
    frames = np.zeros((10, 80, 320), np.uint8)
    script, program = str(networks.save_script(tmp_path)), str(networks.save_program(tmp_path))
    for path, backend in ((script, "inductor"), (program, "torch.jit"), (program, "nonsense")):
        with pytest.raises(ModelError, match=backend) as error:
            SegmentTorchUNI.segment_algorithm(frames, model_file=path, backend=backend, device="cpu")
        assert error.value.reason == "model_unsupported"


@needs_torch
def test_networks_that_fail(tmp_path):
    program = str(networks.save_program(tmp_path))
    with pytest.raises(WorkerError, match=r"failed for an input of shape \(10, 64, 256\)") as error:
        SegmentTorchUNI.segment_algorithm(np.zeros((3, 64, 256), np.uint8), model_file=program)
    assert error.value.reason == "model_failed"
    script = str(networks.save_script(tmp_path, answer="nan"))
    frames = np.full((3, 80, 320), 150, np.uint8)
    frames[1, 30:50, 100:130] = 99
    with pytest.raises(WorkerError, match="contains NaN") as error:
        SegmentTorchUNI.segment_algorithm(frames, model_file=script)
    assert error.value.reason == "model_failed"


ABSURD = {
    "output of the network is tuple, expected a tensor": lambda frames: (frames, frames),
    r"shape \(\) for an input of shape .*, expected as many frames": lambda frames: frames.sum(),
    r"shape \(0, .*expected as many frames": lambda frames: frames[:0] > 99,
    r"shape \((2|20), .*expected as many frames": lambda frames: frames.repeat_interleave(2, 0),
    "output of the network consists of complex64": lambda frames: frames * 1j,
    "network failed .*BFloat16": lambda frames: frames.bfloat16(),
    "output of the network has shape": lambda frames: frames.unsqueeze(-1),
    "contains NaN": lambda frames: frames * float("inf"),
}


@needs_torch
@pytest.mark.parametrize("segmenter", [SegmentTorchMPO, SegmentTorchUNI])
@pytest.mark.parametrize("message", ABSURD)
def test_networks_with_absurd_outputs(tmp_path, segmenter, message):
    """Whatever a network returns, it is an error that names the model, and never the mask of other memory."""
    model = networks.save_function(tmp_path, ABSURD[message], segmenter.requires_model_format_version)
    with pytest.raises(WorkerError, match=message) as error:
        segmenter(model_file=str(model)).segment_batch(np.zeros((10, 80, 320), np.uint8))
    assert error.value.reason == "model_failed"
    assert model.name in error.value.message


class SegmentBelowMean(UNISegmenter):
    """A third-party segmenter that gets several frames at once."""

    requires_background_correction = True
    mask_postprocessing = False
    required_batch_size = 4

    @staticmethod
    def segment_algorithm(images, *, level: float = -6):
        assert images.shape[0] == 4
        return images < level


def test_packages_can_segment_batches():
    assert get_segmenter("belowmean") is SegmentBelowMean
    assert SegmentBelowMean().get_ppid() == "belowmean:l=-6"
    corrected = np.zeros((6, 9, 14), np.int16)
    corrected[:, 4, 5] = -7
    found = SegmentBelowMean().segment_batch(corrected, np.array([0.0, 0, 0, 0, 0, -2]))
    assert found.sum(axis=(1, 2)).tolist() == [1, 1, 1, 1, 1, 0]
    assert found[:5, 4, 5].all()
