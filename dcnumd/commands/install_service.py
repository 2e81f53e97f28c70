"""The command `install-service`: writes a config and a systemd unit for chosen folders.

The units are copied from the package's folder `systemd`. What differs between sites (folders, user, program) is written
to a drop-in beside the unit, so that a newer dcnumd can replace the unit itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.resources
import ipaddress
import os
import pathlib
import pwd
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator

import click

import dcnumd
from dcnumd.config.file import load_settings
from dcnumd.config.values import Settings
from dcnumd.errors import ConfigError

STANDARD_USER = "dcnumd"
STANDARD_CONFIG = "config"
HOMES = tuple(map(pathlib.Path, ("/home", "/root", "/run/user")))
"""Folders that are hidden from the service (ProtectHome=)."""
TEMPORARY = tuple(map(pathlib.Path, ("/tmp", "/var/tmp")))  # noqa: S108 -- nothing is written there
"""Folders of which the service has its own, empty ones (PrivateTmp=)."""
FOLDER = click.Path(path_type=pathlib.Path, file_okay=False, resolve_path=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Service:
    """The names and paths of one service."""

    name: str | None
    """Name of the instance if several instruments have a service each; None for the only service."""
    user: str
    program: tuple[str, ...]
    config_folder: pathlib.Path
    unit_folder: pathlib.Path

    @property
    def unit(self) -> str:
        """Name of the unit for systemctl."""
        return f"dcnumd@{self.name}.service" if self.name else "dcnumd.service"

    @property
    def unit_file(self) -> pathlib.Path:
        """Path of the unit file; instances share a template unit."""
        return self.unit_folder / ("dcnumd@.service" if self.name else "dcnumd.service")

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
        read: list[pathlib.Path] = []
        write: list[pathlib.Path] = []
        for group in settings.groups:
            (read if group.output.folder else write).extend(group.watch.folders)
            write.extend(filter(None, [group.output.folder]))
        write.extend(filter(None, [settings.report.folder if settings.report.enabled else None]))
        own = (service.state_folder, pathlib.Path("/var/log/dcnumd", service.name or ""))
        log_folder = settings.log.file.parent if settings.log.file else None
        write.extend(folder for folder in (settings.state.folder, log_folder) if folder and folder not in own)
        return cls(tuple(dict.fromkeys(folder for folder in read if folder not in write)), tuple(dict.fromkeys(write)))


@click.command(epilog="Example: dcnumd install-service --folder /srv/acquisition --output /srv/results --dry-run")
@click.option("--folder", "folders", metavar="DIR", multiple=True, type=FOLDER, help="Watch DIR. Can be repeated.")
@click.option("--output", metavar="DIR", type=FOLDER, help="Folder for the results; else beside the measurements.")
@click.option("--web", metavar="ADDRESS", help="Serve the live page there, such as 127.0.0.1:8480; else nowhere.")
@click.option("--name", help="Instance, for one of several instruments: the service is then dcnumd@NAME.")
@click.option("--user", default=STANDARD_USER, show_default=True, help="User that the service runs as.")
@click.option(
    "--program", metavar="FILE", type=click.Path(path_type=pathlib.Path), help="The dcnumd to run; else this one."
)
@click.option("--config-dir", default="/etc/dcnumd", show_default=True, type=FOLDER, help="Folder for the config.")
@click.option(
    "--unit-dir", default="/etc/systemd/system", show_default=True, type=FOLDER, help="Folder for the systemd unit."
)
@click.option("--force", is_flag=True, help="Replace a config that exists.")
@click.option("--dry-run", is_flag=True, help="Write nothing; print what would be written.")
def install_service(
    folders: tuple[pathlib.Path, ...],
    output: pathlib.Path | None,
    web: str | None,
    name: str | None,
    user: str,
    program: pathlib.Path | None,
    config_dir: pathlib.Path,
    unit_dir: pathlib.Path,
    force: bool,
    dry_run: bool,
) -> int:
    """Write a systemd service and its config for the folders of an instrument.

    Where a config exists already, leave out --folder, --output and --web: the service then fits that config. Do so
    after an upgrade of dcnumd, and after changing folders or web.listen in the config. Nothing is started; what to do
    next is printed.
    """
    if name is not None and (not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or name == STANDARD_CONFIG):
        raise ConfigError(
            f"--name {name}: letters, digits, '_', '.' and '-' are allowed, and not the name {STANDARD_CONFIG!r}"
        )
    with cure_of_forbidden_folders():
        command = own_program() if program is None else (os.fspath(program.absolute()),)
        service = Service(name, user, command, config_dir.absolute(), unit_dir.absolute())
        check_program(service, given=program is not None)
        user_exists = check_user(user)
        new_config = make_config(service, folders, output, web, force=force)
        settings = settings_of(folders, output, web) if new_config else load_settings(service.config_file)
        access = Access.of(settings, service)
        check_folders(access)
        files = {
            **({service.config_file: new_config} if new_config else {}),
            service.unit_file: (importlib.resources.files(dcnumd) / "systemd" / service.unit_file.name).read_text(
                "utf-8"
            ),
            service.site_file: site_drop_in(service, access, settings.web.listen),
        }
    if dry_run:
        for path, content in files.items():
            click.echo(f"# would write {path}\n{content}")
    else:
        write(files)
    click.echo("\n".join(next_steps(service, access, user_exists=user_exists)))
    return 0


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


def settings_of(folders: Iterable[pathlib.Path], output: pathlib.Path | None, web: str | None) -> Settings:
    """Return default settings with these folders and this address."""
    overrides = [f"watch.folders={quoted_list(folders)}"]
    if output is not None:
        overrides.append(f"output.folder={quoted(output)}")
    if web is not None:
        overrides.append(f"web.listen={web}")
    return load_settings(None, overrides)


def make_config(
    service: Service,
    folders: tuple[pathlib.Path, ...],
    output: pathlib.Path | None,
    web: str | None,
    *,
    force: bool,
) -> str | None:
    """Return the text of the new config; None if the existing config is kept.

    Raises
    ------
    ConfigError
        If there is a config and folders, output or address are given, or if there is neither a config nor a folder.
    """
    if service.config_file.exists() and not force:
        if folders or output is not None or web is not None:
            raise ConfigError(
                f"{service.config_file} exists; leave out --folder, --output and --web to keep it, "
                "or replace it with --force"
            )
        return None
    if not folders:
        raise ConfigError("say with --folder DIR where the instrument records")
    lines = [
        "# Settings of dcnumd; what is not here has its default. The sample config.toml of dcnumd shows every key.",
        f"# After a change of folders: dcnumd install-service{f' --name {service.name}' if service.name else ''}, then",
        f"# systemctl daemon-reload; systemctl restart {service.unit}",
        "",
        "[watch]",
        f"folders = {quoted_list(folders)}",
        *(["", "[output]", f"folder = {quoted(output)}"] if output is not None else []),
        *(["", "[web]", f'listen = "{web}"'] if web is not None else []),
        "",
        "[state]",
        f"folder = {quoted(service.state_folder)}",
    ]
    return "\n".join(lines) + "\n"


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


def site_drop_in(service: Service, access: Access, listen: str) -> str:
    """Return the text of the drop-in that adapts the unit to this site."""
    program = " ".join(f'"{part}"' for part in service.program)
    commands = {
        key: f"{program} {action} -c {quoted(service.config_file)}".replace("%", "%%").replace("$", "$$")
        for key, action in (("ExecStartPre", "check --quick"), ("ExecStart", "run"))
    }
    lines = [
        f"# Made by dcnumd install-service from {service.config_file}, and made anew when it is called again.",
        "# An empty value takes back what the unit says.",
        "[Service]",
        f"User={service.user}",
        *(line for key, command in commands.items() for line in (f"{key}=", f"{key}={command}")),
        "ReadWritePaths=",
        *path_lines("ReadOnlyPaths", "BindReadOnlyPaths", access.read),
        *path_lines("ReadWritePaths", "BindPaths", access.write),
    ]
    if listen:
        lines += [
            f"# The live page at {listen}; who may come that far is a matter of this list.",
            "PrivateNetwork=no",
            "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
            f"IPAddressAllow={'localhost' if is_loopback(listen) else 'any'}",
        ]
    if any(map(is_in_home, (*access.read, *access.write))):
        lines += ["# Home folders are empty but for those above.", "ProtectHome=tmpfs"]
    return "\n".join(lines) + "\n"


def is_loopback(listen: str) -> bool:
    """Return whether an address (``host:port``) can be reached from this computer only."""
    host = listen.rpartition(":")[0].strip("[]")
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


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


def write(files: dict[pathlib.Path, str]) -> None:
    """Write all files, after a check that all of them can be written.

    Raises
    ------
    ConfigError
        If a file cannot be written.
    """
    for path in files:
        nearest = next(parent for parent in path.parents if parent.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            raise ConfigError(f"{path} cannot be written; call this as root, or with --dry-run to see what comes")
    for path, content in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, "utf-8")
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
        click.echo(f"wrote {path}")


def next_steps(service: Service, access: Access, *, user_exists: bool) -> Iterator[str]:
    """Yield the lines that tell the administrator what to do next."""
    yield "\nNext, as root:"
    if not user_exists:
        yield f"  systemd-sysusers --inline 'u {service.user} - \"dcnumd\" /var/lib/dcnumd'"
    for rights, folders in (("rX", access.read), ("rwX", access.write)):
        for folder in folders:
            yield f"  setfacl -R -m u:{service.user}:{rights},d:u:{service.user}:{rights} {quoted(folder)}"
    if access.read or access.write:
        yield "    # setfacl only where the user may not do so already: read what is watched, write where results go"
    yield "  systemctl daemon-reload"
    yield f"  systemctl enable --now {service.unit}"
    yield f"  journalctl -u {service.unit} -f"
