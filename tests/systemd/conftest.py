"""A container with a systemd of its own, in which the service is installed and runs as on an operator's computer.

systemd-nspawn shows the container this computer's /usr, and the Python and the dcnumd that run the tests. Limits of
memory and processors are not in force in there where this computer has control groups of version 1; all else is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import select
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator, Sequence

import pytest

import dcnumd
from dcnumd.kernels.cache import ensure_compiled
from tests.support.daemon import Daemon

PACKAGE = pathlib.Path(dcnumd.__file__).parent
CGROUPS = [pathlib.Path("/sys/fs/cgroup", name) for name in ("systemd", "unified", ".")]
BOOT_SECONDS = 60.0
STOP_SECONDS = 60.0
COMMAND_SECONDS = 150.0
"""Starting the service is a command, and compiles kernels the first time."""
PYTHON = ("env", "LD_LIBRARY_PATH=/opt/python/lib", "PYTHONPATH=/opt/project", "/opt/dcnumd/bin/python", "-P")
"""Python in the container, with the place of its library, which only the system's finds by itself."""
PROGRAM = f"""#!/bin/sh
exec {" ".join(PYTHON)} -m dcnumd "$@"
"""
GROUPS = "(_extract, _label, _background, _rest)"
QUICK_GROUPS = "(_given, _rest)"
GIVEN = """

def _given():
    import shutil

    if "fill" in sys.argv:
        for name in ("*.kernels_events.*", "*.kernels_labeling.label*", "*median.median*", "*median.rolling*"):
            for path in pathlib.Path("/opt/kernels").glob(f"{name}.kernel"):
                shutil.copy(path, sys.argv[2])
    else:
        for group in (_extract, _label, _background):
            group()
"""
JOURNAL = "[Journal]\nStorage=volatile\nRateLimitBurst=0\n"


