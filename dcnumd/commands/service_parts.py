"""What the services of daemons and workers have in common, for the command `install-service`."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.resources
import os
import pathlib
import pwd
import sys
import sysconfig
from collections.abc import Iterable, Iterator

import dcnumd
from dcnumd.config.values import Settings
from dcnumd.errors import ConfigError

WORKER_UNIT = "dcnumd-worker.service"
STANDARD_USER = "dcnumd"
STANDARD_CONFIG = "config"
HOMES = tuple(map(pathlib.Path, ("/home", "/root", "/run/user")))
"""Folders that are hidden from the service (ProtectHome=)."""
TEMPORARY = tuple(map(pathlib.Path, ("/tmp", "/var/tmp")))  # noqa: S108 -- nothing is written there
"""Folders of which the service has its own, empty ones (PrivateTmp=)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Service:
    """The names and paths of one service."""

    name: str | None
    """Name of the instance if several instruments have a service each; None for the only service."""
    user: str
    program: tuple[str, ...]
    config_folder: pathlib.Path
    unit_folder: pathlib.Path
    scheduler: str = ""
    """Address of the scheduler if this is the service of a worker of a Dask cluster; otherwise empty."""

    @property
    def unit(self) -> str:
        """Name of the unit for systemctl."""
        if self.scheduler:
            return WORKER_UNIT
        return f"dcnumd@{self.name}.service" if self.name else "dcnumd.service"

    @property
    def unit_file(self) -> pathlib.Path:
        """Path of the unit file; instances share a template unit."""
        return self.unit_folder / ("dcnumd@.service" if self.name else self.unit)

    @property
    def unit_text(self) -> str:
        """The unit as it comes with the package."""
        return (importlib.resources.files(dcnumd) / "systemd" / self.unit_file.name).read_text("utf-8")

    @property
    def site_file(self) -> pathlib.Path:
        """Path of the drop-in with the settings of this site."""
        return self.unit_folder / f"{self.unit}.d" / "10-site.conf"

    @property
    def config_file(self) -> pathlib.Path:
        """Path of the config file."""
        return self.config_folder / f"{self.name or STANDARD_CONFIG}.toml"

    @property
    def state_folder(self) -> pathlib.Path:
        """Path of the unit's StateDirectory=; the config names it for the commands that operators run."""
        return pathlib.Path("/var/lib/dcnumd", self.name or "")


@dataclasses.dataclass(frozen=True, slots=True)
class Access:
    """Folders that the service only reads, and folders that it also writes."""

    read: tuple[pathlib.Path, ...]
    write: tuple[pathlib.Path, ...]

    @classmethod
    def of(cls, settings: Settings, service: Service) -> Access:
        """Return the folders that the settings name, without those that every unit may write anyway."""
        file = settings.executor.scheduler_file
        read: list[pathlib.Path] = [file.parent] if file is not None else []
        write: list[pathlib.Path] = []
        for group in settings.groups:
            (read if group.output.folder else write).extend(group.watch.folders)
            write.extend(filter(None, [group.output.folder]))
        write.extend(filter(None, [settings.report.folder if settings.report.enabled else None]))
        own = (service.state_folder, pathlib.Path("/var/log/dcnumd", service.name or ""))
        log_folder = settings.log.file.parent if settings.log.file else None
        write.extend(folder for folder in (settings.state.folder, log_folder) if folder and folder not in own)
        return cls(tuple(dict.fromkeys(folder for folder in read if folder not in write)), tuple(dict.fromkeys(write)))


@contextlib.contextmanager
def cure_of_forbidden_folders() -> Iterator[None]:
    """Raise a `ConfigError` instead of a `PermissionError` in this block."""
    try:
        yield
    except PermissionError as error:
        message = f"{error.filename}: this user may not look there; call dcnumd install-service with sudo"
        raise ConfigError(message) from error


def own_program() -> tuple[str, ...]:
    """Return the command line that runs this installation of dcnumd."""
    script = pathlib.Path(sysconfig.get_path("scripts")) / "dcnumd"
    return (os.fspath(script),) if script.is_file() else (sys.executable, "-m", "dcnumd")


def check_program(service: Service, *, given: bool) -> None:
    """Check that the service can run its program.

    Raises
    ------
    ConfigError
        If the program is missing, cannot be executed, or is in a folder that is hidden from the service.
    """
    program = pathlib.Path(service.program[0])
    if not os.access(program, os.X_OK) or not program.is_file():
        raise ConfigError(f"{program}: there is no such program, or it may not be run")
    # A script also needs its interpreter and the package, which an editable installation keeps elsewhere.
    needed = [program] if given else [program, *map(pathlib.Path, (sys.prefix, sys.base_prefix, dcnumd.__file__))]
    for path in needed:
        if hidden := next((place for place in (*HOMES, *TEMPORARY) if place in path.resolve().parents), None):
            raise ConfigError(
                f"{path}: the service does not see {hidden}, where this dcnumd is installed; install it for all users "
                "with a Python that is, too (python3 -m venv /opt/dcnumd, then /opt/dcnumd/bin/pip install . in the "
                "folder of its source), and call /opt/dcnumd/bin/dcnumd install-service"
            )


def check_user(user: str) -> bool:
    """Return whether the user exists.

    Raises
    ------
    ConfigError
        If a user other than `STANDARD_USER` does not exist.
    """
    with contextlib.suppress(KeyError):
        pwd.getpwnam(user)
        return True
    if user != STANDARD_USER:
        raise ConfigError(f"--user {user}: there is no such user; make it, or leave --user out")
    return False


def quoted(path: pathlib.Path) -> str:
    """Return a path as a quoted string for TOML; in a unit file, percent signs must be doubled as well.

    Raises
    ------
    ConfigError
        If the path contains quotes, backslashes or unprintable characters.
    """
    text = os.path.abspath(path)  # noqa: PTH100 -- systemd wants no '..', and resolve() would follow links
    if not text.isprintable() or set(text) & set('"\\'):
        raise ConfigError(f"{text!r}: the name of a folder must not have quotes, backslashes or line breaks in it")
    return f'"{text}"'


def quoted_list(paths: Iterable[pathlib.Path]) -> str:
    """Return paths as a TOML array of strings."""
    return f"[{', '.join(map(quoted, paths))}]"


def check_folders(access: Access) -> None:
    """Check that the service can see all folders.

    Raises
    ------
    ConfigError
        For the first folder that is missing, hidden from the service, or cannot be named in a unit.
    """
    for folder in (*access.read, *access.write):
        if not folder.is_dir():
            raise ConfigError(f"{folder}: there is no such folder; make or mount it first")
        if any(place == folder.resolve() or place in folder.resolve().parents for place in TEMPORARY):
            raise ConfigError(f"{folder}: the service has its own, empty /tmp and /var/tmp; choose another folder")
        if is_in_home(folder) and ":" in str(folder):
            raise ConfigError(f"{folder}: a folder in a home folder must not have a colon in its name")


def is_in_home(folder: pathlib.Path) -> bool:
    """Return whether ProtectHome= hides a folder from the service."""
    return any(place in folder.resolve().parents for place in HOMES)


def path_lines(usual: str, in_home: str, folders: Iterable[pathlib.Path]) -> Iterator[str]:
    """Yield the line of the unit that gives access to each folder.

    Parameters
    ----------
    usual, in_home
        The directives for folders outside of home folders, and for those in them.
    folders
        The folders.
    """
    for folder in folders:
        path = quoted(folder).replace("%", "%%")
        yield f'{in_home if is_in_home(folder) else usual}="-{path[1:]}'
