"""How fast files grow."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

WINDOW_SECONDS = 10.0
"""Time over which a rate is averaged, about [s]."""


@dataclasses.dataclass(slots=True)
class Rate:
    """How fast a file grows."""

    since: float
    """When it was seen first, on the monotonic clock."""
    window: list[tuple[float, int]]
    """Times and sizes, from the beginning of the window on."""

    @property
    def bytes_per_second(self) -> float:
        """Mean over the window [bytes/s]."""
        (begin, first), (end, last) = self.window[0], self.window[-1]
        return round((last - first) / (end - begin), 1) if end > begin else 0.0

    @property
    def seconds(self) -> float:
        """For how long it has been seen growing [s]."""
        return round(self.window[-1][0] - self.since, 1)


class Growth:
    """Remembers the sizes of files that are being written, and forgets those that are not any more."""

    def __init__(self) -> None:
        self._rates: dict[str, Rate] = {}

    def rates(self, sizes: Mapping[str, int], now: float) -> Mapping[str, Rate]:
        """Return the rates of all files that are being written.

        Parameters
        ----------
        sizes
            Path → size [bytes].
        now
            Time on the monotonic clock [s].
        """
        self._rates = {path: self._rates.get(path) or Rate(now, [(now, size)]) for path, size in sizes.items()}
        for path, size in sizes.items():
            window = self._rates[path].window
            window.append((now, size))
            while len(window) > 2 and now - window[1][0] > WINDOW_SECONDS:
                del window[0]
        return self._rates
