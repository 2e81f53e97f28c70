"""Configuration of logging, with one line per event on stderr; the supervisor and each child call `configure`."""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import json
import logging
import os
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, TextIO, cast

import structlog

from dcnumd.config.values import LogSettings
from dcnumd.daemon.line_writer import LineWriter, append, takes_more, write_all

MAX_TEXT = 2000
"""Longest text value in a line [characters]; journald and others truncate long lines, which breaks JSON."""
MAX_LINE = 16 * 1024
"""Longest line [bytes]."""
FIRST_KEYS = ("event", "timestamp", "level", "path", "job_id")
"""Keys with which a JSON line begins, in this order."""
LAST_KEYS = ("ppid", "pphash")
"""Keys with which a JSON line ends, in this order; a pipeline ID is long, and equal for most measurements."""
JOURNAL_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""Priority of each level in the journal; see sd-daemon(3)."""
QUIET_LOGGERS = ("PIL", "fontTools", "matplotlib.font_manager")
"""Loggers of libraries, with all below them, whose warnings (fonts are indexed) are logged at the level ``debug``."""
TIME_STAMPER = structlog.processors.TimeStamper(fmt="iso", utc=True)

EventDict = MutableMapping[str, Any]
Render = Callable[[Any, str, EventDict], str]

STDERR = 2
"""File descriptor of stderr."""
_writers: dict[str, LineWriter] = {}
"""The writers in use by the path of their file; the one for stderr has an empty path."""


def configure(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Configure logging.

    Parameters
    ----------
    settings
        Level, format and an optional file.
    stream
        Stream to which lines are written synchronously. By default a thread writes them to stderr.
    """
    shown = stream or sys.stderr
    # If the process was started without stderr, another file may have its descriptor.
    is_terminal = shown is not None and shown.isatty()
    as_json = settings.format == "json" or (settings.format == "auto" and not is_terminal)
    render: Render = _render if as_json else structlog.dev.ConsoleRenderer(colors=is_terminal)
    if stream is None and _is_journal(STDERR):
        render = functools.partial(_with_priority, render)
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        TIME_STAMPER,
    ]
    exceptions = [structlog.processors.format_exc_info, _shorten]
    used = dict[str, LineWriter]()
    if settings.file is not None:
        # If the folder cannot be created, all lines still go to stderr.
        with contextlib.suppress(OSError):
            settings.file.parent.mkdir(parents=True, exist_ok=True)
        path = os.fspath(settings.file)
        used[path] = _writer(path, functools.partial(append, path), _render)
        processors += [*exceptions, _FileCopy(used[path])]
    if as_json:
        processors += exceptions
    if stream is None:
        used[""] = _writer("", functools.partial(write_all, STDERR if shown is not None else -1), render)
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    structlog.configure(
        processors=[*processors, render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(
            file=cast("TextIO", _LineStream(stream) if stream is not None else _QueuedStream(used[""]))
        ),
        cache_logger_on_first_use=False,
    )
    _forward_standard_logging(level)
    for name in _writers.keys() - used.keys():
        _writers.pop(name).close()


def flush() -> None:
    """Wait until all log lines are written, or a time limit is exceeded.

    If stderr is blocked, redirect it to /dev/null, so that later output to it does not block the exit of the process.
    """
    for name, writer in list(_writers.items()):
        taken = writer.flush()
        if not taken:
            # Do not wait for this writer again.
            del _writers[name]
        if not name and not (taken and takes_more(STDERR)):
            os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), STDERR)


atexit.register(flush)


def _begin_in_copy() -> None:
    for writer in _writers.values():
        writer.begin()


os.register_at_fork(after_in_child=_begin_in_copy)


def _writer(name: str, write: Callable[[bytes], None], render: Render) -> LineWriter:
    """Return the writer for a file or, if `name` is empty, for stderr; create it if there is none."""
    loss_line = functools.partial(_loss_line, render)
    if name not in _writers:
        _writers[name] = LineWriter(f"log {name or 'stderr'}", write, loss_line)
    _writers[name].loss_line = loss_line
    return _writers[name]


