"""The ways to run a model: by which segmenter, backend and device, and whether this computer can do that."""

from __future__ import annotations

import re
from typing import NamedTuple

from dcnumd.errors import ModelError
from dcnumd.extras import lacking
from dcnumd.segm.segm_torch.model_file import ModelFile
from dcnumd.segm.segm_torch.model_meta import INDUCTOR, JIT, OPENVINO, Wiring
from dcnumd.segm.segm_torch.torch_setup import missing_compiler, missing_cuda

SEGMENTERS_1 = {"cpu": "torchmpo", "cuda": "torchsto"}
"""Code of the segmenter for models of version 1, by the device."""
SEGMENTER_2 = "torchuni"
"""Code of the segmenter for models of version 2."""


class Way(NamedTuple):
    """A way to run a model."""

    segmenter: str
    """Code of the segmenter."""
    backend: str
    device: str
    problem: str
    """Why this computer cannot run the model so, as a clause; empty if it can."""

    @property
    def words(self) -> str:
        """The way in words, with the problem if there is one."""
        text = f"{self.segmenter or 'no segmenter'}: {self.backend} on {self.device}"
        return f"{text} ({self.problem})" if self.problem else text


def ways_of(model: ModelFile) -> list[Way]:
    """Return the ways to run a model, the best one first; torch is not imported for this."""
    found = []
    for wiring in model.meta.wiring_options:
        segmenter = SEGMENTER_2 if model.version == 2 else SEGMENTERS_1.get(wiring.device.partition(":")[0], "")
        problem = problem_of(model, wiring) if segmenter else "there is no segmenter for this device"
        found.append(Way(segmenter, wiring.backend, wiring.device, problem))
    return found


def problem_of(model: ModelFile, wiring: Wiring) -> str:
    """Return why a model cannot be run in a way on this computer; empty if it probably can. Torch is not imported.

    Which backends `torch.compile` has, only torch knows.
    """
    if problem := lacking("torch") or _problem_of_device(wiring.device):
        return problem
    if model.meta.file_format == "TorchScript" and wiring.backend != JIT:
        return f"the network is TorchScript, which only the backend {JIT!r} runs"
    if model.meta.file_format == "ExportedProgram" and wiring.backend == JIT:
        return f"the network is an exported program, which the backend {JIT!r} does not run"
    if wiring.backend == INDUCTOR and wiring.device == "cpu":
        return missing_compiler()
    if wiring.backend != OPENVINO:
        return ""
    if wiring.device != "cpu" or model.meta.image_shape is None:
        return f"{OPENVINO} runs on the device 'cpu', and only models that name the shape of frames"
    return lacking(OPENVINO)


def raise_problem(model: ModelFile, wiring: Wiring) -> None:
    """Raise the problem of a way to run a model, see `problem_of`, if there is one.

    Raises
    ------
    ModelError
        Reason ``model_unsupported``.
    """
    if problem := problem_of(model, wiring):
        raise ModelError(
            f"{model.path}: backend {wiring.backend!r} with device {wiring.device!r}: {problem}", "model_unsupported"
        )


def _problem_of_device(device: str) -> str:
    if device == "cpu":
        return ""
    if not re.fullmatch(r"cuda(:[0-9]{1,3})?", device):
        return "the device is neither 'cpu' nor 'cuda', 'cuda:1' …"
    return missing_cuda()
