"""Frames as packed bits: thresholding, hole filling and morphological opening on 64 pixels at a time.

A bit image of `height` rows and `words` 64-bit words per row is a flat uint64 array. Row `y` starts at word
``(y + 1) * stride``; bit `x % 64` of its word ``x // 64`` is pixel `x`. There is one guard row above and one below,
and ``stride - words`` guard words after each row. Guards are 0 whenever a function returns, so that a shift by one
pixel needs no test for the edge. `tail` has the bits of a row's last word that lie inside the frame.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from dcnumd.kernel import kernel

BitArray = npt.NDArray[np.uint64]
"""A bit image (flat uint64)."""

ZERO = np.uint64(0)
ONE = np.uint64(1)
LAST = np.uint64(63)
FULL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


@intrinsic
def trailing_zeros(_typing_context: Any, word: Any) -> Any:
    """Return the position of the lowest set bit of `word`, which must not be 0."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return numba.int64(numba.uint64), generate


@intrinsic
def exceeding_bits(_typing_context: Any, minuend: Any, subtrahend: Any, first: Any, other: Any, limit: Any) -> Any:
    """Return a uint64 whose bit `i` says whether ``minuend[first + i] - subtrahend[other + i] > limit``.

    Both arrays are flat uint8 and `limit` is in 0…255. One vector comparison replaces 64 scalar ones; numba's
    loops do not compile to it, packing the bits from a byte mask took four times as long.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = ir.VectorType(ir.IntType(8), 64)

        def load(position: int, offset: Any) -> Any:
            array = context.make_array(signature.args[position])(context, builder, arguments[position])
            value = builder.load(cgutils.pointer_add(builder, array.data, offset, lanes.as_pointer()))
            value.align = 1
            return value

        left, right = load(0, arguments[2]), load(1, arguments[3])
        none = ir.Constant(lanes, None)
        # the difference of unsigned bytes, 0 where it would be negative
        difference = builder.select(builder.icmp_unsigned(">", left, right), builder.sub(left, right), none)
        single = builder.insert_element(
            ir.Constant(lanes, ir.Undefined), builder.trunc(arguments[4], ir.IntType(8)), ir.IntType(32)(0)
        )
        order = ir.Constant(ir.VectorType(ir.IntType(32), 64), None)
        limits = builder.shuffle_vector(single, single, order)
        return builder.bitcast(builder.icmp_unsigned(">", difference, limits), ir.IntType(64))

    return numba.uint64(minuend, subtrahend, numba.int64, numba.int64, numba.int64), generate


@kernel
def pack_row_end(width: int) -> np.uint64:
    """Return the bits of a row's last word that are pixels, for rows of `width` pixels."""
    return FULL >> np.uint64((64 - width % 64) % 64)


@kernel
def pack_below(
    image: npt.NDArray[np.uint8],
    background: npt.NDArray[np.uint8],
    limit: int,
    height: int,
    width: int,
    stride: int,
    bits: BitArray,
) -> None:
    """Set the bits of all pixels with ``image - background <= limit``, for flat uint8 frames."""
    pixels = height * width
    words = (width + 63) // 64
    for y in range(height):
        for word in range(words):
            start = y * width + 64 * word
            count = min(64, width - 64 * word)
            if pixels < 64:
                value = ZERO
                for bit in range(count):
                    if np.int64(image[start + bit]) - np.int64(background[start + bit]) <= limit:
                        value |= ONE << np.uint64(bit)
            else:
                # at the end of the frame an earlier block is loaded and its surplus shifted out
                block = min(start, pixels - 64)
                if limit < 0:
                    value = exceeding_bits(background, image, block, block, -limit - 1)
                else:
                    value = ~exceeding_bits(image, background, block, block, limit)
                value >>= np.uint64(start - block)
                value &= FULL >> np.uint64(64 - count)
            bits[(y + 1) * stride + word] = value


@kernel
def remove_isolated(bits: BitArray, beside: BitArray, triple: BitArray, height: int, stride: int) -> None:
    """Clear every pixel that has none of its 8 neighbours; the scratch arrays are as large as `bits`."""
    size = (height + 2) * stride
    centre, left, right = bits[1 : size - 1], bits[: size - 2], bits[2:size]
    beside_inner, triple_inner = beside[1 : size - 1], triple[1 : size - 1]
    for i in range(size - 2):
        here = centre[i]
        sides = (here << ONE) | (left[i] >> LAST) | (here >> ONE) | (right[i] << LAST)
        beside_inner[i] = sides
        triple_inner[i] = here | sides
    count = height * stride
    rows = bits[stride : stride + count]
    beside_rows = beside[stride : stride + count]
    above, below = triple[:count], triple[2 * stride : 2 * stride + count]
    # the outermost words belong to guard rows, which the loop above leaves out
    triple[0] = ZERO
    triple[size - 1] = ZERO
    for i in range(count):
        rows[i] &= beside_rows[i] | above[i] | below[i]


