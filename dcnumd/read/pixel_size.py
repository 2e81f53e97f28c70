"""The pixel size of a measurement, and the known fault of one camera family."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence

SOUND_RANGE = (0.255, 0.275)
DEVICE_PIXEL_SIZES = {"naiad 1.0": 0.2645, "naiad 1.1": 0.2675}
DEVICE_LOG = "cytoshot-acquisition"
DEVICE_KEY = "Device name:"


class PixelSizeWarning(UserWarning):
    """A pixel size was replaced because the recording device is known to store a wrong one."""


def sound_pixel_size(
    stored: float, identifier: str, read_logs: Callable[[], Mapping[str, Sequence[str]]], where: str
) -> float:
    """Return the pixel size to work with.

    Parameters
    ----------
    stored
        ``imaging:pixel size`` in µm.
    identifier
        ``setup:identifier``; devices that start with ``RC-`` may have stored a wrong pixel size.
    read_logs
        Returns the logs of the file, of which ``cytoshot-acquisition`` names the device; called only when needed.
    where
        Path, for the warning.

    Returns
    -------
    float
        Pixel size in µm.
    """
    lower, upper = SOUND_RANGE
    if not identifier.startswith("RC-") or lower <= stored <= upper:
        return stored
    device = _device_name(read_logs().get(DEVICE_LOG, ()))
    corrected = DEVICE_PIXEL_SIZES.get(device or "naiad 1.0")
    if corrected is None:
        return stored
    warnings.warn(
        f"{where}: pixel size {stored:.5g} µm of device {identifier} is a known camera fault; using {corrected} µm",
        PixelSizeWarning,
        stacklevel=3,
    )
    return corrected


def _device_name(lines: Sequence[str]) -> str | None:
    for line in lines:
        _, found, name = line.partition(DEVICE_KEY)
        if found:
            return name.strip()
    return None
