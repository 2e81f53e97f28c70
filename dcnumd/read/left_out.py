"""Parts of a measurement that are only copied: those that cannot be copied are left out of the result."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

from dcnumd.errors import MeasurementError
from dcnumd.read.open_file import is_grave


class LeftOutWarning(UserWarning):
    """A part of the measurement is not in the result, or not as it was."""


def warn_left_out(problem: str, consequence: str = "it is left out of the result") -> None:
    """Warn that a part of a measurement is left out of the result; the run's log contains the warning."""
    warnings.warn(f"{problem}; {consequence}", LeftOutWarning, stacklevel=2)


@contextlib.contextmanager
def doing_without() -> Iterator[None]:
    """Turn errors of the part that the block copies into warnings.

    Raises
    ------
    MeasurementError
        The part is in a file that must not be read, or is temporarily unreadable.
    """
    try:
        yield
    except MeasurementError as error:
        if is_grave(error):
            raise
        warn_left_out(error.message)