def _loss_line(render: Render, number: int) -> bytes:
    event = TIME_STAMPER(None, "", {"event": "log.lost", "level": "warning", "lines": number})
    return _encoded(render(None, "", event))


class _LineStream(io.TextIOBase):
    """Writes and flushes each line at once, so that lines of several processes are not interleaved."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        # A closed pipe or a full disk must not end the program.
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()
        return len(text)


class _QueuedStream(io.TextIOBase):
    """Passes each line to a writer."""

    def __init__(self, writer: LineWriter) -> None:
        self._writer = writer

    def write(self, text: str) -> int:
        self._writer.put(_encoded(text.removesuffix("\n")))
        return len(text)


class _FileCopy:
    """Processor that passes each event as a JSON line to the writer of a file, and returns the event unchanged."""

    def __init__(self, writer: LineWriter) -> None:
        self._writer = writer

    def __call__(self, _logger: Any, _name: str, event: EventDict) -> EventDict:
        self._writer.put(_encoded(_json_line(event)))
        return event


def _encoded(line: str) -> bytes:
    # File names need not be valid UTF-8, and not every terminal uses UTF-8.
    encoding = sys.stderr.encoding if sys.stderr is not None else "utf-8"
    return f"{line}\n".encode(encoding, "backslashreplace")


def _shorten(_logger: Any, _name: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        if isinstance(value, str) and len(value) > MAX_TEXT:
            event[key] = f"{value[: MAX_TEXT // 2]} … {value[-MAX_TEXT // 2 :]}"
    return event


def _render(_logger: Any, _name: str, event: EventDict) -> str:
    return _json_line(event)


def _json_line(event: EventDict) -> str:
    # ASCII only: file names with invalid UTF-8 or line breaks must still give one valid line.
    line = json.dumps(_ordered(event), default=str, ensure_ascii=True)
    if len(line) < MAX_LINE:
        return line
    kept = {key: event[key] for key in ("event", "timestamp", "level", "job_id") if key in event}
    return json.dumps({**kept, "shortened_from": len(line)}, default=str)


def _ordered(event: EventDict) -> dict[str, Any]:
    """Return an event with its keys in the order of the line."""
    first, last = ({key: event[key] for key in keys if key in event} for keys in (FIRST_KEYS, LAST_KEYS))
    # A key that exists already keeps its position in an update, so the last keys must be left out before.
    return {**first, **{key: value for key, value in event.items() if key not in last}, **last}


def _with_priority(render: Render, logger: Any, name: str, event: EventDict) -> str:
    """Render an event with its priority before each line, which the journal removes and stores; see sd-daemon(3)."""
    prefix = f"<{JOURNAL_PRIORITIES.get(event.get('level', 'info'), 6)}>"
    return prefix + render(logger, name, event).replace("\n", f"\n{prefix}")


def _is_journal(descriptor: int) -> bool:
    """Return whether systemd has connected a file descriptor to the journal; see systemd.exec(5), JOURNAL_STREAM."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class _Forward(logging.Handler):
    """Forwards records of standard logging to structlog.

    The numerical modules of dcnumd use standard logging; their records have an attribute ``fields``, which contains the
    name and the values of the event.
    """

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        fields = getattr(record, "fields", {"event": "log.message", "logger": record.name})
        is_quiet = any(f"{record.name}.".startswith(f"{name}.") for name in QUIET_LOGGERS)
        level = logging.DEBUG if is_quiet else record.levelno
        log.log(level, **fields, message=record.getMessage(), exc_info=record.exc_info)


def _forward_standard_logging(level: int) -> None:
    root = logging.getLogger()
    root.handlers[:] = [_Forward()]
    root.setLevel(max(level, logging.WARNING))
    logging.captureWarnings(capture=True)
