"""The commands about the ledger: `why` shows the history of a measurement, the others change the ledger."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import signal
from collections.abc import Iterator, Sequence

import click

from dcnumd import routing
from dcnumd.commands.options import json_option, with_settings
from dcnumd.commands.shown import as_dict, entry_line, moment, print_json, reading
from dcnumd.config.values import Settings
from dcnumd.daemon.folders.links import LinkFault, stat_of
from dcnumd.daemon.folders.listing import CandidateFilter
from dcnumd.daemon.ledger.records import FINAL, Entry, State, Transition
from dcnumd.daemon.ledger.store import Ledger, ledger_path
from dcnumd.daemon.live.answers import Answer, ask
from dcnumd.daemon.measurements.lifecycle import begin_anew
from dcnumd.daemon.ownership import lock_owner
from dcnumd.errors import printable
from dcnumd.read.trust import Trust
from dcnumd.reasons import CATALOGUE, REFUSED_NAMES
from dcnumd.report.conditions import Condition, concerning, concerning_report
from dcnumd.report.wording import count_of
from dcnumd.words import distinct_names

NOT_SEEN = "unknown: the daemon has not seen it yet"
"""Explanation for a file that the daemon will see, or would if nothing were wrong."""

FILES = click.argument("files", metavar="FILE…", nargs=-1, required=True, type=click.Path(path_type=pathlib.Path))


@click.command(epilog="Example: dcnumd why M001_data.rtdc")
@click.argument("file", type=click.Path(path_type=pathlib.Path))
@json_option
@with_settings(config_needed=False)
def why(settings: Settings, file: pathlib.Path, as_json: bool) -> int:
    """Tell the way of one FILE, and why it is where it is. Exit code 1 if nothing is known of it.

    FILE is a measurement or its result. A name without a folder stands for all measurements in the ledger with that
    name, or with a result of that name, unless there is such a file in the current folder; each is told under its
    folder then. Times are local on a terminal and UTC elsewhere.
    """
    path = os.fspath(routing.plain_path(file))
    with reading(settings) as ledger:
        entries = ledger.entries(path=path) if ledger else []
        producer = ledger.producer(path) if ledger else None
        if ledger and producer and not entries:
            entries = ledger.entries(path=producer.path)
        elif ledger and not entries and file.name == os.fspath(file) and not os.path.lexists(path):
            entries = ledger.named(file.name)
        ways = {entry.id: ledger.transitions(entry.id) for entry in entries} if ledger else {}
    explanation = "" if entries and not producer else _why_unknown(settings, path, producer)
    waits = explanation == NOT_SEEN or any(entry.state not in FINAL or _lacks_report(entry) for entry in entries)
    told = (ask(settings.state_folder()) or Answer()) if waits else Answer()
    about = concerning(told.conditions, path) if explanation == NOT_SEEN else []
    if as_json:
        known = [
            {
                **as_dict(entry),
                "way": [dataclasses.asdict(step) for step in ways[entry.id]],
                "conditions": [dataclasses.asdict(one) for one in _waits_for(settings, entry, told.conditions)],
                "worker": told.workers.get(entry.path, "") if entry.state is State.RUNNING else "",
            }
            for entry in entries
        ]
        conditions = [dataclasses.asdict(one) for one in about]
        print_json({"path": path, "explanation": explanation, "conditions": conditions, "entries": known})
    elif explanation:
        click.echo(f"{printable(path)}: {explanation}")
        for one in about:
            click.echo(f"    {one.line}")
    names = distinct_names(entry.path for entry in entries)
    for name, same in itertools.groupby(entries if not as_json else (), lambda entry: names[entry.path]):
        if len(names) > 1:
            click.echo(f"{printable(name)}:")
        for entry in same:
            waiting = _waits_for(settings, entry, told.conditions)
            _show_way(entry, ways[entry.id], waiting, told.workers.get(entry.path, ""))
    return 0 if entries else 1


def _lacks_report(entry: Entry) -> bool:
    return entry.state is State.DONE and entry.report_state == "wanted"


def _waits_for(settings: Settings, entry: Entry, told: Sequence[Condition]) -> list[Condition]:
    """Return the conditions of the daemon because of which a measurement or its report waits."""
    if entry.state not in FINAL:
        return concerning(told, entry.path)
    if not _lacks_report(entry):
        return []
    result = pathlib.Path(entry.output or "")
    request = routing.report_request_for(settings, pathlib.Path(entry.path), result, entry.job_id)
    return concerning_report(told, request.path_report)


def _show_way(entry: Entry, way: Sequence[Transition], conditions: Sequence[Condition], worker: str) -> None:
    """Print the present state of a measurement with cause and cure, its report, and its earlier states."""
    click.echo(entry_line(entry, worker))
    for one in conditions:
        click.echo(f"    {one.line}")
    if cause := CATALOGUE.get(entry.reason):
        click.echo(f"    {cause.what}. {cause.cure}")
    if entry.interrupted:
        click.echo(f"    The recording was interrupted after {count_of(entry.frames or 0, 'frame')}.")
    if entry.report:
        click.echo(f"    report: {printable(entry.report)}")
    for step in way:
        reason = printable(f"{step.reason}{f': {step.error}' if step.error else ''}")
        click.echo(f"    {moment(step.time)}  {step.state:9} {reason}".rstrip())


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
            _tell(entry, begin_anew(ledger, entry), as_json=as_json)


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


@click.command(epilog="Example: dcnumd acknowledge")
@json_option
@with_settings(config_needed=False)
def acknowledge(settings: Settings, as_json: bool) -> None:
    """Say that somebody has seen what failed or got a red light, so that the live page and `status` are calm again.

    The measurements stay in the lists of history and of the live page.
    """
    with _changing(settings, ()) as (ledger, _):
        number = ledger.acknowledge()
    click.echo(json.dumps({"acknowledged": number}) if as_json else f"{number} acknowledged")


def _tell(entry: Entry, outcome: str, *, as_json: bool) -> None:
    """Print what the command did with one file."""
    if as_json:
        click.echo(json.dumps({"path": entry.path, "was": entry.state, "outcome": outcome}))
    else:
        click.echo(f"{printable(entry.path)}: {outcome}")


@contextlib.contextmanager
def _changing(settings: Settings, files: tuple[pathlib.Path, ...]) -> Iterator[tuple[Ledger, list[Entry]]]:
    """Yield the ledger and the latest row of each file within one transaction; then wake the daemon.

    Raises
    ------
    click.UsageError
        If there is no ledger, or if a file is not in it or is being processed; nothing is changed then.
    """
    folder = settings.state_folder()
    if not ledger_path(folder).exists():
        raise click.UsageError(f"there is no ledger in {folder}; is this the daemon's config?")
    with Ledger.open(folder) as ledger:
        with ledger.transaction():
            yield ledger, [_entry_of(ledger, file) for file in files]
        _tell_daemon(folder)


def _entry_of(ledger: Ledger, file: pathlib.Path) -> Entry:
    path = os.fspath(routing.plain_path(file))
    entry = ledger.latest(path)
    if entry is None:
        raise click.UsageError(f"{printable(path)}: is not in the ledger")
    if entry.state is State.RUNNING:
        raise click.UsageError(f"{printable(path)}: is being processed now; wait, or stop the daemon first")
    return entry


def _tell_daemon(folder: pathlib.Path) -> None:
    """Ask a running daemon to scan its folders now."""
    if owner := lock_owner(folder):
        try:
            os.kill(owner, signal.SIGUSR1)
        except PermissionError:
            click.echo("the daemon belongs to another user and will notice at its next scan", err=True)
        except ProcessLookupError:
            return


def _why_unknown(settings: Settings, path: str, producer: Entry | None) -> str:
    if producer is not None:
        return f"ignored: it is the result of {printable(producer.path)}"
    if settings.watched_folder_of(pathlib.Path(path)) is None:
        return "unknown: it is in no watched folder"
    refusal = CandidateFilter.of(settings.group_of(pathlib.Path(path))).refusal(path)
    if refusal:
        return f"ignored: {REFUSED_NAMES[refusal]}"
    try:
        found = stat_of(path, Trust(settings.trusted_folders()))
    except OSError:
        return "unknown: there is no such file"
    if isinstance(found, LinkFault):
        return f"ignored: {found.text}"
    return NOT_SEEN
