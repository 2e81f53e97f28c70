"""Networks of version 2, made by tests with torch; torch is imported inside of functions."""

from __future__ import annotations

import io
import pathlib
import warnings
from typing import Any

from tests.support.models import describe_2, save_2


def u_net(torch: Any, *, step: int = 2, answer: str = "mask") -> Any:
    """Return a small U-Net for uint8 frames (frame, y, x), with weights that find dark cells.

    Parameters
    ----------
    torch
        The imported package.
    step
        Factor of the coarser level.
    answer
        ``mask`` for booleans, ``numbers`` for 0 and 255, ``nan`` for NaN.
    """
    nn, functional = torch.nn, torch.nn.functional

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(5)
            self.down = nn.Conv2d(1, 4, 3, padding=1)
            self.deep = nn.Conv2d(4, 4, 3, padding=1)
            self.up = nn.Conv2d(8, 1, 3, padding=1)

        def forward(self, images: Any) -> Any:
            frames = images.to(torch.float32).unsqueeze(1) / 255
            near, far = (
                functional.avg_pool2d(frames, size, stride=1, padding=size // 2, count_include_pad=False)
                for size in (5, 41)
            )
            darkness = far - near
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

    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = torch.jit.trace(u_net(torch, answer=answer), torch.zeros((10, 80, 320), dtype=torch.uint8))
        torch.jit.save(network, file)
    return save_2(folder, describe_2(image_shape=[80, 320], **meta), file.getvalue())


def save_program(folder: pathlib.Path, shape: tuple[int, int] = (80, 320), **meta: Any) -> pathlib.Path:
    """Write a model of version 2 with an exported program, for any number of frames of a shape."""
    import torch  # noqa: PLC0415 -- optional

    example = torch.zeros((10, *shape), dtype=torch.uint8)
    frames = {"images": {0: torch.export.Dim("frames", min=1, max=1000)}}
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(u_net(torch), (example,), dynamic_shapes=frames)
        torch.export.save(program, file)
    options = [{"backend": backend, "device": "cpu"} for backend in ("torch.eager", "inductor", "openvino")]
    usual = {"model_file_format": "ExportedProgram", "image_shape": list(shape), "wiring_options": options}
    return save_2(folder, describe_2(**(usual | meta)), file.getvalue())
