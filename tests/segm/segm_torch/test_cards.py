"""Batches for a graphics card: their size, the order of the work, and what happens when its memory is exhausted."""

from __future__ import annotations

import numpy as np
import pytest

from dcnumd.errors import ModelError, WorkerError
from dcnumd.segm.segm_torch import torch_setup, ways
from dcnumd.segm.segm_torch.cards import CardRunner
from dcnumd.segm.segm_torch.segm_torch_mpo import SegmentTorchMPO
from dcnumd.segm.segm_torch.segm_torch_sto import SegmentTorchSTO
from dcnumd.segm.segm_torch.segm_torch_uni import SegmentTorchUNI
from tests.support.models import G1, describe_2, save_2


class SmallCard:
    """A card that adds 1, and has memory for a number of frames."""

    def __init__(self, frames):
        self.frames = frames
        self.sizes = []
        self.done = []

    def launch(self, batch):
        if len(batch) > self.frames:
            raise WorkerError("CUDA out of memory", "memory")
        self.sizes.append(len(batch))
        self.done.append("launch")
        return batch + 1

    def fetch(self, handle):
        self.done.append("fetch")
        return handle

    def bytes_used(self):
        return 1000 * self.sizes[-1]

    def bytes_free(self):
        return 300_000

    def release(self):
        self.done.append("release")


def outputs(runner, card, number):
    """Run frames with their numbers, check the outputs, and return the sizes of batches."""
    frames = np.arange(number)

    def prepare(start, stop):
        card.done.append("prepare")
        return frames[start:stop]

    found = np.full(number, -1)
    for start, output in runner.run(number, prepare):
        found[start : start + len(output)] = output
    np.testing.assert_array_equal(found, frames + 1)
    sizes, card.sizes = card.sizes, []
    return sizes


def test_batches_take_the_free_memory():
    card = SmallCard(1000)
    runner = CardRunner(card)
    # 50 frames tell how much a frame takes; two batches are on the card at the same time
    assert outputs(runner, card, 230) == [50, 120, 60]
    assert outputs(runner, card, 230) == [120, 110]
    assert outputs(runner, card, 3) == [3]
    assert outputs(runner, card, 0) == []


def test_a_batch_is_prepared_while_the_card_computes():
    card = SmallCard(1000)
    runner = CardRunner(card, 10)
    outputs(runner, card, 30)
    one = ["prepare", "launch"]
    assert card.done == [*one, *one, "fetch", *one, "fetch", "fetch"]


def test_exhausted_memory_halves_the_batches():
    card = SmallCard(40)
    runner = CardRunner(card)
    assert outputs(runner, card, 60) == [25, 25, 10]
    card.frames = 8
    assert outputs(runner, card, 20) == [6, 6, 6, 2]
    assert card.done.count("release") == 3
    card.frames = 0
    with pytest.raises(WorkerError, match="out of memory") as error:
        outputs(runner, card, 20)
    assert error.value.reason == "memory"


def test_batches_of_one_size():
    card = SmallCard(1000)
    runner = CardRunner(card, is_filled=True)
    assert outputs(runner, card, 230) == [50, 120, 120]
    assert outputs(CardRunner(card, 7, is_filled=True), card, 10) == [7, 7]


def test_torchsto_says_what_it_needs(monkeypatch, tmp_path):
    assert SegmentTorchSTO.is_available() == (not torch_setup.missing_cuda())
    monkeypatch.setattr(torch_setup, "lacking", lambda _: "")
    monkeypatch.setattr(torch_setup.importlib.metadata, "version", lambda _: "2.13.0+cpu")
    assert SegmentTorchSTO.missing_requirement().startswith("a build of torch with CUDA is needed")
    monkeypatch.setattr(torch_setup.importlib.metadata, "version", lambda _: "2.13.0")
    monkeypatch.setattr(torch_setup, "DEVICES", tmp_path)
    assert SegmentTorchSTO.missing_requirement() == "an NVIDIA card is needed, and this computer has none"
    (tmp_path / "nvidia0").touch()
    assert SegmentTorchSTO.is_available()


def test_model_for_a_card_is_refused_without_one(monkeypatch, tmp_path):
    """The config is checked, so that no measurement has to fail with a message of torch."""
    model = str(save_2(tmp_path, describe_2(wiring_options=[{"backend": "torch.jit", "device": "cuda"}])))
    monkeypatch.setattr(torch_setup, "lacking", lambda _: "")
    monkeypatch.setattr(torch_setup.importlib.metadata, "version", lambda _: "2.13.0")
    monkeypatch.setattr(torch_setup, "DEVICES", tmp_path)
    monkeypatch.setattr(ways, "lacking", lambda _: "")
    with pytest.raises(ModelError, match="device 'cuda:0': an NVIDIA card is needed, and this computer has none"):
        SegmentTorchUNI.check_values({"model_file": model})
    SegmentTorchUNI.check_values({"model_file": model, "backend": "torch.jit", "device": "cpu"})


def test_identifiers_do_not_tell_the_card(shared_model):
    segmenter = SegmentTorchSTO(model_file=str(shared_model(G1)), device="cuda:1")
    assert segmenter.get_ppid() == f"torchsto:m={G1}.dcnm:cle=1^f=1^clo=0"
    assert segmenter.is_exclusive
    assert segmenter.wiring_of(segmenter.kwargs).device == "cuda:1"
    assert SegmentTorchSTO.get_ppkw_from_ppid(segmenter.get_ppid())["model_file"] == f"{G1}.dcnm"


@pytest.mark.skipif(bool(torch_setup.missing_cuda()), reason=torch_setup.missing_cuda())
def test_cards_and_processors_find_the_same(shared_model, pictures):
    model = str(shared_model(G1))
    for name in (f"cell_image_{number}" for number in range(1, 6)):
        (found,) = SegmentTorchSTO.segment_algorithm(pictures(name)[np.newaxis], model_file=model)
        np.testing.assert_array_equal(found, pictures(f"{name}_mask_segm") > 0)
    frames = np.random.default_rng(2).normal(150, 2, (130, 80, 320))
    frames[:, 30:50, 100:130] -= 40
    frames = frames.astype(np.uint8)
    masks = SegmentTorchSTO(model_file=model).segment_batch(frames)
    np.testing.assert_array_equal(masks, SegmentTorchMPO(model_file=model).segment_batch(frames))