@dataclasses.dataclass
class Container:
    """A folder tree with this computer's /usr, this Python and this dcnumd, for systemd-nspawn."""

    root: pathlib.Path
    leader: int = 0
    """Process id of its systemd, once it runs."""

    def build(self) -> None:
        """Make the tree."""
        for name in ("etc/systemd/journald.conf.d", "usr", "opt/python", "srv", "var/lib", "root"):
            (self.root / name).mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            if pathlib.Path("/", name).is_symlink():
                (self.root / name).symlink_to(pathlib.Path("/", name).readlink())
        etc = self.root / "etc"
        (etc / "machine-id").write_text("d" * 32 + "\n")
        (etc / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        (etc / "group").write_text("root:x:0:\n")
        shutil.copy("/etc/os-release", etc)
        (etc / "systemd/journald.conf.d/test.conf").write_text(JOURNAL)
        shutil.copy("/etc/ld.so.cache", etc)
        environment = self.root / "opt/dcnumd"
        (environment / "bin").mkdir(parents=True)
        (environment / "bin/dcnumd").write_text(PROGRAM)
        (environment / "bin/dcnumd").chmod(0o755)
        (environment / "bin/python").symlink_to(f"/opt/python/bin/python{self._version}")
        (environment / "pyvenv.cfg").write_text("home = /opt/python/bin\ninclude-system-site-packages = false\n")
        (environment / "lib" / f"python{self._version}" / "site-packages").mkdir(parents=True)
        self._copy_package()

    def _copy_package(self) -> None:
        """Have a dcnumd whose first start compiles the quick kernels only, and is given the others."""
        compiled = ensure_compiled(print)
        assert compiled is not None
        shutil.copytree(compiled, self.root / "opt/kernels")
        copy = shutil.copytree(PACKAGE, self.root / "opt/project/dcnumd")
        text = (copy / "logic/warm_up.py").read_text()
        assert GROUPS in text
        (copy / "logic/warm_up.py").write_text(text.replace(GROUPS, QUICK_GROUPS) + GIVEN)

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the container: in the running one, or as its only process before it is booted."""
        inside = ["nsenter", "--all", "--target", str(self.leader)]
        with contextlib.nullcontext([]) if self.leader else own_cgroups() as groups:
            line = [*inside, *command] if self.leader else [*enter(groups), *self._nspawn("--pipe"), *command]
            try:
                done = subprocess.run(line, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=check)
            except subprocess.SubprocessError as error:
                told = f"{error}\n{error.stdout}\n{error.stderr}"  # type: ignore[attr-defined]
                last_words = [*inside, "journalctl", "--no-pager", "--output=cat", "--lines=60"]
                if self.leader:
                    told += subprocess.run(last_words, capture_output=True, text=True, timeout=60, check=True).stdout
                pytest.fail(told)
        return done

    @contextlib.contextmanager
    def journal(self, unit: str) -> Iterator[Daemon]:
        """Follow what a unit logs, and systemd about it."""
        # What is heard is what comes by stderr.
        follow = f"exec journalctl --follow --lines=all --output=cat --unit={unit} 1>&2"
        command = ["nsenter", "--all", "--target", str(self.leader), "sh", "-c", follow]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        daemon = Daemon(process)
        listener = threading.Thread(target=daemon.listen)
        listener.start()
        try:
            yield daemon
        finally:
            # nsenter has a child, which would outlive it.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            listener.join()
            assert process.stderr is not None
            process.stderr.close()

    def install(self, *options: str, folder: str, kernels: pathlib.Path | None = None) -> list[str]:
        """Call install-service as an operator would, make the config quick, and return the commands that are to follow.

        Parameters
        ----------
        options
            Options of install-service.
        folder
            The watched folder.
        kernels
            Compiled kernels that the service finds in its cache.
        """
        printed = self.run("/opt/dcnumd/bin/dcnumd", "install-service", "--folder", folder, *options).stdout
        written, _, steps = printed.partition("Next, as root:\n")
        config = self.root / written.split()[1].lstrip("/")
        text = config.read_text().replace("[watch]\n", "[watch]\nsettle_seconds = 0.3\nrescan_seconds = 1.0\n")
        config.write_text(f"{text}\n[resources]\nnum_workers = 1\nmin_free_gb = 0.01\n")
        if kernels is not None:
            shutil.copytree(kernels, self.root / "var/cache/dcnumd" / config.stem.replace("config", "") / kernels.name)
        return [line.strip() for line in steps.splitlines() if line.startswith("  ") and "#" not in line]

    @contextlib.contextmanager
    def booted(self) -> Iterator[None]:
        """Boot the container and wait until it is up; it is shut down at the end."""
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
            own_cgroups() as groups,
            (self.root.parent / "console.txt").open("w") as console,
        ):
            address = f"dcnumd-test-{os.getpid()}"
            manager.bind("\0" + address)
            command = [*enter(groups), *self._nspawn("--boot", "--notify-ready=yes", "--console=read-only")]
            nspawn = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env={**os.environ, "NOTIFY_SOCKET": f"@{address}", "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )
            try:
                self._wait_until_up(manager, nspawn)
                # What nobody reads would fill up, and bring the container's systemd to a standstill.
                manager.close()
                yield
            finally:
                leader, self.leader = self.leader, 0
                # It passes this on as a request to shut down.
                nspawn.terminate()
                try:
                    nspawn.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    # With its first process, all of the container goes.
                    os.kill(leader or nspawn.pid, signal.SIGKILL)
                    nspawn.wait(STOP_SECONDS)
                    raise

    def _wait_until_up(self, manager: socket.socket, nspawn: subprocess.Popen[bytes]) -> None:
        end = os.pidfd_open(nspawn.pid)
        try:
            while manager in select.select([manager, end], [], [], BOOT_SECONDS)[0]:
                lines = manager.recv(4096).decode().split("\n")
                for line in lines:
                    if line.startswith("X_NSPAWN_LEADER_PID="):
                        self.leader = int(line.partition("=")[2])
                if "READY=1" in lines:
                    return
        finally:
            os.close(end)
        pytest.fail(f"the container does not boot:\n{(self.root.parent / 'console.txt').read_text()}")

    def _nspawn(self, *options: str) -> list[str]:
        site_packages = f"/opt/dcnumd/lib/python{self._version}/site-packages"
        return [
            "systemd-nspawn",
            "--quiet",
            "--register=no",
            *([] if runs_systemd() else ["--keep-unit"]),
            f"--directory={self.root}",
            "--private-network",
            "--bind-ro=/usr",
            f"--bind-ro={sys.base_prefix}:/opt/python",
            f"--bind-ro={sysconfig.get_path('purelib')}:{site_packages}",
            *options,
        ]

    @property
    def _version(self) -> str:
        return f"{sys.version_info.major}.{sys.version_info.minor}"


def runs_systemd() -> bool:
    """Return whether this computer itself runs systemd, which then looks after the control groups."""
    return pathlib.Path("/run/systemd/system").exists()


@contextlib.contextmanager
def own_cgroups() -> Iterator[list[pathlib.Path]]:
    """Make control groups for a container where no systemd does so, and remove them."""
    name = f"dcnumd-test-{os.getpid()}"
    bases = [] if runs_systemd() else [base for base in CGROUPS if (base / "cgroup.procs").exists()]
    groups = [base / name for base in bases]
    for group in groups:
        group.mkdir()
    try:
        yield groups
    finally:
        for group in groups:
            for folder, _, _ in os.walk(group, topdown=False):
                pathlib.Path(folder).rmdir()


def enter(groups: Sequence[pathlib.Path]) -> list[str]:
    """Return what to put before a command so that it runs in control groups."""
    if not groups:
        return []
    moves = "; ".join(f"echo $$ > '{group}/cgroup.procs'" for group in groups)
    return ["sh", "-c", f'{moves}; exec "$@"', "sh"]


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Container:
    """Return a container that is not booted yet; skips where none can be."""
    if os.geteuid() or not shutil.which("systemd-nspawn"):
        pytest.skip("a container with its own systemd needs root and systemd-nspawn (Debian: systemd-container)")
    made = Container(tmp_path_factory.mktemp("container") / "root")
    made.build()
    tried = made.run("true", check=False)
    if tried.returncode:
        pytest.skip(f"systemd-nspawn does not work here: {tried.stderr.strip()}")
    return made
