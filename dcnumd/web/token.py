"""The right to change something: the token for scripts, and sessions for browsers that have sent it."""

from __future__ import annotations

import contextlib
import dataclasses
import hmac
import os
import pathlib
import secrets
import stat
import time

from dcnumd.errors import ConfigError

MIN_LENGTH = 16
MAX_BYTES = 4096
SESSION_SECONDS = 12 * 3600.0
"""Duration of a session, a working day [s]."""
MAX_SESSIONS = 100


def read_token(path: pathlib.Path) -> str:
    """Return the token in a file.

    Raises
    ------
    ConfigError
        If the file cannot be read, other users have access to it, or it does not hold one token that is long enough.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"web.token_file: {path}: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode) or len(content) > MAX_BYTES:
        raise ConfigError(f"web.token_file: {path} is not a file with one token")
    if status.st_mode & stat.S_IRWXO:
        raise ConfigError(f"web.token_file: {path} is open to every user of this computer; chmod o= {path}")
    with contextlib.suppress(UnicodeDecodeError):
        token = content.decode("ascii").strip()
        if len(token) >= MIN_LENGTH and token.isprintable() and " " not in token:
            return token
    raise ConfigError(
        f"web.token_file: {path} must hold one token of at least {MIN_LENGTH} letters and digits, as "
        "'openssl rand -hex 32' makes them"
    )


@dataclasses.dataclass(slots=True)
class Session:
    """The session of a browser that has sent the token."""

    ends: float
    """Time on the monotonic clock when the session ends [s]."""
    said: str = ""
    """Message to show once, on the next page."""


class Keys:
    """Checks tokens, and keeps the sessions of browsers.

    Parameters
    ----------
    token
        The token; None if nothing may be changed.
    """

    def __init__(self, token: str | None) -> None:
        self._token = token
        self._sessions: dict[str, Session] = {}

    @property
    def exist(self) -> bool:
        """Whether there is a token."""
        return self._token is not None

    def fits(self, token: str) -> bool:
        """Return whether this is the token."""
        return self._token is not None and hmac.compare_digest(token.encode("utf-8", "replace"), self._token.encode())

    def begin(self) -> str:
        """Begin a session, and return the value of its cookie."""
        self._drop_old()
        while len(self._sessions) >= MAX_SESSIONS:
            self._sessions.pop(next(iter(self._sessions)))
        value = secrets.token_urlsafe(32)
        self._sessions[value] = Session(time.monotonic() + SESSION_SECONDS)
        return value

    def session(self, value: str) -> Session | None:
        """Return the session with this value of the cookie; None if there is none."""
        self._drop_old()
        shown = value.encode("utf-8", "replace")
        found = [session for name, session in self._sessions.items() if hmac.compare_digest(name.encode(), shown)]
        return found[0] if found else None

    def end(self, value: str) -> None:
        """End the session with this value of the cookie."""
        self._sessions.pop(value, None)

    def _drop_old(self) -> None:
        now = time.monotonic()
        for value in [value for value, session in self._sessions.items() if session.ends <= now]:
            del self._sessions[value]
