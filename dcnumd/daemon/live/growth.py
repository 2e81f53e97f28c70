"""Growth rates of files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

WINDOW_SECONDS = 10.0
"""Approximate time over which a rate is averaged [s]."""
REST_SECONDS = 3.0
"""Time without a change of size after which a file is at rest [s]."""


@dataclasses.dataclass(slots=True)
class Rate:
    """The growth of one file."""

    since: float
    """Time at which the file was first seen being written, on the monotonic clock [s]."""
    window: list[tuple[float, int]]
    """Times [s] and sizes [bytes] within the averaging window."""
    changed: float
    """Time at which the size was first seen to be what it is now [s]."""

    @property
    def bytes_per_second(self) -> float | None:
        """Mean growth rate over the window [bytes/s]; None if the file is at rest, or was seen at one time only."""
        (begin, first), (end, last) = self.window[0], self.window[-1]
        if last <= first or end <= begin or end - self.changed > REST_SECONDS:
            return None
        return round((last - first) / (end - begin), 1)

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
        self._rates = {path: self._rates.get(path) or Rate(now, [(now, size)], now) for path, size in sizes.items()}
        for path, size in sizes.items():
            rate = self._rates[path]
            window = rate.window
            if size != window[-1][1]:
                rate.changed = now
            window.append((now, size))
            while len(window) > 2 and now - window[1][0] > WINDOW_SECONDS:
                del window[0]
        return self._rates
