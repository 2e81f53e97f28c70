"""The address of the live page, and the host names under which it may be requested."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket

from dcnumd.config.values import WebSettings
from dcnumd.errors import ConfigError

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

BACKLOG = 64
"""Largest number of connections that wait to be accepted."""

_FAULTS = {
    errno.EADDRINUSE: "the port is taken by another program; choose another one",
    errno.EADDRNOTAVAIL: "this computer has no such address",
    errno.EACCES: "ports below 1024 need a privilege that dcnumd does not have; choose another one",
    errno.EAFNOSUPPORT: "this computer does not speak this kind of address",
}
_ABSENT = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


def split_listen(listen: str) -> tuple[str, int]:
    """Return host and port of the setting `web.listen`.

    Raises
    ------
    ConfigError
        If there is no such port.
    """
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"web.listen: {listen!r} is not an address and a port, such as '127.0.0.1:8480'")
    return host.removeprefix("[").removesuffix("]"), int(port)


def joined(host: str, port: int) -> str:
    """Return ``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listening(listen: str) -> list[socket.socket]:
    """Return a listening socket for each address of the setting `web.listen`.

    A name may stand for several addresses. Those that this computer does not have are left out unless it has none of
    them; an example is ::1 of ``localhost`` on a computer without IPv6.

    Raises
    ------
    ConfigError
        If the address cannot be used.
    """
    host, port = split_listen(listen)
    with contextlib.ExitStack() as opened:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            sockets, absent = [], []
            for family, address in dict.fromkeys((family, address) for family, *_, address in found):
                try:
                    sockets.append(opened.enter_context(socket.create_server(address, family=family, backlog=BACKLOG)))
                except OSError as error:
                    if error.errno not in _ABSENT:
                        raise
                    absent.append(error)
            if not sockets:
                raise absent[0]
        except (OSError, ValueError) as error:
            raise _cannot_listen(listen, error) from error
        opened.pop_all()
        return sockets


def _cannot_listen(listen: str, error: OSError | ValueError) -> ConfigError:
    """Return the error that explains why the page cannot be served at an address."""
    if isinstance(error, socket.gaierror | ValueError):
        # Names that are not valid host names raise ValueError.
        why = "no computer of this name is known"
    else:
        why = _FAULTS.get(error.errno or 0, error.strerror or str(error))
    return ConfigError(f"web.listen: cannot serve the live page at {listen}: {why}")


class HostNames:
    """The host names under which the page may be requested.

    This check prevents DNS rebinding: a foreign website can let its own name resolve to this computer, and would then
    be allowed to read our page. The browser still sends the foreign name in the Host header.

    Parameters
    ----------
    settings
        The address of the page, and further names (`web.hosts`).
    """

    def __init__(self, settings: WebSettings) -> None:
        self._names = LOOPBACK_NAMES | {split_listen(settings.listen)[0].lower()}
        self._names |= {name.lower() for name in settings.hosts}

    def allow(self, host: str, own_address: str) -> bool:
        """Return whether a request names an allowed host.

        Parameters
        ----------
        host
            The Host header of the request.
        own_address
            The local address at which the request arrived. It is always allowed: DNS cannot redirect an address.
        """
        # The port is not compared, because it is another one behind a tunnel.
        name = host_of(host)
        return name in self._names or (bool(name) and _same_address(name, own_address))


def host_of(netloc: str) -> str:
    """Return the host of ``host:port`` in lower case, without brackets; empty if it is malformed."""
    if netloc.startswith("["):
        address, bracket, _ = netloc[1:].partition("]")
        return address.lower() if bracket else ""
    return netloc.partition(":")[0].lower()


def _same_address(one: str, other: str) -> bool:
    try:
        return ipaddress.ip_address(one) == ipaddress.ip_address(other.partition("%")[0])
    except ValueError:
        return False
