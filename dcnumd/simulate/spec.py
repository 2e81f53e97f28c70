"""Specification of a simulated measurement as a frozen value.

This module imports no numerical code, so that the command line stays fast.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import re

from dcnumd.errors import ConfigError

KINDS = ("bead", "cell", "doublet", "border")
"""Kinds of cells: round beads, deformed cells, two touching cells, cells that the edge of the frame cuts."""

SMALLEST_SIZE = (40, 80)
"""Smallest frame (y, x) [px] that can show a channel with a cell."""

LARGEST = {
    "frames": math.inf, "density": 100.0, "flicker": 10.0, "light": 4.0, "clog_at": 1.0, "fibres": 20.0,
    "chunk": math.inf, "seed": math.inf,
}  # fmt: skip
"""Largest value of each setting that must not be negative."""

COMPRESSION_PATTERN = re.compile(r"none|gzip|zstd-[1-9]")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementSpec:
    """Settings that determine the content of a simulated measurement.

    Equal specifications give files with equal datasets and metadata.

    Raises
    ------
    ConfigError
        A value is out of range.
    """

    size: tuple[int, int] = (80, 320)
    """Frame height and width [px]."""
    frames: int = 10_000
    """Number of frames; 0 makes an empty recording."""
    rate: float = 3450.0
    """Frames per second [Hz]."""
    density: float = 0.7
    """Mean number of cells with their centre in a frame."""
    kinds: tuple[str, ...] = KINDS
    """Kinds of cells in the measurement, a selection of `KINDS`."""
    flicker: float = 0.0
    """Standard deviation of the brightness from frame to frame [grey levels]."""
    light: float = 1.0
    """Brightness of the illumination relative to the usual one."""
    drift: float = 0.0
    """Change of the background's brightness from the first to the last frame [grey levels]."""
    clog_at: float = 1.0
    """Fraction of the recording after which no more cells appear."""
    fibres: float = 0.0
    """Mean number of fibres in a frame: dark lines, one pixel wide."""
    compression: str = "zstd-1"
    """``none``, ``gzip`` or ``zstd-1`` to ``zstd-9``."""
    fletcher32: bool = True
    """Whether each chunk has a checksum."""
    chunk: int = 0
    """Number of frames in each HDF5 chunk; 0 for the number that fits into 1 MiB."""
    seed: int = 0
    pixel_size: float = 0.2645
    """Pixel size [µm]."""
    identifier: str = "RC-5117-simu-dcnumd"
    """Identifier of the instrument, ``setup:identifier``."""
    run_identifier: str | None = None
    """``experiment:run identifier``; None to omit it, like older recording software."""
    sample: str = "simulated cells"
    run_index: int = 1
    started: dt.datetime = dt.datetime(2025, 1, 15, 10, 0, 0)  # noqa: DTZ001 -- files hold local time
    """Start of the recording, in the instrument's local time."""

    def __post_init__(self) -> None:
        height, width = self.size
        smallest = f"{SMALLEST_SIZE[0]}x{SMALLEST_SIZE[1]}"
        if height < SMALLEST_SIZE[0] or width < SMALLEST_SIZE[1] or height > 4096 or width > 4096:
            raise ConfigError(
                f"simulate: size {height}x{width}: expected {smallest} to 4096x4096 pixels (height x width)"
            )
        for name, most in LARGEST.items():
            if not 0 <= getattr(self, name) <= most:
                limit = f"0 to {most:g}" if math.isfinite(most) else "0 or more"
                raise ConfigError(f"simulate: {_option(name)} {getattr(self, name)}: expected {limit}")
        for name in ("rate", "pixel_size"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"simulate: {_option(name)} {getattr(self, name)}: expected more than 0")
        if not abs(self.drift) <= 100:
            raise ConfigError(f"simulate: drift {self.drift}: expected -100 to 100 grey levels")
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds:
            raise ConfigError(f"simulate: kinds {','.join(self.kinds)!r}: expected some of {', '.join(KINDS)}")
        if not COMPRESSION_PATTERN.fullmatch(self.compression):
            raise ConfigError(f"simulate: compression {self.compression!r}: expected none, gzip or zstd-1 to zstd-9")

    @property
    def chunk_frames(self) -> int:
        """Number of frames in each HDF5 chunk, resolved."""
        height, width = self.size
        return self.chunk or max(1, 2**20 // (height * width))

    @property
    def duration(self) -> float:
        """Duration of the recording [s]."""
        return self.frames / self.rate


def _option(name: str) -> str:
    """Return the name that a setting has on the command line."""
    return name.replace("_", "-")
