"""Memory of a worker for torch and for networks, as far as it is known before they are loaded.

Sizes were measured as for `dcnumd.logic.memory`, with torch 2.13 and openvino 2026.4, and rounded up. This module
imports only the standard library, so that the command line can tell what a pipeline needs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

MIB = 2**20
SCRIPT_BYTES = 176 * MIB
"""Memory of a worker for torch itself [bytes], for networks in TorchScript."""
PROGRAM_BYTES = 256 * MIB
"""Memory of a worker for torch itself [bytes], or torch and openvino, for networks that are exported programs."""
COMPILER_BYTES = 128 * MIB
"""Additional memory of a worker while it compiles a network [bytes], mostly for the compiler for C++."""
SHARED_SCRIPT_BYTES = 100 * MIB
"""Memory for the libraries of torch, which all workers share [bytes], for networks in TorchScript."""
SHARED_PROGRAM_BYTES = 130 * MIB
"""The same for networks that are exported programs, with the libraries of openvino [bytes]."""
KEPT_BYTES = 96 * MIB
"""Memory of a worker for networks [bytes]; the one that was not used for the longest time goes first."""
NETWORK_BYTES = 8 * MIB
"""Memory of a network beside what its file contains [bytes]."""
BYTES_PER_FILE_BYTE = 4
"""Memory of a network, in sizes of its file: weights, a copy of them in the layout for the processor, and the code."""
PIXEL_SCALE = 0.75
"""Memory for each pixel of a frame while a network computes [bytes], divided by the root of the size of its file.

Both the memory for a pixel and the root of the number of weights are proportional to the number of channels. Of
U-Nets with three levels, a file of 0.1 MB has 8 channels in the first one, and a file of 1.7 MB has 32."""
BATCH = 10
"""Number of frames that a network computes at once on a processor."""


class ModelNeeds(NamedTuple):
    """Memory that a model needs."""

    worker_bytes: int
    """Memory of each worker [bytes]."""
    shared_bytes: int
    """Memory that all workers share [bytes]."""


NO_MODEL = ModelNeeds(0, 0)


def network_bytes(file_bytes: int) -> int:
    """Return the approximate memory of a network [bytes] whose file has this size [bytes]."""
    return NETWORK_BYTES + BYTES_PER_FILE_BYTE * file_bytes


def model_needs(file_bytes: int, pixels: int, frames: int, *, is_program: bool, is_compiled: bool) -> ModelNeeds:
    """Return the largest memory for a model, and for those that are kept beside it.

    Parameters
    ----------
    file_bytes
        Size of its file [bytes].
    pixels
        Number of pixels in a frame.
    frames
        Number of frames that the network computes at once.
    is_program
        Whether the network is an exported program, and not TorchScript.
    is_compiled
        Whether `torch.compile` compiles it.
    """
    computing = math.ceil(frames * pixels * PIXEL_SCALE * math.sqrt(file_bytes))
    torch_bytes = (PROGRAM_BYTES if is_program else SCRIPT_BYTES) + (COMPILER_BYTES if is_compiled else 0)
    return ModelNeeds(
        torch_bytes + max(KEPT_BYTES, network_bytes(file_bytes)) + computing,
        SHARED_PROGRAM_BYTES if is_program else SHARED_SCRIPT_BYTES,
    )
