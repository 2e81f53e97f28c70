"""What the daemon tells systemd: that it is ready, what it does, that it is alive. See sd_notify(3).

Without systemd, or when its socket is gone or full, nothing is told and nothing fails.
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
"""How long the event loop waits at most for a system that does not take messages."""
PINGS_PER_TIMEOUT = 3
CHECKS_PER_PING = 4
"""After the loop was late, it has to be punctual for this part of the usual pause before it counts as alive."""


class Notifier:
    """Tells the service manager about this process.

    Parameters
    ----------
    address
        Path of the socket of the service manager, or ``@`` and a name in the abstract name space; None: nobody listens.
    watchdog_seconds
        It wants to hear from this process at least this often [s]; None: it does not ask.
    """

    def __init__(self, address: str | None = None, watchdog_seconds: float | None = None) -> None:
        self._address = address
        self.watchdog_seconds = watchdog_seconds

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] = os.environ) -> Self:
        """Take over what the service manager left in the environment, so that no child process speaks in our name."""
        address = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        asked = environment.pop("WATCHDOG_PID", None) or str(os.getpid())
        is_ours = asked == str(os.getpid()) and microseconds.isascii() and microseconds.isdigit()
        seconds = int(microseconds) / 1e6 if is_ours else 0.0
        return cls(address if address.startswith(("/", "@")) else None, seconds or None)

    def ready(self) -> None:
        """Tell that the service is up, or has read its config again."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Tell that the config is being read again; `ready` is to follow in any case."""
        # With the time, systemd 253 and newer can tell this from an earlier reload.
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={microseconds}")

    def stopping(self) -> None:
        """Tell that the service is about to end."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Tell in one line what is going on; `systemctl status` shows it."""
        # File names may hold line breaks, and what follows one would be taken for another message.
        self._send("STATUS=" + "".join(character if character.isprintable() else "?" for character in text))

    def watchdog(self) -> None:
        """Tell that this process is alive."""
        self._send("WATCHDOG=1")

    async def keep_alive(self, is_alive: Callable[[], bool]) -> None:
        """Tell from within the event loop that it is alive, for as long as it is asked for and true.

        Parameters
        ----------
        is_alive
            Whether what the loop itself does not show is well, too. Nothing is told while it is not.
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
                # It hung. One turn of it proves little: it may hang again in the next one. So it is not told to be
                # alive until it kept to a shorter pause, for which there is time before the watchdog acts.
                log.warning("daemon.late", seconds=round(late, 3))
                pause = usual_pause / CHECKS_PER_PING
                continue
            pause = usual_pause
            if is_alive():
                self.watchdog()

    def _send(self, *assignments: str) -> None:
        if self._address is None:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        # Names that are not valid Unicode would make systemd drop the message.
        message = "\n".join(assignments).encode("utf-8", "backslashreplace")
        # ValueError: the address holds a zero byte.
        with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.settimeout(SEND_SECONDS)
            connection.sendto(message, address)
