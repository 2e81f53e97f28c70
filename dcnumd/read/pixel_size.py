"""The pixel size of a measurement, and the known fault of one camera family."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence

from dcnumd.errors import ConfigError, MeasurementError
from dcnumd.read.metadata import to_number

SOUND_RANGE = (0.255, 0.275)
DEVICE_PIXEL_SIZES = {"naiad 1.0": 0.2645, "naiad 1.1": 0.2675}
DEVICE_LOG = "cytoshot-acquisition"
DEVICE_KEY = "Device name:"


class PixelSizeWarning(UserWarning):
    """A pixel size was replaced because the recording device is known to store a wrong one."""


def usable_pixel_size(value: object) -> float | None:
    """Return a stored pixel size as used in computations [µm]; None if it is not a positive finite number.

    It is rounded to the 8 decimals of the pipeline identifier, as in dcnum: recording software stores 0.34 as
    0.3400000035762787, and equal identifiers must mean equal data. The value may be stored as text.
    """
    try:
        size = float(f"{to_number(value):.8f}")
    except (TypeError, ValueError, OverflowError):
        return None
    return size if 0 < size < math.inf else None


def override_pixel_size(value: float) -> float:
    """Return a pixel size [µm] that overrides the measurement's, as used in computations.

    Raises
    ------
    ConfigError
        The value is not a positive finite number, or is 0 after rounding to 8 decimals.
    """
    size = usable_pixel_size(value)
    if size is None:
        raise ConfigError(f"pipeline.pixel_size is {value!r}, expected a size in µm, of at least 0.00000001")
    return size


def sound_pixel_size(
    stored: object, identifier: str, read_logs: Callable[[], Mapping[str, Sequence[str]]], where: str
) -> float:
    """Return the pixel size to work with.

    Parameters
    ----------
    stored
        ``imaging:pixel size`` [µm]; None if the file has none.
    identifier
        ``setup:identifier``; devices that start with ``RC-`` may have stored a wrong pixel size.
    read_logs
        Returns the logs of the file, called only when needed; ``cytoshot-acquisition`` names the device.
    where
        Path of the file, for messages.

    Returns
    -------
    float
        Pixel size in µm, see `usable_pixel_size`.

    Raises
    ------
    MeasurementError
        Reason ``input``, when the stored value is not a pixel size.
    """
    size = usable_pixel_size(stored)
    if size is None:
        found = "missing" if stored is None else repr(stored)
        raise MeasurementError(
            f"{where}: imaging:pixel size is {found}, expected a positive number of µm; "
            "set pipeline.pixel_size to that of the instrument"
        )
    lower, upper = SOUND_RANGE
    if not identifier.startswith("RC-") or lower <= size <= upper:
        return size
    device = _device_name(read_logs().get(DEVICE_LOG, ()))
    corrected = DEVICE_PIXEL_SIZES.get(device or "naiad 1.0")
    if corrected is None:
        return size
    warnings.warn(
        f"{where}: pixel size {size:.5g} µm of device {identifier} is a known camera fault; using {corrected} µm",
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
