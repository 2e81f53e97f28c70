"""Texture as mahotas computes it."""

from __future__ import annotations

import mahotas.features
import numpy as np
import numpy.typing as npt

USED = (0, 1, 2, 3, 4, 6, 7, 8, 10, 11, 12)
"""Those of Haralick's features, as mahotas counts them, that are wanted."""


def grey_values(mask: npt.NDArray[np.bool_], corrected: npt.NDArray[np.int16]) -> npt.NDArray[np.uint8]:
    """Return what texture is computed from, 0 outside of the mask."""
    return ((corrected - corrected[mask].min() + 1) * mask).astype(np.uint8)


def mahotas_texture(mask: npt.NDArray[np.bool_], corrected: npt.NDArray[np.int16]) -> npt.NDArray[np.float64]:
    """Return what mahotas makes of the grey values as bytes; NaN where a direction has no neighbours."""
    try:
        both = mahotas.features.haralick(grey_values(mask, corrected), ignore_zeros=True, return_mean_ptp=True)
    except ValueError:
        return np.full(22, np.nan)
    return np.stack((both[:13][list(USED)], both[13:][list(USED)]), axis=1).ravel()
