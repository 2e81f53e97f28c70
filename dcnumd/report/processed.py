"""Which frames of a measurement were processed, as a result tells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dcnumd.errors import ConfigError
from dcnumd.meta.ppid import get_data_ppid, parse_data_ppid
from dcnumd.read.index_mapping import Indices, resolve_index_mapping

WHOLE_MEASUREMENT = "0"
"""Code of the index mapping of a result for which all frames were processed."""


def processed_frames(code: str, listed: Sequence[int], length: int) -> Indices | None:
    """Return the indices of the processed frames, int64 of shape (frame,), ascending and each once; None if not known.

    Parameters
    ----------
    code
        Code of the index mapping, as in a pipeline identifier.
    listed
        The index mapping in the log of the job, if it is a list; its code is only a checksum.
    length
        Number of frames of the measurement.
    """
    try:
        if code.startswith("h-"):
            if not listed or not get_data_ppid(0, listed).endswith(f"={code}"):
                return None
            return np.unique(resolve_index_mapping(list(listed), length))
        mapping = parse_data_ppid(f"hdf:i={code}")["index_mapping"]
        return resolve_index_mapping(slice(None) if mapping is None else mapping, length)
    except (ConfigError, OverflowError, MemoryError):
        return None
