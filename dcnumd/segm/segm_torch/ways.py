"""The ways to run a model: by which segmenter, backend and device, and whether this computer can do that."""

from __future__ import annotations

from typing import NamedTuple

from dcnumd.meta.extras import lacking
from dcnumd.segm.segm_torch.model_file import ModelFile
from dcnumd.segm.segm_torch.model_meta import OPENVINO
from dcnumd.segm.segm_torch.torch_setup import missing_cuda

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
    for backend, device in ((option.backend, option.device) for option in model.meta.wiring_options):
        kind = device.partition(":")[0]
        segmenter = SEGMENTER_2 if model.version == 2 else SEGMENTERS_1.get(kind)
        if segmenter is None:
            found.append(Way("", backend, device, "there is no segmenter for this device"))
            continue
        problem = missing_cuda() if kind == "cuda" else lacking("torch")
        if backend == OPENVINO:
            problem = problem or lacking("openvino")
        found.append(Way(segmenter, backend, device, problem))
    return found
