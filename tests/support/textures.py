"""Reference values of texture features, computed by mahotas."""

from __future__ import annotations

import mahotas.features
import numpy as np
import numpy.typing as npt

USED = (0, 1, 2, 3, 4, 6, 7, 8, 10, 11, 12)
"""Indices of the Haralick features that dcnum uses, in the order of mahotas."""


def grey_values(mask: npt.NDArray[np.bool_], corrected: npt.NDArray[np.int16]) -> npt.NDArray[np.uint8]:
    """Return the grey values from which texture is computed; 0 outside of the mask."""
    return ((corrected - corrected[mask].min() + 1) * mask).astype(np.uint8)


def mahotas_texture(mask: npt.NDArray[np.bool_], corrected: npt.NDArray[np.int16]) -> npt.NDArray[np.float64]:
    """Return mean and range of each texture feature by mahotas; all NaN if a direction has no neighbours."""
    try:
        both = mahotas.features.haralick(grey_values(mask, corrected), ignore_zeros=True, return_mean_ptp=True)
    except ValueError:
        return np.full(22, np.nan)
    return np.stack((both[:13][list(USED)], both[13:][list(USED)]), axis=1).ravel()
