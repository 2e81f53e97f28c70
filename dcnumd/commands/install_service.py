"""The command `install-service`: writes a config and a systemd unit for chosen folders.

The units are copied from the package's folder `systemd`. What differs between sites (folders, user, program) is written
to a drop-in beside the unit, so that a newer dcnumd can replace the unit itself.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import pathlib
import re
from collections.abc import Iterable, Iterator

import click

from dcnumd.commands.install_worker import worker_files
from dcnumd.commands.service_parts import (
    STANDARD_CONFIG,
    STANDARD_USER,
    Access,
    Service,
    check_folders,
    check_program,
    check_user,
    cure_of_forbidden_folders,
    is_in_home,
    own_program,
    path_lines,
    quoted,
    quoted_list,
)
from dcnumd.config.file import load_settings
from dcnumd.config.values import Settings
from dcnumd.errors import ConfigError

FOLDER = click.Path(path_type=pathlib.Path, file_okay=False, resolve_path=False)


@click.command(epilog="Example: dcnumd install-service --folder /srv/acquisition --output /srv/results --dry-run")
@click.option("--folder", "folders", metavar="DIR", multiple=True, type=FOLDER, help="Watch DIR. Can be repeated.")
@click.option("--output", metavar="DIR", type=FOLDER, help="Folder for the results; else beside the measurements.")
@click.option("--web", metavar="ADDRESS", help="Serve the live page there, such as 127.0.0.1:8480; else nowhere.")
@click.option("--name", help="Instance, for one of several instruments: the service is then dcnumd@NAME.")
@click.option(
    "--worker",
    metavar="ADDRESS",
    help="Instead of a daemon, a worker of the Dask cluster with this scheduler; it writes results to each --folder.",
)
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
    worker: str | None,
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
        service = Service(name, user, command, config_dir.absolute(), unit_dir.absolute(), worker or "")
        check_program(service, given=program is not None)
        user_exists = check_user(user)
        if worker is None:
            access, files = daemon_files(service, folders, output, web, force=force)
        elif output is None and web is None and name is None:
            access, files = worker_files(service, folders)
        else:
            raise click.UsageError("--worker takes no --output, --web or --name; its jobs say where results go")
    if dry_run:
        for path, content in files.items():
            click.echo(f"# would write {path}\n{content}")
    else:
        write(files)
    click.echo("\n".join(next_steps(service, access, user_exists=user_exists)))
    return 0


def daemon_files(
    service: Service,
    folders: tuple[pathlib.Path, ...],
    output: pathlib.Path | None,
    web: str | None,
    *,
    force: bool,
) -> tuple[Access, dict[pathlib.Path, str]]:
    """Return the folders that a daemon uses, and the content of each file of its service.

    Raises
    ------
    ConfigError
        If there is a config and new values for it are given, or a folder cannot be used.
    """
    new_config = make_config(service, folders, output, web, force=force)
    settings = settings_of(folders, output, web) if new_config else load_settings(service.config_file)
    access = Access.of(settings, service)
    check_folders(access)
    config = {service.config_file: new_config} if new_config else {}
    drop_in = site_drop_in(service, access, settings)
    return access, {**config, service.unit_file: service.unit_text, service.site_file: drop_in}


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


def site_drop_in(service: Service, access: Access, settings: Settings) -> str:
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
    listen, cluster = settings.web.listen, settings.executor.kind == "dask"
    if listen:
        lines.append(f"# The live page at {listen}; who may come that far is a matter of this list.")
    if cluster:
        lines.append("# The scheduler of the cluster, whose address may be a name, and change.")
    if listen or cluster:
        lines += [
            "PrivateNetwork=no",
            "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
            f"IPAddressAllow={'localhost' if not cluster and is_loopback(listen) else 'any'}",
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
