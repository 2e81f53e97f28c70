"""HDF5's fletcher32 checksum."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dcnumd.kernels.decorator import kernel


@kernel
def fletcher32(data: npt.NDArray[np.uint8]) -> np.uint64:
    """Return the checksum that HDF5's filter 3 stores for `data` (uint8, C-contiguous, 1-D, writable).

    Fletcher (1982), "An arithmetic checksum for serial transmissions", doi:10.1109/TCOM.1982.1095369, on big-endian
    16-bit words, an odd last byte being padded with zero. Both sums are taken modulo 65535, where HDF5 writes
    65535 for 0 unless everything was zero.

    The sums are formed for little-endian words and swapped at the end: swapping the bytes of a word is a
    multiplication by 256 modulo 65535. Within a block the second sum is a weighted sum, which vectorises.
    """
    block = 32768
    words = data[: data.size // 2 * 2].view(np.uint16)
    modulus = np.uint64(65535)
    first = np.uint64(0)
    second = np.uint64(0)
    nonzero = np.uint64(0)
    start = 0
    while start < words.size:
        part = words[start : start + block]
        weight = np.uint64(part.size)
        sum_words = np.uint64(0)
        sum_weighted = np.uint64(0)
        for i in range(part.size):
            word = np.uint64(part[i])
            sum_words += word
            sum_weighted += word * (weight - np.uint64(i))
        nonzero |= sum_words
        second = (second + first * weight + sum_weighted) % modulus
        first = (first + sum_words) % modulus
        start += block
    if data.size % 2:
        last = np.uint64(data[data.size - 1])
        nonzero |= last
        first = (first + last) % modulus
        second = (second + first) % modulus
    first = first * np.uint64(256) % modulus
    second = second * np.uint64(256) % modulus
    if nonzero != 0:
        first = modulus if first == 0 else first
        second = modulus if second == 0 else second
    return np.uint64(second << np.uint64(16) | first)
