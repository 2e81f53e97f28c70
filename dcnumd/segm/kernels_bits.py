"""Frames as packed bits: thresholding, hole filling and morphological opening on 64 pixels at a time.

A bit image of `height` rows and `words` 64-bit words per row is a flat uint64 array. Row `y` starts at word
``(y + 1) * stride``; bit `x % 64` of its word ``x // 64`` is pixel `x`. There is one guard row above and one below,
and ``stride - words`` guard words after each row. Guards are 0 whenever a function returns, so that a shift by one
pixel needs no test for the edge. `tail` has the bits of a row's last word that lie inside the frame.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcnumd.kernels.decorator import kernel, llvm_function

BitArray = npt.NDArray[np.uint64]
"""A bit image (flat uint64)."""

ZERO = np.uint64(0)
ONE = np.uint64(1)
LAST = np.uint64(63)
FULL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


@llvm_function
def trailing_zeros(_typing_context: Any, word: Any) -> Any:  # noqa: ARG001 -- the name is documentation
    """Return the position of the lowest set bit of `word`, which must not be 0."""
    import numba  # noqa: PLC0415 -- it is loaded when it calls this
    from llvmlite import ir  # noqa: PLC0415 -- likewise

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return numba.int64(numba.uint64), generate


@llvm_function
def exceeding_bits(
    _typing_context: Any,
    minuend: Any,
    subtrahend: Any,
    first: Any,  # noqa: ARG001 -- numba passes its value to `generate`
    limit: Any,  # noqa: ARG001 -- likewise
) -> Any:
    """Return a uint64 whose bit `i` says whether ``minuend[first + i] - subtrahend[first + i] > limit``.

    Both arrays are flat uint8 and `limit` is in 0…255. One vector comparison replaces 64 scalar ones; loops do not
    compile to it.
    """
    import numba  # noqa: PLC0415 -- it is loaded when it calls this
    from llvmlite import ir  # noqa: PLC0415 -- likewise

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = ir.VectorType(ir.IntType(8), 64)

        def load(position: int) -> Any:
            array = context.make_array(signature.args[position])(context, builder, arguments[position])
            value = builder.load(builder.bitcast(builder.gep(array.data, [arguments[2]]), lanes.as_pointer()))
            value.align = 1
            return value

        left, right = load(0), load(1)
        none = ir.Constant(lanes, None)
        # the difference of unsigned bytes, 0 where it would be negative
        difference = builder.select(builder.icmp_unsigned(">", left, right), builder.sub(left, right), none)
        single = builder.insert_element(
            ir.Constant(lanes, ir.Undefined), builder.trunc(arguments[3], ir.IntType(8)), ir.IntType(32)(0)
        )
        order = ir.Constant(ir.VectorType(ir.IntType(32), 64), None)
        limits = builder.shuffle_vector(single, single, order)
        return builder.bitcast(builder.icmp_unsigned(">", difference, limits), ir.IntType(64))

    return numba.uint64(minuend, subtrahend, numba.int64, numba.int64), generate


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
                    value = exceeding_bits(background, image, block, -limit - 1)
                else:
                    value = ~exceeding_bits(image, background, block, limit)
                value >>= np.uint64(start - block)
                value &= FULL >> np.uint64(64 - count)
            bits[(y + 1) * stride + word] = value


@kernel
def remove_isolated(bits: BitArray, beside: BitArray, triple: BitArray, height: int, stride: int) -> None:
    """Clear every pixel that has none of its 8 neighbours; the scratch arrays are as large as `bits`."""
    # unsigned indices cannot count from the end of an array; only without that test loops are vectorised
    row, size = np.uint64(stride), np.uint64((height + 2) * stride)
    for i in range(ONE, size - ONE):
        here = bits[i]
        sides = (here << ONE) | (bits[i - ONE] >> LAST) | (here >> ONE) | (bits[i + ONE] << LAST)
        beside[i] = sides
        triple[i] = here | sides
    # the outermost words belong to guard rows
    triple[0] = ZERO
    triple[(height + 2) * stride - 1] = ZERO
    for i in range(row, size - row):
        bits[i] &= beside[i] | triple[i - row] | triple[i + row]


@kernel
def fill_enclosed(bits: BitArray, outside: BitArray, height: int, words: int, stride: int, tail: np.uint64) -> None:
    """Set every pixel that the 4-connected background of row 0 does not reach.

    All of row 0 must be background. `outside` is scratch as large as `bits`. The rows are swept down and up until
    nothing changes; within a word the flood runs upwards by the carry of an addition, and back by doubling shifts.
    """
    for y in range(1, height + 1):
        for at in range(y * stride, (y + 1) * stride):
            covered = FULL if at < y * stride + words - 1 else tail
            # until the end `bits` has the background; the guards stay 0
            bits[at] = ~bits[at] & (covered if at < y * stride + words else ZERO)
            outside[at] = bits[at] if y == 1 else ZERO
    step = 1
    changed = True
    while changed:
        changed = False
        for count in range(1, height):
            row = (1 + count if step > 0 else height - count) * stride
            before = row - step * stride
            fresh = ZERO
            for at in range(row, row + words):
                fresh |= outside[at + before - row] & bits[at] & ~outside[at]
            if fresh == ZERO:
                continue
            changed = True
            entering = ZERO
            for at in range(row, row + words):
                free = bits[at]
                seed = (outside[at] | outside[at + before - row] | entering) & free
                flood = free & (((free + seed) ^ free) | seed)
                outside[at] = flood
                entering = flood >> LAST
            entering = ZERO
            for at in range(row + words - 1, row - 1, -1):
                free = bits[at]
                flood = outside[at] | ((entering << LAST) & free)
                shift = ONE
                while shift <= LAST:
                    flood |= free & (flood >> shift)
                    free &= free >> shift
                    shift <<= ONE
                outside[at] = flood
                entering = flood & ONE
        step = -step
    for y in range(1, height + 1):
        for at in range(y * stride, y * stride + words):
            bits[at] = ~outside[at] & (FULL if at < y * stride + words - 1 else tail)


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

    The scratch arrays are as large as `bits`; ``64 * (stride - words) >= radius`` must hold. An erosion is the
    complement of the dilation of the complement, so that complement and dilation are done twice.
    """
    size = (height + 2) * stride
    for _ in range(2):
        for y in range(height + 2):
            row = y * stride
            inside = 1 <= y <= height
            for word in range(stride):
                covered = ZERO
                if inside and word < words:
                    covered = tail if word == words - 1 else FULL
                scratch_a[row + word] = ~bits[row + word] & covered
        for i in range(size):
            bits[i] = ZERO
        source, spread = scratch_a, scratch_b
        distance = radius
        for reach in range(radius + 1):
            # all rows of the disk that extend by `reach` to either side; they get wider towards the centre
            while distance >= 0 and (reach + 1) * (reach + 1) + distance * distance > radius * radius:
                if distance < height:
                    for shift in (-distance * stride, distance * stride):
                        first = stride - min(shift, 0)
                        behind = size - stride - max(shift, 0)
                        # unsigned numbers wrap around, so that adding a negative shift subtracts
                        for i in range(np.uint64(first), np.uint64(behind)):
                            bits[i] |= source[i + np.uint64(shift)]
                distance -= 1
            if distance < 0:
                break
            for i in range(ONE, np.uint64(size - 1)):
                here = source[i]
                sides = (here << ONE) | (source[i - ONE] >> LAST) | (here >> ONE) | (source[i + ONE] << LAST)
                spread[i] = here | sides
            source, spread = spread, source
    for y in range(1, height + 1):
        row = y * stride
        bits[row + words - 1] &= tail
        for word in range(words, stride):
            bits[row + word] = ZERO
