"""Memory of a worker for torch and for networks, as far as it is known before they are loaded.

This module imports only the standard library, so that the command line can tell what a pipeline needs.
"""

from __future__ import annotations

MIB = 2**20
TORCH_BYTES = 320 * MIB
"""Memory of a worker for torch itself [bytes], measured as for `dcnumd.logic.memory` with torch 2.13.

The compiler of torch is included; without it, a worker takes 100 MiB less."""
KEPT_BYTES = 256 * MIB
"""Memory of a worker for networks [bytes]; the one that was not used for the longest time goes first."""
BYTES_PER_FILE_BYTE = 4
"""Memory of a network, in sizes of its file: weights, a copy of them in the layout for the processor, and the code."""
BYTES_PER_PIXEL = 1024
"""Memory for each pixel of a frame while a network computes [bytes]: a few layers with 64 channels each."""
BATCH = 10
"""Number of frames that a network computes at once on a processor."""


def network_bytes(file_bytes: int) -> int:
    """Return the approximate memory of a network [bytes] whose file has this size [bytes]."""
    return BYTES_PER_FILE_BYTE * file_bytes


def worker_bytes(file_bytes: int, pixels: int, frames: int = BATCH) -> int:
    """Return the largest memory of a worker for networks and torch [bytes].

    Parameters
    ----------
    file_bytes
        Size of the file of the largest model [bytes].
    pixels
        Number of pixels in a frame.
    frames
        Number of frames that a network computes at once.
    """
    return TORCH_BYTES + max(KEPT_BYTES, network_bytes(file_bytes)) + frames * pixels * BYTES_PER_PIXEL