@kernel
def fill_enclosed(
    bits: BitArray, outside: BitArray, height: int, words: int, stride: int, tail: np.uint64
) -> None:
    """Set every pixel that the 4-connected background of row 0 does not reach.

    All of row 0 must be background. `outside` is scratch as large as `bits`. The rows are swept down and up until
    nothing changes; within a row the flood runs along a word by the carry of an addition, and back by doubling shifts.
    """
    last = words - 1
    for word in range(stride):
        outside[stride + word] = ZERO
    for word in range(words):
        outside[stride + word] = tail if word == last else FULL
    for at in range(2 * stride, (height + 1) * stride):
        outside[at] = ZERO
    step = 1
    changed = True
    while changed:
        changed = False
        y = 2 if step == 1 else height - 1
        while 1 <= y <= height:
            row = y * stride
            before = row - step * stride
            fresh = ZERO
            for word in range(words):
                fresh |= outside[before + word] & ~(bits[row + word] | outside[row + word]) & (
                    tail if word == last else FULL
                )
            if fresh != ZERO:
                changed = True
                entering = ZERO
                for word in range(words):
                    open_ = ~bits[row + word] & (tail if word == last else FULL)
                    seed = (outside[row + word] | outside[before + word] | entering) & open_
                    flood = open_ & (((open_ + seed) ^ open_) | seed)
                    outside[row + word] = flood
                    entering = flood >> LAST
                entering = ZERO
                for word in range(words - 1, -1, -1):
                    open_ = ~bits[row + word] & (tail if word == last else FULL)
                    flood = outside[row + word] | ((entering << LAST) & open_)
                    shift = ONE
                    while shift < np.uint64(64):
                        flood |= open_ & (flood >> shift)
                        open_ &= open_ >> shift
                        shift <<= ONE
                    outside[row + word] = flood
                    entering = flood & ONE
            y += step
        step = -step
    for y in range(1, height + 1):
        row = y * stride
        for word in range(words):
            bits[row + word] = ~outside[row + word] & (tail if word == last else FULL)


@kernel
def half_chord(radius: int, distance: int) -> int:
    """Return how far a disk reaches to either side in the row `distance` away from its centre."""
    reach = 0
    while (reach + 1) * (reach + 1) + distance * distance <= radius * radius:
        reach += 1
    return reach


@kernel
def spread(bits: BitArray, result: BitArray, size: int, common: bool) -> None:
    """Write to `result` the intersection (`common`) or the union of each pixel and its left and right neighbours."""
    centre, left, right = bits[1 : size - 1], bits[: size - 2], bits[2:size]
    target = result[1 : size - 1]
    # De Morgan: the intersection is the complement of the union of complements
    flip = FULL if common else ZERO
    for i in range(size - 2):
        here = centre[i] ^ flip
        sides = (here << ONE) | ((left[i] ^ flip) >> LAST) | (here >> ONE) | ((right[i] ^ flip) << LAST)
        target[i] = (here | sides) ^ flip
    result[0] = flip
    result[size - 1] = flip


@kernel
def gather_disk(
    source: BitArray,
    target: BitArray,
    spare: BitArray,
    height: int,
    words: int,
    stride: int,
    radius: int,
    common: bool,
) -> None:
    """Erode (`common`) or dilate `source` by a disk into `target`; rows outside the image take no part.

    `source` and `spare` are overwritten. The guard words must already hold what lies beside the image: 1 for an
    erosion, 0 for a dilation; they have to be as wide as the disk's radius.
    """
    size = (height + 2) * stride
    for at in range(size):
        target[at] = FULL if common else ZERO
    distance = radius
    for reach in range(radius + 1):
        while distance >= 0 and half_chord(radius, distance) == reach:
            for sign in range(-1, 2, 2):
                shift = sign * distance
                for y in range(1 + max(0, -shift), height + 1 - max(0, shift)):
                    row, other = y * stride, (y + shift) * stride
                    for word in range(words):
                        if common:
                            target[row + word] &= source[other + word]
                        else:
                            target[row + word] |= source[other + word]
            distance -= 1
        if reach < radius:
            spread(source, spare, size, common)
            source, spare = spare, source


@kernel
def open_disk(
    bits: BitArray,
    scratch_a: BitArray,
    scratch_b: BitArray,
    height: int,
    words: int,
    stride: int,
    tail: np.uint64,
    radius: int,
) -> None:
    """Erode and dilate `bits` by the disk ``x² + y² <= radius²``; outside the image neither erodes nor dilates.

    The scratch arrays are as large as `bits`; ``64 * (stride - words) >= radius`` must hold.
    """
    size = (height + 2) * stride
    for y in range(height + 2):
        row = y * stride
        bits[row + words - 1] |= ~tail
        for word in range(words, stride):
            bits[row + word] = FULL
    gather_disk(bits, scratch_a, scratch_b, height, words, stride, radius, True)
    for y in range(height + 2):
        row = y * stride
        inside = 1 <= y <= height
        for word in range(stride):
            if not inside or word >= words:
                scratch_a[row + word] = ZERO
        scratch_a[row + words - 1] &= tail
    gather_disk(scratch_a, bits, scratch_b, height, words, stride, radius, False)
    for y in range(height + 2):
        row = y * stride
        bits[row + words - 1] &= tail
        for word in range(words, stride):
            bits[row + word] = ZERO
    for at in range(stride):
        bits[at] = ZERO
        bits[size - 1 - at] = ZERO
