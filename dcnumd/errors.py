"""The exceptions of dcnumd; their messages say what is wrong, where, what was found and what was expected.

They are pickled and passed between processes, so each contains all of its data in its arguments.
"""

from __future__ import annotations

from dcnumd.reasons import is_transient

MAX_MESSAGE = 2000
"""Largest length of a message [characters]; names in a file may be far longer, and journald breaks long lines."""


class DcnumdError(Exception):
    """Base class of all expected errors; any other exception is a bug.

    Parameters
    ----------
    message
        One line for the operator: what is wrong, where, what was found and what was expected.
    reason
        Stable code for logs and the ledger, one of `dcnumd.reasons.CATALOGUE`.
    transient
        Whether the same attempt may succeed later without a change of the input. By default `reason` determines it;
        pass it only for a reason whose entry in the catalogue leaves it open.
    """

    default_reason = "error"

    def __init__(self, message: str, reason: str | None = None, *, transient: bool | None = None) -> None:
        message = _limited(message)
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.transient = is_transient(self.reason) if transient is None else transient

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.reason, self.transient)


def printable(text: str) -> str:
    """Return `text` with unprintable characters escaped: names in files must not break lines or affect the terminal."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _limited(message: str) -> str:
    message = printable(message)
    return message if len(message) <= MAX_MESSAGE else f"{message[:MAX_MESSAGE]} …"


def _rebuild(kind: type[DcnumdError], message: str, reason: str, transient: bool) -> DcnumdError:
    return kind(message, reason, transient=transient)


class ConfigError(DcnumdError, ValueError):
    """A setting is wrong; the message contains file, key, problem and what is allowed."""

    default_reason = "config"


class MethodError(ConfigError):
    """A segmenter, background or keyword does not exist or does not fit."""

    default_reason = "method"


class ModelError(MethodError):
    """The file of a model for segmentation is missing, damaged or of no use here."""

    default_reason = "model_damaged"


class MeasurementError(DcnumdError):
    """An input file cannot be processed."""

    default_reason = "input"


class FramesError(MeasurementError, ValueError):
    """The number, the type or the shape of frames does not suit a method."""


class ResultError(DcnumdError):
    """A result cannot be written or is not correct."""

    default_reason = "output"


class WorkerError(DcnumdError):
    """A worker process failed or died."""

    default_reason = "worker"


class JobCancelledError(DcnumdError):
    """A job was asked to stop before it had finished."""

    default_reason = "cancelled"
