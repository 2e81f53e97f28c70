"""Haralick's measures of correlation, f12 and f13, for grey values that hardly depend on their neighbours.

Both are computed from the information that a grey value has about its neighbour, a difference of two entropies. If
this difference is zero except for rounding errors, f13, which grows with its square root, depends on these errors only.
Why not leave this to the kernel? The errors equal those of mahotas, and thereby of dcnum, only if all terms are summed
in the same order: over the whole co-occurrence matrix, by numpy.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

NEIGHBOURS = ((0, 1), (1, 1), (1, 0), (1, -1))
"""Offsets of the neighbour, (y, x) [px]: east, south-east, south, south-west."""

Floats = npt.NDArray[np.float64]


def correlation_measures(grey: npt.NDArray[np.uint8]) -> tuple[float, float, float, float]:
    """Return mean and peak-to-peak of f12, then of f13, over the four directions.

    Parameters
    ----------
    grey
        Grey values, uint8 (y, x); 0 is outside of the mask. In each direction, at least one pixel has a neighbour.
    """
    padded = np.pad(grey, 1)
    values = np.array([_measures(_cooccurrence(padded, step)) for step in NEIGHBOURS])
    (f12, f13), (f12_ptp, f13_ptp) = values.mean(axis=0).tolist(), np.ptp(values, axis=0).tolist()
    return f12, f12_ptp, f13, f13_ptp


def _cooccurrence(padded: npt.NDArray[np.uint8], step: tuple[int, int]) -> Floats:
    """Return the share of each pair of neighbouring grey values among all pairs; each pair counts in both orders."""
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
    """Return the entropy of shares [bit]; the terms for 0 and 1 are 0."""
    flat = shares.ravel()
    return -float(np.dot(np.log2(np.where(flat == 0, 1, flat)), flat))
