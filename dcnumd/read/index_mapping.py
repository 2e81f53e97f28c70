"""Index mappings: the selection and order of events in a file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dcnumd.errors import ConfigError

Indices = npt.NDArray[np.int64]
IndexMapping = int | slice | Sequence[int] | npt.NDArray[np.integer]


def resolve_index_mapping(mapping: IndexMapping, length: int) -> Indices:
    """Return the event indices that `mapping` selects among `length` events.

    Parameters
    ----------
    mapping
        The first n events (int); a slice with non-negative start, stop and step, each of which may be None; or
        the indices themselves.
    length
        Number of events in the file.

    Returns
    -------
    ndarray of int64, shape (events,)

    Raises
    ------
    ConfigError
        When an index is not in ``0 … length - 1`` or `mapping` is none of the above.
    """
    if isinstance(mapping, slice):
        indices = _from_slice(mapping, length)
    elif isinstance(mapping, int | np.integer) and not isinstance(mapping, bool):
        indices = np.arange(int(mapping), dtype=np.int64) if mapping > 0 else _refuse(mapping, length)
    elif isinstance(mapping, list | tuple | np.ndarray):
        array = np.asarray(mapping)
        if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
            return _refuse(mapping, length)
        indices = array.astype(np.int64)
    else:
        return _refuse(mapping, length)
    if indices.size and (indices.min() < 0 or indices.max() >= length):
        wrong = indices.max() if indices.max() >= length else indices.min()
        raise ConfigError(
            f"index mapping {_short(mapping)} asks for event {wrong}, but the file has events 0 to {length - 1}",
            reason="index_mapping",
        )
    return np.ascontiguousarray(indices)


def _from_slice(mapping: slice, length: int) -> Indices:
    start = 0 if mapping.start is None else int(mapping.start)
    step = 1 if mapping.step is None else int(mapping.step)
    stop = length if mapping.stop is None else int(mapping.stop)
    if start < 0 or stop < 0 or step < 1:
        return _refuse(mapping, length)
    return np.arange(start, stop, step, dtype=np.int64)


def _refuse(mapping: object, length: int) -> Indices:
    raise ConfigError(
        f"index mapping {_short(mapping)} is not understood for {length} events; allowed: the number of first events, "
        "a slice with non-negative start, stop and step, or a list of event indices",
        reason="index_mapping",
    )


def _short(mapping: object) -> str:
    text = repr(mapping)
    return text if len(text) <= 60 else text[:57] + "..."
