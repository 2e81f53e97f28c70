"""The files of the service of a worker, for the command `install-service`."""

from __future__ import annotations

import pathlib

from dcnumd.commands.check_executor import HOST
from dcnumd.commands.service_parts import Access, Service, check_folders, is_in_home, path_lines
from dcnumd.errors import ConfigError

ADDRESS_FILE = "worker.env"
"""Name of the file with the address of the scheduler, which the unit reads."""


def worker_files(service: Service, folders: tuple[pathlib.Path, ...]) -> tuple[Access, dict[pathlib.Path, str]]:
    """Return the folders that a worker uses, and the content of each file of its service.

    Raises
    ------
    ConfigError
        If the address or a folder cannot be used, or there is no folder.
    """
    if HOST.fullmatch(service.scheduler) is None:
        raise ConfigError(f"--worker {service.scheduler}: is no address; tls://server.example.org:8786 is one")
    if not folders:
        raise ConfigError("say with --folder DIR where the worker has the folders of measurements and results")
    access = Access((), folders)
    check_folders(access)
    address_file = service.config_folder / ADDRESS_FILE
    drop_in = worker_drop_in(service, address_file, folders)
    address = f"SCHEDULER={service.scheduler}\n"
    return access, {address_file: address, service.unit_file: service.unit_text, service.site_file: drop_in}


def worker_drop_in(service: Service, address_file: pathlib.Path, folders: tuple[pathlib.Path, ...]) -> str:
    """Return the text of the drop-in that adapts the unit of a worker to this site."""
    program = " ".join(f'"{part}"' for part in service.program).replace("%", "%%").replace("$", "$$")
    lines = [
        "# Made by dcnumd install-service --worker, and made anew when it is called again.",
        "# An empty value takes back what the unit says.",
        "[Service]",
        f"User={service.user}",
        "EnvironmentFile=",
        f"EnvironmentFile={address_file}".replace("%", "%%"),
        "ExecStart=",
        f"ExecStart={program} worker ${{SCHEDULER}}",
        "ReadWritePaths=",
        *path_lines("ReadWritePaths", "BindPaths", folders),
        *(
            ["# Home folders are empty but for those above.", "ProtectHome=tmpfs"]
            if any(map(is_in_home, folders))
            else []
        ),
    ]
    return "\n".join(lines) + "\n"
