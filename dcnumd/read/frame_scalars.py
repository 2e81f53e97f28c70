"""Frame-wise scalar features of a measurement: validity, and what a result copies."""

from __future__ import annotations

from collections.abc import Set

from dcnumd.errors import MeasurementError
from dcnumd.read.frame_features import FRAME_SCALARS
from dcnumd.read.hdf5_data import HDF5Data
from dcnumd.read.image_stack import ImageStack
from dcnumd.read.left_out import doing_without, warn_left_out
from dcnumd.read.measurement_file import NUMBERS


def check_numbers(data: HDF5Data, feature: str) -> None:
    """Make sure that a frame-wise feature is valid for computations, if the measurement has it.

    Raises
    ------
    MeasurementError
        Reason ``damaged``, when it is not a list of numbers; ``event_count``, when it has not one number per frame.
    """
    stack = data.find(feature)
    if stack is not None and (stack.ndim != 1 or stack.dtype.kind not in NUMBERS):
        raise MeasurementError(
            f"{data.path}: events/{feature} is {stack.dtype} with {stack.ndim} axes, expected a number for each frame",
            reason="damaged",
        )
    data.check_length(feature)


def frame_scalars(data: HDF5Data, replaced: Set[str] = frozenset()) -> dict[str, ImageStack]:
    """Return the frame-wise features that a result copies: those with one value of fixed size per frame.

    A warning names each feature that cannot be copied, and each that is in a missing basin.

    Parameters
    ----------
    data
        The measurement.
    replaced
        Features that the result has from elsewhere; they are neither copied nor named in warnings.
    """
    found = {}
    for name in data.features_scalar_frame:
        if name in replaced:
            continue
        with doing_without():
            data.check_length(name)
            stack = data.find(name)
            if stack is None or not _is_value_of_each_frame(stack, len(data)):
                kind = "no list of values" if stack is None else f"{stack.dtype} of shape {stack.shape}"
                raise MeasurementError(f"{data.path}: events/{name} is {kind}, not one value for each frame")
            found[name] = stack
    _warn_of_missing(data, found.keys() | replaced)
    return found


def _is_value_of_each_frame(stack: ImageStack, frames: int) -> bool:
    dtype = stack.dtype
    # the meaning of opaque bytes (kind V without fields) is unknown
    return stack.shape == (frames,) and not dtype.hasobject and (dtype.kind != "V" or dtype.names is not None)


def _warn_of_missing(data: HDF5Data, found: Set[str]) -> None:
    """Warn of missing basins and of the features that are lost with them."""
    for basin in data.basins:
        declared = sorted((basin.features or set()) & set(FRAME_SCALARS) - found)
        if basin.kind != "internal" and basin.fault is None and (declared or basin.features is None):
            try:
                data.open_basin(basin)
            except MeasurementError as error:
                lost = ", ".join(declared) or "whatever scalar features it has"
                warn_left_out(error.message, f"without it the result lacks {lost}")
