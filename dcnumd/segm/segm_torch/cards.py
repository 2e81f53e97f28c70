"""Networks on a graphics card: batches as large as its memory takes, and computing while the next one is prepared.

What a card does is behind `Card`, so that tests can do without one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dcnumd.errors import WorkerError

FIRST_BATCH = 50
"""Number of frames in the first batch, which tells how much memory a frame takes; any card takes as many."""
SHARE_OF_FREE_BYTES = 0.8
"""Part of the free memory of a card that batches may take."""


class Card(Protocol):
    """Computes on a graphics card."""

    def launch(self, batch: npt.NDArray[Any]) -> Any:
        """Copy a batch to the card, and start to compute; return a handle before it is done."""

    def fetch(self, handle: Any) -> npt.NDArray[Any]:
        """Wait until a batch is done, and return the output."""

    def bytes_used(self) -> int:
        """Return the largest memory that batches took so far [bytes]."""

    def bytes_free(self) -> int:
        """Return the memory that is free, or that earlier batches took [bytes]."""

    def release(self) -> None:
        """Free the memory of earlier batches."""


class CardRunner:
    """Runs a network on a card, in batches.

    Parameters
    ----------
    card
        The card.
    batch_size
        Number of frames in each batch; 0 for as many as the memory takes.
    is_filled
        Whether shorter batches are filled with zeros, because the network is compiled for each number of frames.

    Attributes
    ----------
    batch_size : int
        Number of frames in a batch; 0 until the first batch is done. It is halved when the memory is exhausted.
    """

    def __init__(self, card: Card, batch_size: int = 0, *, is_filled: bool = False) -> None:
        self._card = card
        self.batch_size = batch_size
        self._is_filled = is_filled

    def run(
        self, number: int, prepare: Callable[[int, int], npt.NDArray[Any]]
    ) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Yield the number of the first frame of each batch, and the output.

        Parameters
        ----------
        number
            Number of frames.
        prepare
            Returns the input of the network for the frames ``start … stop - 1``. It is called while the card computes
            the batch before.

        Raises
        ------
        WorkerError
            Reason ``memory``: the memory of the card is too small for a single frame; or another error of the network.
        """
        start = 0
        while start < number:
            try:
                for start_of_batch, output in self._run_from(start, number, prepare):
                    start = start_of_batch + len(output)
                    yield start_of_batch, output
            except WorkerError as error:
                size = self.batch_size or FIRST_BATCH
                if error.reason != "memory" or size == 1:
                    raise
                self._card.release()
                self.batch_size = max(size // 2, 1)

    def _run_from(
        self, start: int, number: int, prepare: Callable[[int, int], npt.NDArray[Any]]
    ) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        if not self.batch_size:
            stop = min(start + FIRST_BATCH, number)
            batch = self._filled(prepare(start, stop), FIRST_BATCH)
            yield start, self._card.fetch(self._card.launch(batch))[: stop - start]
            bytes_of_frame = max(self._card.bytes_used() // len(batch), 1)
            # two batches are on the card at the same time
            fitting = int(SHARE_OF_FREE_BYTES * self._card.bytes_free()) // (2 * bytes_of_frame)
            self.batch_size = max(fitting, FIRST_BATCH)
            start = stop
        running: tuple[int, int, Any] | None = None
        for first in range(start, number, self.batch_size):
            stop = min(first + self.batch_size, number)
            batch = self._filled(prepare(first, stop), self.batch_size)
            launched = first, stop, self._card.launch(batch)
            if running is not None:
                yield self._fetched(*running)
            running = launched
        if running is not None:
            yield self._fetched(*running)

    def _fetched(self, start: int, stop: int, handle: Any) -> tuple[int, npt.NDArray[Any]]:
        return start, self._card.fetch(handle)[: stop - start]

    def _filled(self, batch: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
        if not self._is_filled or len(batch) == size:
            return batch
        return np.concatenate([batch, np.zeros((size - len(batch), *batch.shape[1:]), batch.dtype)])
