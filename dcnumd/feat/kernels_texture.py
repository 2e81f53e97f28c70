"""Kernels: Haralick's texture features of the pixels inside a mask."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dcnumd.feat.kernels_contour import clear_around
from dcnumd.kernels.decorator import inline_kernel, kernel

FEATURES_PER_DIRECTION = 11
DOUBTFUL_INFORMATION = 1e-3
"""Grey values that tell less of their neighbours [bit] have an f13 that depends on how entropies are rounded."""
NUM_TEXTURE = 2 * FEATURES_PER_DIRECTION
F13_MEAN = 20
"""Place of the mean of f13 among the features."""
DOUBTFUL = -1.0
"""What stands there when f12 and f13 are to be computed as in `dcnumd.feat.correlation`."""


@inline_kernel
def times_log2(count: int, table: npt.NDArray[np.float64]) -> float:
    """Return count·log2(count), with 0 for 0; small counts are looked up in `table`."""
    if count < table.size:
        return float(table[count])
    return count * math.log2(count)


@kernel
def entropy_of_counts(counts: npt.NDArray[np.int32], last: int, total: int, table: npt.NDArray[np.float64]) -> float:
    """Return the entropy [bit] of counts[:last + 1], which add up to `total`; exactly 0 for a single bin."""
    weighted = 0.0
    for i in range(last + 1):
        # Rounding must not give a single bin an entropy: f12 divides by it.
        if counts[i] == total:
            return 0.0
        weighted += times_log2(counts[i], table)
    return math.log2(total) - weighted / total


@kernel
def draw_grey_image(
    corrected: npt.NDArray[np.int16],
    position: npt.NDArray[np.int32],
    pixels: int,
    stride: int,
    padded_size: int,
    grey: npt.NDArray[np.uint8],
    grey_count: npt.NDArray[np.int32],
) -> int:
    """Draw the grey values to `grey`, count those but 0 in `grey_count`; return the largest.

    The values are image minus background, shifted to begin at 1. They are bytes: from 256 on they wrap around,
    and a pixel that becomes 0 thereby does not count as part of the mask.
    """
    lowest = 255
    for i in range(pixels):
        lowest = min(lowest, int(corrected[i]))
    clear_around(padded_size, position, pixels, stride, grey)
    for value in range(256):
        grey_count[value] = 0
    largest = 0
    for i in range(pixels):
        value = (int(corrected[i]) - lowest + 1) & 255
        grey[position[i]] = value
        grey_count[value] += 1
        largest = max(largest, value)
    grey_count[0] = 0
    return largest


@kernel
def count_pairs(
    position: npt.NDArray[np.int32],
    pixels: int,
    step: int,
    grey: npt.NDArray[np.uint8],
    pair_count: npt.NDArray[np.int32],
    pair_seen: npt.NDArray[np.int32],
    marginal: npt.NDArray[np.int32],
    difference_count: npt.NDArray[np.int32],
    sum_count: npt.NDArray[np.int32],
) -> tuple[int, int]:
    """Count the pairs of neighbours one `step` apart; return the number of pairs and of distinct unordered pairs.

    `marginal` comes as twice the histogram of the grey values and leaves without those that have no partner.
    """
    pairs = 0
    seen = 0
    for i in range(pixels):
        place = int(position[i])
        first = np.int64(grey[place])
        if first == 0:
            continue
        marginal[first] -= int(grey[place - step] == 0)
        second = np.int64(grey[place + step])
        if second == 0:
            marginal[first] -= 1
            continue
        difference = abs(first - second)
        total = first + second
        # The matrix is stored as a triangle, which fits the fast cache better than a square.
        high = (total + difference) >> 1
        cell = (high * (high + 1) >> 1) + total - high
        count = pair_count[cell]
        # Written always, kept only the first time: cheaper than a branch.
        pair_seen[seen] = cell
        seen += int(count == 0)
        pair_count[cell] = count + 1
        difference_count[difference] += 1
        sum_count[total] += 1
        pairs += 1
    return pairs, seen


@kernel
def direction_features(
    pairs: int,
    seen: int,
    largest: int,
    pair_count: npt.NDArray[np.int32],
    pair_seen: npt.NDArray[np.int32],
    marginal: npt.NDArray[np.int32],
    difference_count: npt.NDArray[np.int32],
    sum_count: npt.NDArray[np.int32],
    table: npt.NDArray[np.float64],
    out: npt.NDArray[np.float64],
) -> bool:
    """Write the features of one direction to out[:11], clear the counters; return whether f12 and f13 are doubtful.

    The co-occurrence matrix is symmetric, so each unordered pair stands for two entries, and on the diagonal for an
    entry of twice the size; both marginals are equal. Sums over the matrix stay integers as long as they can.
    """
    squares = 0
    for value in range(1, largest + 1):
        count = int(pair_count[value * (value + 3) >> 1])
        squares += count * count
    weighted = 0.0
    for i in range(seen):
        cell = pair_seen[i]
        count = int(pair_count[cell])
        pair_count[cell] = 0
        squares += count * count
        weighted += times_log2(count, table)
    entropy_sum = entropy_of_counts(sum_count, 2 * largest, pairs, table)
    entropy_difference = entropy_of_counts(difference_count, largest, pairs, table)
    entropy_marginal = entropy_of_counts(marginal, largest, 2 * pairs, table)
    equal = int(difference_count[0])
    # A single grey value: rounding must not give it an entropy.
    entropy = 0.0 if seen == 1 and equal == pairs else 1 + math.log2(pairs) - (weighted + equal) / pairs
    sum_total = sum_squares = difference_squares = 0
    homogeneity = 0.0
    for value in range(2, 2 * largest + 1):
        count = int(sum_count[value])
        sum_count[value] = 0
        sum_total += value * count
        sum_squares += value * value * count
    for value in range(largest + 1):
        count = int(difference_count[value])
        difference_count[value] = 0
        difference_squares += value * value * count
        homogeneity += count / (1.0 + value * value)
    # Twice the sum of squares, and four times that of products; then both moments times 4·pairs².
    both_squares = sum_squares + difference_squares
    products = sum_squares - difference_squares
    variance = pairs * both_squares - sum_total * sum_total
    covariance = pairs * products - sum_total * sum_total
    pairs_squared = float(pairs) * pairs
    out[0] = squares / (2 * pairs_squared)
    out[1] = difference_squares / pairs
    out[2] = covariance / variance if variance > 0 else 1.0
    out[3] = variance / (4 * pairs_squared)
    out[4] = homogeneity / pairs
    out[5] = (pairs * sum_squares - sum_total * sum_total) / pairs_squared
    out[6] = entropy_sum
    out[7] = entropy
    out[8] = entropy_difference
    out[9] = (entropy - 2 * entropy_marginal) / entropy_marginal if entropy_marginal > 0 else 0.0
    information = 2 * entropy_marginal - entropy
    out[10] = math.sqrt(max(0.0, 1 - math.exp(-2 * information)))
    return entropy_marginal > 0 and information < DOUBTFUL_INFORMATION


@kernel
def texture_features(
    corrected: npt.NDArray[np.int16],
    position: npt.NDArray[np.int32],
    pixels: int,
    stride: int,
    padded_size: int,
    grey: npt.NDArray[np.uint8],
    grey_count: npt.NDArray[np.int32],
    pair_count: npt.NDArray[np.int32],
    pair_seen: npt.NDArray[np.int32],
    marginal: npt.NDArray[np.int32],
    difference_count: npt.NDArray[np.int32],
    sum_count: npt.NDArray[np.int32],
    table: npt.NDArray[np.float64],
    texture: npt.NDArray[np.float64],
    out: npt.NDArray[np.float64],
) -> None:
    """Write mean and peak-to-peak over the four directions to out[:22], in the order of `FEATURES_TEXTURE`.

    Haralick et al., "Textural features for image classification", IEEE Trans. SMC 3 (1973) 610-621, with the
    co-occurrence of pixels outside the mask left out. All NaN when the pixels have no neighbour in some direction.
    The mean of f13 is `DOUBTFUL` when rounding decides about it.
    """
    doubtful = False
    largest = draw_grey_image(corrected, position, pixels, stride, padded_size, grey, grey_count)
    for direction in range(4):
        # East, south, south-west, south-east.
        step = 1 if direction == 0 else stride + ((direction + 1) % 3 - 1)
        for value in range(256):
            marginal[value] = 2 * grey_count[value]
        pairs, seen = count_pairs(
            position, pixels, step, grey, pair_count, pair_seen, marginal, difference_count, sum_count
        )
        if pairs == 0:
            for i in range(NUM_TEXTURE):
                out[i] = math.nan
            return
        doubtful |= direction_features(
            pairs,
            seen,
            largest,
            pair_count,
            pair_seen,
            marginal,
            difference_count,
            sum_count,
            table,
            texture[direction],
        )
    for i in range(FEATURES_PER_DIRECTION):
        total = 0.0
        lowest = math.inf
        highest = -math.inf
        for direction in range(4):
            total += texture[direction, i]
            lowest = min(lowest, texture[direction, i])
            highest = max(highest, texture[direction, i])
        out[2 * i] = total / 4
        out[2 * i + 1] = highest - lowest
    if doubtful:
        out[F13_MEAN] = DOUBTFUL
