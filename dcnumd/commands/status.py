"""The command `status`: shows what the daemon is doing."""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import Any

import click

from dcnumd.commands.options import json_option, with_settings
from dcnumd.commands.shown import as_dict, entry_line, print_json, reading
from dcnumd.commands.status_values import IN_LEDGER, Pace, Status, live_in_words, present_state
from dcnumd.config.values import Settings
from dcnumd.daemon.ledger.store import ledger_path
from dcnumd.daemon.ownership import lock_owner
from dcnumd.errors import printable
from dcnumd.report.wording import told_of_blocked
from dcnumd.status import Live


@click.command(epilog="Example: dcnumd status --watch")
@click.option("-w", "--watch", "watched", is_flag=True, help="Stay and show each change, until Ctrl-C.")
@json_option
@with_settings(config_needed=False)
def status(settings: Settings, watched: bool, as_json: bool) -> None:
    """Show whether the daemon runs, what it is doing, what waits, what was done last, and what failed last.

    --json prints the same for other programs: dcnumd status --json | jq .counts
    """
    if watched:
        refuse_to_watch(as_json=as_json)
        # Imported here because only the output to a terminal needs rich.
        from dcnumd.commands.status_screen import watch  # noqa: PLC0415

        watch(settings)
        return
    owner = lock_owner(settings.state_folder())
    with reading(settings) as ledger:
        now = Status.of(settings, ledger)
    if as_json:
        print_json(_document(settings, now, owner))
    elif sys.stdout.isatty():
        from dcnumd.commands.status_screen import show  # noqa: PLC0415 -- likewise

        show(settings, now, owner)
    else:
        _print_plain(settings, now, owner)


def refuse_to_watch(*, as_json: bool) -> None:
    """Check that ``--watch`` makes sense for this output.

    Raises
    ------
    click.UsageError
        If the output is JSON, or does not go to a terminal that can be redrawn.
    """
    instead = "other programs call dcnumd status --json, or read the daemon's log"
    if as_json:
        raise click.UsageError(f"--watch and --json exclude each other; {instead}")
    if not sys.stdout.isatty() or os.environ.get("TERM", "dumb") in {"dumb", "unknown"}:
        raise click.UsageError(f"--watch needs a terminal; {instead}")


def _document(settings: Settings, status: Status, owner: int | None) -> dict[str, Any]:
    told, answered = present_state(settings, status, owner)
    running = []
    for entry in status.running:
        pace = Pace.of(entry, status.taken)
        left = pace.seconds_left(status.taken)
        estimate = {"frames_per_second": pace.frames_per_second, "seconds_left": left}
        worker = told.workers.get(entry.path, "")
        running.append({**as_dict(entry), "share": pace.share, **estimate, "worker": worker})
    return {
        "daemon_pid": owner,
        "daemon_answers": owner is not None and answered,
        "conditions": [dataclasses.asdict(one) for one in told.conditions],
        "ledger": os.fspath(ledger_path(settings.state_folder())),
        "counts": status.counts,
        "last_success": status.last_success,
        "unacknowledged": {"failed": status.failed_news, "red": status.red_news},
        "blocked": [dataclasses.asdict(blocked) for blocked in status.blocked],
        "running": running,
        "live": {path: _live_document(live) for path, live in told.live.items()},
        "waiting": [as_dict(entry) for entry in status.waiting],
        "done": [as_dict(entry) for entry in status.done],
        "failed": [as_dict(entry) for entry in status.failed],
    }


def _live_document(live: Live) -> dict[str, Any]:
    """Return what is known of a recording, without what only the live page has."""
    document = dataclasses.asdict(live)
    return {name: value for name, value in document.items() if name not in {"event_rate", "brightness", "plot"}}


def _print_plain(settings: Settings, status: Status, owner: int | None) -> None:
    """Print plain lines, each with its subject first, for logs and for `grep`."""
    told, answered = present_state(settings, status, owner)
    quiet = "" if answered else ", which does not answer"
    click.echo(f"daemon   {f'running (process {owner}{quiet})' if owner is not None else 'not running'}")
    for condition in told.conditions:
        if condition.name not in IN_LEDGER:
            click.echo(f"state    {condition.line}")
    click.echo(f"ledger   {ledger_path(settings.state_folder())}{'' if status.has_ledger else ' (not there yet)'}")
    click.echo("counts   " + ", ".join(f"{number} {state}" for state, number in status.counts.items() if number))
    click.echo(f"success  {status.last_success or 'none so far'}")
    for one in status.blocked:
        click.echo(f"blocked  {told_of_blocked(one.problem, one.reason, one.error, one.waiting)}")
    if status.news:
        click.echo(f"news     {status.news}; dcnumd acknowledge, once somebody has seen them")
    for path, live in told.live.items():
        click.echo(f"live     {printable(path)}: {live_in_words(live)}")
    for entry in (*status.running, *status.waiting, *status.done, *status.failed):
        click.echo(entry_line(entry, told.workers.get(entry.path, "")))
