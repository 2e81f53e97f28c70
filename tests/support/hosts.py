"""Computers of a facility on this one: each has a network, mounts and a name of its own, and a cable to a switch.

Addresses exist only inside of the namespaces. Everything ends with the process of the test, even if that is killed.
"""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

PREFIX = "10.77.0."
"""Beginning of all addresses in the network, which no other computer can reach."""
COMMAND_SECONDS = 30.0
BOUND = ("setpriv", "--pdeathsig", "KILL")
"""Beginning of a command that is killed when the process that started it ends."""


class Host:
    """A computer of the network.

    Parameters
    ----------
    name
        Name of the computer.
    address
        Its address; empty for a switch.
    stack
        What ends the computer.
    """

    def __init__(self, name: str, address: str, stack: contextlib.ExitStack) -> None:
        self.name = name
        self.address = address
        namespaces = ("unshare", "--net", "--uts", "--mount", "--propagation", "slave")
        # The shell tells that the namespaces exist; its process keeps them.
        script = 'hostname "$0" && ip link set lo up && echo ready && exec sleep infinity'
        self._keeper = subprocess.Popen(
            [*BOUND, *namespaces, "sh", "-c", script, name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        stack.callback(self._end)
        assert self._keeper.stdout is not None
        assert self._keeper.stderr is not None
        if self._keeper.stdout.readline() != "ready\n":
            raise OSError(self._keeper.stderr.read().strip())

    @property
    def pid(self) -> int:
        """ID of a process of the computer that lives as long as the computer."""
        return self._keeper.pid

    @property
    def enter(self) -> tuple[str, ...]:
        """Beginning of a command that is executed on the computer."""
        return ("nsenter", "--target", f"{self.pid}", "--net", "--uts", "--mount", *BOUND)

    def execute(self, *command: str | pathlib.Path) -> None:
        """Execute a command on the computer, and wait for it.

        Raises
        ------
        OSError
            If it fails.
        """
        done = subprocess.run(
            [*self.enter, *command], capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
        )
        if done.returncode:
            raise OSError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")

    def mount(self, folder: pathlib.Path, place: pathlib.Path) -> None:
        """Show a folder at another place on this computer only, as a mounted share."""
        self.execute("mount", "--bind", folder, place)

    def remount(self, place: pathlib.Path, options: str) -> None:
        """Change the mount options of a share on this computer only."""
        self.execute("mount", "-o", f"remount,bind,{options}", place)

    def unmount(self, place: pathlib.Path) -> None:
        """Unmount a share on this computer; open files stay open."""
        self.execute("umount", "--lazy", place)

    def _end(self) -> None:
        self._keeper.kill()
        self._keeper.communicate()


class Network:
    """A switch, and the computers that are connected to it.

    Parameters
    ----------
    stack
        What ends the computers.

    Raises
    ------
    OSError
        If this user cannot make such a network.
    """

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._switch = Host("switch", "", stack)
        self._count = 0
        self._switch.execute("ip", "link", "add", "bridge", "type", "bridge")
        self._switch.execute("ip", "link", "set", "bridge", "up")

    def host(self, name: str) -> Host:
        """Connect a new computer to the switch, and return it."""
        self._count += 1
        host = Host(name, f"{PREFIX}{self._count}", self._stack)
        ends = ("name", name, "netns", f"{self._switch.pid}"), ("name", "eth0", "netns", f"{host.pid}")
        self._switch.execute("ip", "link", "add", *ends[0], "type", "veth", "peer", *ends[1])
        self._switch.execute("ip", "link", "set", name, "master", "bridge", "up")
        host.execute("ip", "address", "add", f"{host.address}/24", "dev", "eth0")
        host.execute("ip", "link", "set", "eth0", "up")
        return host

    def unplug(self, host: Host) -> None:
        """Pull the cable of a computer: packets get lost, and nobody is told."""
        self._switch.execute("ip", "link", "set", host.name, "down")

    def plug_in(self, host: Host) -> None:
        """Put the cable of a computer back."""
        self._switch.execute("ip", "link", "set", host.name, "up")


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """Return a network without computers; skip the test if this user cannot make one."""
    with contextlib.ExitStack() as stack:
        try:
            made = Network(stack)
        except OSError as error:
            pytest.skip(f"computers in network namespaces need root and iproute2: {error}")
        yield made
