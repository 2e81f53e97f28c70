"""The gate: the smallest size of masks, and the limits of features of events."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dcnumd.errors import MeasurementError
from dcnumd.meta.ppid import DEFAULT_SIZE_THRESH_MASK, gate_ppid
from dcnumd.read.metadata import to_number
from dcnumd.read.pixel_size import usable_pixel_size

MIN_EXTENT = 3
"""With online gates an event spans at least this many pixels in each direction."""


class Limits(NamedTuple):
    """Inclusive limits of one feature, in the unit of the feature; None for no limit."""

    lower: float | None
    upper: float | None


class Gate:
    """Selects events by size and, if required, by the limits of the instrument's software.

    Without online gates every event is kept; only `size_thresh_mask` applies. With online gates, for every feature
    whose ``online_filter:<feature> soft limit`` exists and is false, ``online_filter:<feature> min`` and ``max`` are
    limits. Both are inclusive, either may be missing, and an event whose feature is NaN is removed. Four peculiarities
    of dcnum determine which events are in its results, so they are reproduced here:

    - ``size_x`` and ``size_y`` are at least 3 pixels, regardless of their limits in the measurement.
    - A missing soft limit means true; a text means true unless it is empty, even "False".
    - ``online_contour:bin area min`` is the size threshold only if `size_thresh_mask` is None. The pipeline
      identifier does not contain it, but always `size_thresh_mask` as given (None as 10).
    - A size threshold of 0, given or from the measurement, means 10.

    Parameters
    ----------
    meta
        Attributes ``section:key`` of the measurement.
    online_gates
        Whether to apply the gates of the instrument.
    size_thresh_mask
        Number of pixels that a mask must exceed; None for that of the online gates, or else 10.
    pixel_size
        Pixel size [µm]; None for ``imaging:pixel size``.

    Attributes
    ----------
    box_gates
        Limits by feature name.
    size_thresh_mask
        Number of pixels that a mask must exceed, resolved.

    Raises
    ------
    MeasurementError
        Reason ``online_gates``, for a polygon gate, or for a limit or pixel size that is missing or not a number.
    """

    def __init__(
        self,
        meta: Mapping[str, object],
        *,
        online_gates: bool = False,
        size_thresh_mask: int | None = None,
        pixel_size: float | None = None,
    ) -> None:
        self._kwargs = {"online_gates": online_gates, "size_thresh_mask": size_thresh_mask}
        self.box_gates: dict[str, Limits] = {}
        threshold: float | None = size_thresh_mask
        if online_gates:
            self.box_gates = _read_box_gates(meta)
            pixel_size = usable_pixel_size(meta.get("imaging:pixel size") if pixel_size is None else pixel_size)
            if pixel_size is None:
                raise MeasurementError("online gates need a positive number in imaging:pixel size", "online_gates")
            for feature in ("size_x", "size_y"):
                self.box_gates[feature] = Limits(MIN_EXTENT * pixel_size, None)
            if threshold is None and "online_contour:bin area min" in meta:
                threshold = _read_number(meta, "online_contour:bin area min", infinite=False)
        # numbers of pixels that exceed 20.5 are those that exceed 20
        self.size_thresh_mask = math.floor(threshold or DEFAULT_SIZE_THRESH_MASK)

    @property
    def features(self) -> list[str]:
        """Names of the features with limits, sorted."""
        return sorted(self.box_gates)

    def get_ppid(self) -> str:
        """Return the gate part of the pipeline identifier."""
        return gate_ppid(self._kwargs)

    def check_features(self, names: Sequence[str]) -> None:
        """Make sure that all features with limits are among `names`; raise a MeasurementError otherwise."""
        missing = [feature for feature in self.features if feature not in names]
        if missing:
            raise MeasurementError(
                f"online gates limit {', '.join(missing)}, which this pipeline does not compute; "
                "set online_gates = false or enable the feature",
                "online_gates",
            )

    def accept(self, table: npt.NDArray[np.float64], names: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Return which events are kept.

        Parameters
        ----------
        table
            Features of events, float64 (event, feature).
        names
            Names of the features, in the order of the columns.

        Returns
        -------
        accepted
            bool (event,).

        Raises
        ------
        MeasurementError
            A feature with limits is not in the table.
        """
        self.check_features(names)
        accepted = np.ones(len(table), dtype=bool)
        for feature, (lower, upper) in self.box_gates.items():
            values = table[:, names.index(feature)]
            if lower is not None:
                accepted &= values >= lower
            if upper is not None:
                accepted &= values <= upper
        return accepted


def _read_box_gates(meta: Mapping[str, object]) -> dict[str, Limits]:
    gates = {}
    for key in meta:
        section, _, setting = key.partition(":")
        if section != "online_filter":
            continue
        feature, _, kind = setting.rpartition(" ")
        if setting.endswith("polygon points"):
            raise MeasurementError(
                f"{key} is a polygon gate, expected only minima and maxima; set online_gates = false", "online_gates"
            )
        if kind in {"min", "max"} and not _is_soft(meta, feature):
            gates[feature] = Limits(
                _read_number_or_none(meta, f"online_filter:{feature} min"),
                _read_number_or_none(meta, f"online_filter:{feature} max"),
            )
    return gates


def _is_soft(meta: Mapping[str, object], feature: str) -> bool:
    return bool(meta.get(f"online_filter:{feature} soft limit", True))


def _read_number_or_none(meta: Mapping[str, object], key: str) -> float | None:
    return _read_number(meta, key) if key in meta else None


def _read_number(meta: Mapping[str, object], key: str, *, infinite: bool = True) -> float:
    """Return an attribute as a number; infinity, which means no limit, is allowed with `infinite`."""
    value = meta.get(key)
    try:
        number = to_number(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number) or (math.isinf(number) and not infinite):
        raise MeasurementError(f"online gates need a number in {key}, got {value!r}", "online_gates")
    return number
