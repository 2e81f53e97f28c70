"""Networks of version 2, made by tests with torch; torch is imported inside of functions."""

from __future__ import annotations

import io
import json
import pathlib
import warnings
from collections.abc import Callable
from typing import Any

from dcnumd.segm.segm_torch.model_file import META_NAME
from tests.support.models import describe, describe_2, save, save_2


def u_net(torch: Any, *, step: int = 2, answer: str = "mask") -> Any:
    """Return a small U-Net for uint8 frames (frame, y, x), with weights that find dark cells.

    Parameters
    ----------
    torch
        The imported package.
    step
        Factor of the coarser level, by which height and width of frames must be divisible.
    answer
        ``mask`` for booleans, ``numbers`` for 0 and 255, ``nan`` for NaN.
    """
    nn, functional = torch.nn, torch.nn.functional

    def mean(frames: Any, size: int) -> Any:
        # of rows, then of columns, which is much faster
        for sides in ((size, 1), (1, size)):
            margins = (sides[0] // 2, sides[1] // 2)
            frames = functional.avg_pool2d(frames, sides, stride=1, padding=margins, count_include_pad=False)
        return frames

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(5)
            self.down = nn.Conv2d(1, 4, 3, padding=1)
            self.deep = nn.Conv2d(4, 4, 3, padding=1)
            self.up = nn.Conv2d(8, 1, 3, padding=1)

        def forward(self, images: Any) -> Any:
            frames = images.to(torch.float32).unsqueeze(1) / 255
            darkness = mean(frames, 41) - mean(frames, 5)
            fine = torch.relu(self.down(darkness))
            coarse = torch.relu(self.deep(functional.max_pool2d(fine, step)))
            wide = functional.interpolate(coarse, scale_factor=float(step))
            logits = 60 * darkness - 1.5 + self.up(torch.cat([fine, wide], 1))
            mask = torch.sigmoid(logits).squeeze(1) >= 0.5
            if answer == "numbers":
                return mask.to(torch.uint8) * 255
            return torch.where(mask, torch.nan, 0.0) if answer == "nan" else mask

    return UNet().eval()


def save_script(folder: pathlib.Path, *, answer: str = "mask", **meta: Any) -> pathlib.Path:
    """Write a model of version 2 with TorchScript."""
    import torch  # noqa: PLC0415 -- optional

    return save_2(folder, describe_2(image_shape=[80, 320], **meta), _script(torch, u_net(torch, answer=answer)))


def save_function(folder: pathlib.Path, function: Callable[[Any], Any], version: int = 2) -> pathlib.Path:
    """Write a model with TorchScript that computes a function of frames, which it gets as they are."""
    import torch  # noqa: PLC0415 -- optional

    if version == 2:
        return save_2(folder, describe_2(image_shape=[80, 320]), _script(torch, function))
    meta = describe(preprocessing={"norm_mean": None, "norm_std": None})
    return save(folder, _script(torch, function, {META_NAME: json.dumps(meta)}))


def _script(torch: Any, network: Callable[[Any], Any], extra_files: dict[str, str] | None = None) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(network, torch.zeros((10, 80, 320), dtype=torch.uint8))
        torch.jit.save(traced, file, extra_files)
    return file.getvalue()


def save_program(folder: pathlib.Path, shape: tuple[int, int] = (80, 320), **meta: Any) -> pathlib.Path:
    """Write a model of version 2 with an exported program, for any number of frames of a shape."""
    return _save_exported(folder, shape, 2, {}, meta)


def save_program_for_any_shape(folder: pathlib.Path, **meta: Any) -> pathlib.Path:
    """Write a model of version 2 with an exported program that takes frames of any shape, but is made for 80x320 px."""
    import torch  # noqa: PLC0415 -- optional

    sides = {1: torch.export.Dim("height", min=4, max=1000), 2: torch.export.Dim("width", min=4, max=1000)}
    return _save_exported(folder, (80, 320), 1, sides, meta)


def _save_exported(
    folder: pathlib.Path, shape: tuple[int, int], step: int, sides: dict[int, Any], meta: dict[str, Any]
) -> pathlib.Path:
    import torch  # noqa: PLC0415 -- optional

    example = torch.zeros((10, *shape), dtype=torch.uint8)
    frames = {"images": {0: torch.export.Dim("frames", min=1, max=1000), **sides}}
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(u_net(torch, step=step), (example,), dynamic_shapes=frames)
        torch.export.save(program, file)
    options = [{"backend": backend, "device": "cpu"} for backend in ("torch.eager", "inductor", "openvino")]
    usual = {"model_file_format": "ExportedProgram", "image_shape": list(shape), "wiring_options": options}
    return save_2(folder, describe_2(**(usual | meta)), file.getvalue())
