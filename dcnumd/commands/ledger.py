"""The commands that read the ledger, status, history and why; and those that change it, retry and forget."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
from collections.abc import Iterator
from typing import Any

import click

from dcnumd.commands.options import json_option, with_settings
from dcnumd.config import Settings
from dcnumd.daemon.ledger import Ledger, ledger_path
from dcnumd.daemon.listing import CandidateFilter
from dcnumd.daemon.ownership import lock_owner
from dcnumd.daemon.records import FINAL, Entry, State

COLOURS = {State.DONE: "green", State.FAILED: "red", State.RUNNING: "cyan", State.SKIPPED: "yellow"}
LISTED = 10

REFUSALS = {
    "hidden": "its name begins with a dot, so it is hidden",
    "temporary": "its name is that of a temporary file",
    "pattern": "its name does not fit watch.patterns",
    "own_output": "it has the name of a result",
    "output_folder": "it lies in output.folder, where results go",
}

FILES = click.argument("files", metavar="FILE…", nargs=-1, required=True, type=click.Path(path_type=pathlib.Path))


@click.command(epilog="Example: dcnumd status --json | jq .counts")
@json_option
@with_settings(config_needed=False)
def status(settings: Settings, as_json: bool) -> None:
    """Show whether the daemon runs, what it is doing, what waits, and what failed last."""
    folder = settings.state_folder()
    owner = lock_owner(folder)
    with _reading(settings) as ledger:
        counts = ledger.counts() if ledger else dict.fromkeys(State, 0)
        running = ledger.entries(State.RUNNING) if ledger else []
        waiting = ledger.entries(State.SETTLING, State.QUEUED, limit=LISTED) if ledger else []
        failed = ledger.entries(State.FAILED, limit=LISTED) if ledger else []
        last_success = ledger.last_success() if ledger else None
    if as_json:
        groups = {"running": running, "waiting": waiting, "failed": failed}
        _print_json(
            {
                "daemon_pid": owner,
                "ledger": os.fspath(ledger_path(folder)),
                "counts": counts,
                "last_success": last_success,
                **{name: [_as_dict(entry) for entry in entries] for name, entries in groups.items()},
            }
        )
        return
    click.echo(f"daemon   {f'running (process {owner})' if owner is not None else 'not running'}")
    click.echo(f"ledger   {ledger_path(folder)}")
    click.echo("counts   " + ", ".join(f"{number} {state}" for state, number in counts.items() if number))
    click.echo(f"success  {last_success or 'none so far'}")
    for entry in (*running, *waiting, *failed):
        click.echo(_line(entry))


@click.command(epilog="Example: dcnumd history -n 50 --failed")
@click.option("-n", "number", default=20, show_default=True, type=click.IntRange(1), help="How many.")
@click.option("--failed", is_flag=True, help="Only those that failed.")
@json_option
@with_settings(config_needed=False)
def history(settings: Settings, number: int, failed: bool, as_json: bool) -> None:
    """List what became of the last measurements, the newest first."""
    states = [State.FAILED] if failed else sorted(FINAL)
    with _reading(settings) as ledger:
        entries = ledger.entries(*states, limit=number) if ledger else []
    if as_json:
        _print_json([_as_dict(entry) for entry in entries])
        return
    for entry in entries:
        click.echo(_line(entry))


@click.command(epilog="Example: dcnumd why /srv/acquisition/M001_data.rtdc")
@click.argument("file", type=click.Path(path_type=pathlib.Path))
@json_option
@with_settings(config_needed=False)
def why(settings: Settings, file: pathlib.Path, as_json: bool) -> int:
    """Tell the way of one FILE, and why it is where it is. Exit code 1 if nothing is known of it."""
    path = os.path.abspath(file)  # noqa: PTH100 -- resolves '..' without following links
    with _reading(settings) as ledger:
        entries = ledger.entries(path=path) if ledger else []
        ways = {entry.id: ledger.transitions(entry.id) for entry in entries} if ledger else {}
    explanation = "" if entries else _why_unknown(settings, path)
    if as_json:
        known = [{**_as_dict(entry), "way": [dataclasses.asdict(step) for step in ways[entry.id]]} for entry in entries]
        _print_json({"path": path, "explanation": explanation, "entries": known})
    elif not entries:
        click.echo(f"{path}: {explanation}")
    for entry in entries if not as_json else ():
        click.echo(_line(entry))
        for step in ways[entry.id]:
            click.echo(f"    {step.time}  {step.state:9} {step.reason}{f': {step.error}' if step.error else ''}")
    return 0 if entries else 1


@click.command(epilog="Example: dcnumd retry /srv/acquisition/M001_data.rtdc")
@FILES
@json_option
@with_settings(config_needed=False)
def retry(settings: Settings, files: tuple[pathlib.Path, ...], as_json: bool) -> None:
    """Have each FILE looked at and processed again, as if it were new; its own earlier result is replaced.

    A running daemon does so at once, another one when it starts. What another pipeline made stays where it is.
    """
    with _changing(settings, files) as (ledger, entries):
        for entry in entries:
            if entry.state in FINAL:
                replace = int(entry.state is State.DONE or bool(entry.replace_output))
                ledger.move(entry.id, State.SEEN, "retry", attempts=0, replace_output=replace)
                _tell(entry, f"will be processed again (was {entry.state})", as_json=as_json)
            elif entry.attempts:
                ledger.amend(entry.id, attempts=0)
                _tell(entry, "will be tried again now", as_json=as_json)
            else:
                _tell(entry, f"is {entry.state} already", as_json=as_json)


@click.command(epilog="Example: dcnumd forget /srv/acquisition/M001_data.rtdc")
@FILES
@json_option
@with_settings(config_needed=False)
def forget(settings: Settings, files: tuple[pathlib.Path, ...], as_json: bool) -> None:
    """Remove each FILE from the ledger; the file itself and its result stay.

    If it is still in a watched folder, it is new to the daemon.
    """
    with _changing(settings, files) as (ledger, entries):
        for latest in entries:
            for entry in ledger.entries(path=latest.path):
                ledger.forget(entry.id)
            _tell(latest, "forgotten", as_json=as_json)


def _tell(entry: Entry, outcome: str, *, as_json: bool) -> None:
    """Print what became of one file."""
    if as_json:
        click.echo(json.dumps({"path": entry.path, "was": entry.state, "outcome": outcome}))
    else:
        click.echo(f"{entry.path}: {outcome}")


@contextlib.contextmanager
def _reading(settings: Settings) -> Iterator[Ledger | None]:
    ledger = Ledger.open_to_read(settings.state_folder())
    try:
        yield ledger
    finally:
        if ledger is not None:
            ledger.close()


@contextlib.contextmanager
def _changing(settings: Settings, files: tuple[pathlib.Path, ...]) -> Iterator[tuple[Ledger, list[Entry]]]:
    """Open the ledger for changes to the rows of `files`, all or none of them; then tell the daemon."""
    folder = settings.state_folder()
    if not ledger_path(folder).exists():
        raise click.UsageError(f"there is no ledger in {folder}; is this the daemon's config?")
    with Ledger.open(folder) as ledger:
        with ledger.transaction():
            yield ledger, [_entry_of(ledger, file) for file in files]
        _tell_daemon(folder)


def _entry_of(ledger: Ledger, file: pathlib.Path) -> Entry:
    path = os.path.abspath(file)  # noqa: PTH100 -- resolves '..' without following links
    entry = ledger.latest(path)
    if entry is None:
        raise click.UsageError(f"{path}: is not in the ledger")
    if entry.state is State.RUNNING:
        raise click.UsageError(f"{path}: is being processed now; wait, or stop the daemon first")
    return entry


def _tell_daemon(folder: pathlib.Path) -> None:
    """Have a running daemon look at its folders now."""
    if owner := lock_owner(folder):
        try:
            os.kill(owner, signal.SIGUSR1)
        except PermissionError:
            click.echo("the daemon belongs to another user and will notice at its next scan", err=True)
        except ProcessLookupError:
            return


def _why_unknown(settings: Settings, path: str) -> str:
    if settings.watched_folder_of(pathlib.Path(path)) is None:
        return "unknown: it is in no watched folder"
    refusal = CandidateFilter.of(settings.group_of(pathlib.Path(path))).refusal(path)
    if refusal:
        return f"ignored: {REFUSALS[refusal]}"
    if not pathlib.Path(path).exists():
        return "unknown: there is no such file"
    return "unknown: the daemon has not seen it yet"


def _line(entry: Entry) -> str:
    """Return one line about a measurement."""
    details = {
        State.DONE: f"{entry.frames} frames, {entry.events} events in {entry.seconds or 0:.1f} s -> {entry.output}",
        State.RUNNING: f"{entry.frames_done or 0} of {entry.frames} frames",
    }.get(entry.state, ": ".join(text for text in (entry.reason, entry.error) if text))
    state = click.style(f"{entry.state:9}", fg=COLOURS.get(entry.state))
    return f"{entry.changed_at}  {state} {entry.path}  {details}".rstrip()


def _as_dict(entry: Entry) -> dict[str, Any]:
    return dataclasses.asdict(entry)


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2))
