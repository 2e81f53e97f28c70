"""Growth rates of files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

WINDOW_SECONDS = 10.0
"""Approximate time over which a rate is averaged [s]."""


@dataclasses.dataclass(slots=True)
class Rate:
    """The growth of one file."""

    since: float
    """Time at which the file was first seen being written, on the monotonic clock [s]."""
    window: list[tuple[float, int]]
    """Times [s] and sizes [bytes] within the averaging window."""

    @property
    def bytes_per_second(self) -> float:
        """Mean growth rate over the window [bytes/s]."""
        (begin, first), (end, last) = self.window[0], self.window[-1]
        return round((last - first) / (end - begin), 1) if end > begin else 0.0

    @property
    def seconds(self) -> float:
        """Time for which the file has been seen being written [s]."""
        return round(self.window[-1][0] - self.since, 1)


class Growth:
    """Tracks the sizes of the files that are being written."""

    def __init__(self) -> None:
        self._rates: dict[str, Rate] = {}

    def rates(self, sizes: Mapping[str, int], now: float) -> Mapping[str, Rate]:
        """Update the sizes and return the rate of each file; files that are not in `sizes` are forgotten.

        Parameters
        ----------
        sizes
            Files that are being written: path → size [bytes].
        now
            Current time on the monotonic clock [s].
        """
        self._rates = {path: self._rates.get(path) or Rate(now, [(now, size)]) for path, size in sizes.items()}
        for path, size in sizes.items():
            window = self._rates[path].window
            window.append((now, size))
            while len(window) > 2 and now - window[1][0] > WINDOW_SECONDS:
                del window[0]
        return self._rates
