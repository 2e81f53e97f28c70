"""Notification of systemd about readiness, status and liveness of the daemon; see sd_notify(3).

Without systemd, or if its socket is missing or full, notifications are dropped silently.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, MutableMapping
from typing import Self

import structlog

from dcnumd.daemon.clock import now

log = structlog.get_logger()

SEND_SECONDS = 0.5
"""Longest time that a notification may block the event loop [s]."""
STATUS_SECONDS = 1.0
"""Shortest time between two status lines [s]; with a cluster, there may be a hundred changes a second."""
PINGS_PER_TIMEOUT = 3
"""Number of watchdog messages per watchdog timeout."""
CHECKS_PER_PING = 4
"""Divisor of the pause between watchdog messages after the event loop was late.

The loop counts as alive again when it has been punctual for that shorter pause."""


class Notifier:
    """Sends notifications to the service manager.

    Parameters
    ----------
    address
        Path of the service manager's socket, or ``@`` and a name in the abstract namespace; None sends nothing.
    watchdog_seconds
        Watchdog timeout of the service manager [s]; None if it has no watchdog.
    """

    def __init__(self, address: str | None = None, watchdog_seconds: float | None = None) -> None:
        self._address = address
        self.watchdog_seconds = watchdog_seconds
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] = os.environ) -> Self:
        """Return a notifier for the variables of the service manager, and remove them from the environment.

        They are removed so that child processes do not send notifications.
        """
        address = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        asked = environment.pop("WATCHDOG_PID", None) or str(os.getpid())
        is_ours = asked == str(os.getpid()) and microseconds.isascii() and microseconds.isdigit()
        seconds = int(microseconds) / 1e6 if is_ours else 0.0
        return cls(address if address.startswith(("/", "@")) else None, seconds or None)

    def ready(self) -> None:
        """Notify that the service is ready, or has finished reloading its config."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Notify that the config is being reloaded; call `ready` afterwards, even if the reload fails."""
        # systemd 253 and newer need the time to distinguish this reload from an earlier one.
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={microseconds}")

    def stopping(self) -> None:
        """Notify that the service is about to end."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Set the status line that `systemctl status` shows."""
        # File names may contain line breaks; the text after one would be interpreted as another assignment.
        self._send("STATUS=" + "".join(character if character.isprintable() else "?" for character in text))

    def status_soon(self, text: Callable[[], str]) -> None:
        """Set the status line `STATUS_SECONDS` from now to what `text` returns then, unless that is scheduled already.

        Without a service manager, do nothing.
        """
        if self._address is not None and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(STATUS_SECONDS, self._set_status, text)

    def watchdog(self) -> None:
        """Notify that this process is alive."""
        self._send("WATCHDOG=1")

    async def keep_alive(self, is_alive: Callable[[], bool]) -> None:
        """Send watchdog messages from within the event loop, until cancelled; return at once without a watchdog.

        Parameters
        ----------
        is_alive
            Function that checks what a running event loop does not prove; while it returns False, nothing is sent.
        """
        if self.watchdog_seconds is None:
            return
        usual_pause = self.watchdog_seconds / PINGS_PER_TIMEOUT
        pause = usual_pause
        while True:
            begin = now()
            await asyncio.sleep(pause)
            late = now() - begin - pause
            if late > usual_pause / 2:
                # The event loop hung. Why not send the message now? The loop may hang again at its next iteration. It
                # first has to keep a shorter pause, for which there is time before the watchdog acts.
                log.warning("daemon.late", seconds=round(late, 3))
                pause = usual_pause / CHECKS_PER_PING
                continue
            pause = usual_pause
            if is_alive():
                self.watchdog()

    def _set_status(self, text: Callable[[], str]) -> None:
        self._timer = None
        self.status(text())

    def _send(self, *assignments: str) -> None:
        if self._address is None:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        # systemd would drop a message that is not valid UTF-8.
        message = "\n".join(assignments).encode("utf-8", "backslashreplace")
        # ValueError: the address contains a null byte.
        with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.settimeout(SEND_SECONDS)
            connection.sendto(message, address)
