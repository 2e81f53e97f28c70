"""Checks of the settings of a Dask cluster, for the command `check`."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from dcnumd.commands.finding import Finding
from dcnumd.config.path_map import PathMap
from dcnumd.config.values import ExecutorSettings, Settings
from dcnumd.daemon.cluster.dask_loading import lack_of_certificates, problem_of_timeout
from dcnumd.daemon.cluster.names import address_in
from dcnumd.words import duration

HOST = re.compile(r"(?:(?P<protocol>\w+)://)?(?P<host>\[[^\]]+\]|[^:/]+)(?::\d+)?")
"""An address of a scheduler; without a protocol, it is that of ``tcp://``."""


def executor_findings(settings: Settings) -> Iterator[Finding]:
    """Yield what is to be said about where measurements are processed."""
    executor = settings.executor
    if executor.kind == "local":
        return
    address = executor.scheduler
    if executor.scheduler_file is not None:
        address, finding = _address_in(executor)
        yield finding
    if address:
        yield _scheduler(address)
    for here, there in executor.paths.items():
        yield Finding("ok", "executor.paths", f"{here} is {there} on the workers")
    yield from _models(settings)
    if executor.fallback_minutes:
        text = "without a scheduler or a worker, measurements are processed here after"
        yield Finding("ok", "executor", f"{text} {duration(60 * executor.fallback_minutes)}")
    if settings.resources.pause_while_acquiring:
        text = "a recording suspends what runs on this computer, but no jobs and no reports on the cluster"
        yield Finding("note", "resources", f"pause_while_acquiring: {text}")


def _models(settings: Settings) -> Iterator[Finding]:
    """Yield a note for each folder of models whose name on the workers is not known."""
    paths = PathMap.of(settings.executor.paths)
    for folder in settings.models.folders:
        if not paths.covers(folder):
            text = f"executor.paths does not contain {folder}; workers use it under this name, and their own folders"
            yield Finding("note", "models.folders", text)


def _address_in(executor: ExecutorSettings) -> tuple[str, Finding]:
    """Return the address in the file of the scheduler, which may be empty, with a finding about the file."""
    file = executor.scheduler_file
    assert file is not None
    try:
        address = address_in(file)
    except OSError as error:
        text = f"{file} cannot be read: {error.strerror}; measurements wait until it can"
    except ValueError:
        text = f"{file} contains no address of a scheduler"
    else:
        return address, Finding("ok", "executor", f"{file}")
    return "", Finding("warning", "executor", text)


def _scheduler(address: str) -> Finding:
    found = HOST.fullmatch(address)
    if found is None:
        return Finding("problem", "executor", f"{address!r} is no address; tls://server.example.org:8786 is one")
    if problem := problem_of_timeout() or lack_of_certificates(address, "client"):
        return Finding("problem", "executor", problem)
    if found["protocol"] in {None, "tcp", "ws"} and not _is_loopback(found["host"].strip("[]")):
        text = (
            f"{address} is not encrypted: whoever reaches it can run programs on this computer and on the workers; "
            "use tls:// with certificates, or a network that nobody else reaches"
        )
        return Finding("warning", "executor", text)
    return Finding("ok", "executor", f"jobs run on the Dask cluster at {address}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
