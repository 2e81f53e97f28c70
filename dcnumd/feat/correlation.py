"""Haralick's measures of correlation, f12 and f13, of grey values that hardly depend on their neighbours.

Both follow from the information that a grey value has about its neighbour, the difference of two entropies. Where it
is zero up to rounding, f13, which grows with its root, consists of nothing but the errors of rounding. They are those
of mahotas, and thereby dcnum's, only if all is summed in the same order: over the whole co-occurrence matrix, by numpy.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

NEIGHBOURS = ((0, 1), (1, 1), (1, 0), (1, -1))
"""Steps to the neighbour, (y, x) [px]: east, south-east, south, south-west."""

Floats = npt.NDArray[np.float64]


def correlation_measures(grey: npt.NDArray[np.uint8]) -> tuple[float, float, float, float]:
    """Return mean and peak-to-peak of f12, then of f13, over the four directions.

    Parameters
    ----------
    grey
        uint8 (y, x): grey values; 0 is outside of the mask. In each direction there is a pixel with a neighbour.
    """
    padded = np.pad(grey, 1)
    values = np.array([_measures(_cooccurrence(padded, step)) for step in NEIGHBOURS])
    (f12, f13), (f12_ptp, f13_ptp) = values.mean(axis=0).tolist(), np.ptp(values, axis=0).tolist()
    return f12, f12_ptp, f13, f13_ptp


def _cooccurrence(padded: npt.NDArray[np.uint8], step: tuple[int, int]) -> Floats:
    """Return how often each grey value is beside each other one, of all pairs; both orders of a pair count."""
    size = int(padded.max()) + 1
    first = padded.astype(np.int64)
    second = np.roll(first, (-step[0], -step[1]), axis=(0, 1))
    both = (first > 0) & (second > 0)
    counts = np.bincount(first[both] * size + second[both], minlength=size * size).reshape(size, size)
    symmetric = (counts + counts.T).astype(np.float64)
    share: Floats = symmetric / symmetric.sum()
    return share


def _measures(share: Floats) -> tuple[float, float]:
    """Return f12 and f13 of a co-occurrence matrix."""
    columns, rows = share.sum(axis=0), share.sum(axis=1)
    independent = np.outer(columns, rows)
    independent[independent == 0] = 1
    joint = _entropy(share)
    crossed = -float(np.dot(share.ravel(), np.log2(independent.ravel())))
    largest = max(_entropy(columns), _entropy(rows))
    information = max(0.0, 1 - float(np.exp(-2 * (_entropy(independent) - joint))))
    return ((joint - crossed) / largest if largest else joint - crossed), information**0.5


def _entropy(shares: Floats) -> float:
    """Return the entropy [bit] of shares, of which 0 and 1 count nothing."""
    flat = shares.ravel()
    return -float(np.dot(np.log2(np.where(flat == 0, 1, flat)), flat))
