"""The time of each frame, with the precision of dcnum.

The background image of a frame can depend on the last digit of its time. Numbers therefore keep the dtypes in which
the measurement stores them, and the dtype of a result follows from numpy's rules.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcnumd.read.hdf5_data import HDF5Data
from dcnumd.read.metadata import to_number

Times = npt.NDArray[np.floating[Any]]
Rate = np.integer[Any] | np.floating[Any] | np.bool_ | float

DEFAULT_FRAME_RATE = 3600.0
"""Frame rate [Hz] of a measurement that does not state one."""


def frame_rate(data: HDF5Data) -> Rate | None:
    """Return the stored frame rate [Hz]; None if it is not a positive number.

    A frame rate that is stored as text is converted here, while dcnum fails if it needs one.
    """
    stored = data.attributes.get("imaging:frame rate")
    if isinstance(stored, np.ndarray) and stored.size == 1:
        stored = stored.reshape(-1)[0]
    if isinstance(stored, str | bytes):
        try:
            stored = np.float64(to_number(stored))
        except ValueError:
            return None
    if not isinstance(stored, np.integer | np.floating | np.bool_):
        return None
    return stored if np.isfinite(stored) and stored > 0 else None


def time_feature(data: HDF5Data) -> str | None:
    """Return the feature from which the times are computed; None if only the frame rate is known."""
    if "time" in data:
        return "time"
    return "frame" if frame_rate(data) is not None and "frame" in data else None


def time_axis(data: HDF5Data) -> Times:
    """Return the time of each frame since the first one.

    It is computed from the feature ``time``, else from ``frame`` and the frame rate, else from the frame rate alone.

    Parameters
    ----------
    data
        Open measurement with frames.

    Returns
    -------
    time
        Time [s], shape (frame,); its dtype follows from the stored dtypes.
    """
    feature = time_feature(data)
    values = None if feature is None else np.asarray(data[feature])
    return elapsed_time(feature, values, len(data), frame_rate(data) or DEFAULT_FRAME_RATE)


def elapsed_time(feature: str | None, values: npt.NDArray[Any] | None, n_frames: int, frame_rate: Rate) -> Times:
    """Return the time of each frame since the first one [s] from the values of a feature.

    Parameters
    ----------
    feature
        The result of `time_feature`.
    values
        Values of the feature, shape (n_frames,); None without a feature.
    n_frames
        Number of frames.
    frame_rate
        Frame rate [Hz].
    """
    if values is None:
        return nominal_time(n_frames, frame_rate)
    time: Times = values / frame_rate if feature == "frame" else values
    elapsed: Times = time - time[0]
    return elapsed


def nominal_time(n_frames: int, frame_rate: Rate) -> Times:
    """Return estimated times [s] of frames from the frame rate [Hz], including a margin for lost frames."""
    return np.linspace(0, n_frames / frame_rate * 1.5, n_frames, endpoint=True)


def wraps_around(data: HDF5Data) -> bool:
    """Return whether the stored times are unsigned and decreasing, so that their difference wraps around."""
    values = data.find("time")
    return values is not None and values.dtype.kind == "u" and bool(values[len(values) - 1] < values[0])


def time_axis_ends(data: HDF5Data) -> tuple[str, float, float]:
    """Return the source of `time_axis`, and its first and last stored value [s]."""
    rate = float(frame_rate(data) or DEFAULT_FRAME_RATE)
    feature = time_feature(data)
    values = None if feature is None else data.find(feature)
    if values is None:
        return "imaging:frame rate", 0.0, len(data) / rate * 1.5
    scale = rate if feature == "frame" else 1.0
    return f"events/{feature}", float(values[0]) / scale, float(values[len(values) - 1]) / scale
