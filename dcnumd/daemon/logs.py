"""Set-up of the logs: one line, one event, to stderr; the supervisor and each child call `configure`."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO, cast

import structlog

from dcnumd.config import LogSettings

MAX_TEXT = 2000
"""Longest text value in a line [characters]: journald and others cut lines, which breaks JSON."""
MAX_LINE = 16 * 1024
"""Longest line [bytes]."""

EventDict = MutableMapping[str, Any]


def configure(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Log as `settings` say.

    Parameters
    ----------
    settings
        Level, format and an optional file.
    stream
        Where the lines go; stderr by default.
    """
    stream = stream or sys.stderr
    as_json = settings.format == "json" or (settings.format == "auto" and not stream.isatty())
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    exceptions = [structlog.processors.format_exc_info, _shorten]
    if settings.file is not None:
        # where that is not possible, stderr still has everything
        with contextlib.suppress(OSError):
            settings.file.parent.mkdir(parents=True, exist_ok=True)
        processors += [*exceptions, _FileCopy(os.fspath(settings.file))]
    if as_json:
        processors += [*exceptions, _render]
    else:
        processors.append(structlog.dev.ConsoleRenderer(colors=stream.isatty()))
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _LineStream(stream))),
        cache_logger_on_first_use=False,
    )
    _forward_standard_logging(level)


class _LineStream(io.TextIOBase):
    """Writes each line at once, so that lines of several processes do not mix."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        # A closed pipe or a full disk behind stderr must not end the work.
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()
        return len(text)


class _FileCopy:
    """Appends each event as a JSON line to a file, on its way to the screen."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __call__(self, _logger: Any, _name: str, event: EventDict) -> EventDict:
        line = _json_line(event).encode() + b"\n"
        # The file is opened each time: log rotation moves it away, and a full disk may get room again.
        with contextlib.suppress(OSError):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                os.write(descriptor, line)
            finally:
                os.close(descriptor)
        return event


def _shorten(_logger: Any, _name: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        if isinstance(value, str) and len(value) > MAX_TEXT:
            event[key] = f"{value[: MAX_TEXT // 2]} … {value[-MAX_TEXT // 2 :]}"
    return event


def _render(_logger: Any, _name: str, event: EventDict) -> str:
    return _json_line(event)


def _json_line(event: EventDict) -> str:
    # ASCII only, so that names that are not UTF-8, and names with line breaks, stay one sound line.
    line = json.dumps(dict(event), default=str, ensure_ascii=True)
    if len(line) < MAX_LINE:
        return line
    kept = {key: event[key] for key in ("event", "level", "timestamp", "job_id") if key in event}
    return json.dumps({**kept, "shortened_from": len(line)}, default=str)


class _Forward(logging.Handler):
    """Brings what libraries log into the same stream and form.

    The numerical modules know standard logging only; a record with the attribute ``fields`` is an event of ours, named
    by ``fields["event"]``.
    """

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        fields = getattr(record, "fields", {"event": "log.message", "logger": record.name})
        log.log(record.levelno, **fields, message=record.getMessage(), exc_info=record.exc_info)


def _forward_standard_logging(level: int) -> None:
    root = logging.getLogger()
    root.handlers[:] = [_Forward()]
    root.setLevel(max(level, logging.WARNING))
    logging.captureWarnings(capture=True)
