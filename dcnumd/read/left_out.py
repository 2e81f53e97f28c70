"""Parts of a measurement that nothing is computed with: a result does without those that cannot be taken over."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

from dcnumd.errors import MeasurementError
from dcnumd.read.open_file import is_grave


class LeftOutWarning(UserWarning):
    """A part of the measurement is not in the result, or not as it was."""


def warn_left_out(problem: str, consequence: str = "it is left out of the result") -> None:
    """Warn of a part of a measurement that the result does without; the run's log tells it."""
    warnings.warn(f"{problem}; {consequence}", LeftOutWarning, stacklevel=2)


@contextlib.contextmanager
def doing_without() -> Iterator[None]:
    """Turn a fault of what is taken over in the block into a warning.

    Raises
    ------
    MeasurementError
        The part leads elsewhere, or may be in order another time.
    """
    try:
        yield
    except MeasurementError as error:
        if is_grave(error):
            raise
        warn_left_out(error.message)
