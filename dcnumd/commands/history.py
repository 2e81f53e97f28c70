"""The command `history`: the outcome of past measurements, as a table, CSV or JSON."""

from __future__ import annotations

import datetime as dt
import re
import sys
from typing import Any, get_args

import click

from dcnumd.commands.options import json_option, with_settings
from dcnumd.commands.shown import as_dict, entry_line, print_csv, print_json, reading
from dcnumd.config.values import Settings
from dcnumd.daemon.ledger.records import FINAL, Entry, State
from dcnumd.report.request import Light

CSV_COLUMNS = (
    "finished_at",
    "state",
    "light",
    "warnings",
    "sample",
    "path",
    "output",
    "report",
    "frames",
    "events",
    "seconds",
    "attempts",
    "reason",
    "error",
    "seen_at",
    "started_at",
    "identifier",
    "ppid",
    "pphash",
    "job_id",
)
"""Columns of the CSV output. Their names and order are stable; new columns are appended."""

AGE = re.compile(r"(\d+(?:\.\d+)?) ?(s|m|min|h|d|w)")
DAYS_AGO = {"today": 0, "yesterday": 1}
SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Moment(click.ParamType[str]):
    """A point in time: ``2026-11-21``, ``2026-11-21T10:30``, ``yesterday``, or an age such as ``3d`` (three days ago).

    Parameters
    ----------
    day_end
        Whether a date without a time means the end of that day instead of its beginning.
    """

    name = "TIME"

    def __init__(self, *, day_end: bool) -> None:
        self._day_end = day_end

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the time as the ledger stores it: UTC, ISO 8601. A time without a time zone is local."""
        text = str(value).strip()
        try:
            moment = self._moment(text)
            return moment.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r}: expected a time such as 2026-11-21, 2026-11-21T10:30, yesterday, 2h or 3d", param, ctx
            )

    def _moment(self, text: str) -> dt.datetime:
        if age := AGE.fullmatch(text):
            return dt.datetime.now(dt.UTC) - dt.timedelta(seconds=float(age[1]) * SECONDS[age[2]])
        try:
            today = dt.datetime.now().astimezone().date()
            day = today - dt.timedelta(DAYS_AGO[text]) if text in DAYS_AGO else dt.date.fromisoformat(text)
        except ValueError:
            return dt.datetime.fromisoformat(text)
        day += dt.timedelta(days=self._day_end)
        return dt.datetime.combine(day, dt.time())


@click.command(epilog="Example: dcnumd history --since 7d --state failed --csv > failed.csv")
@click.option("-n", "number", default=20, show_default=True, type=click.IntRange(0), help="How many; 0: all.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(sorted(state.value for state in FINAL)),
    help="Only what came to this end. Can be repeated.",
)
@click.option("--failed", is_flag=True, help="Only those that failed; short for --state failed.")
@click.option(
    "--since", type=Moment(day_end=False), help="Only what ended then or later: 2026-11-21T10:30, yesterday, 2h."
)
@click.option("--until", type=Moment(day_end=True), help="Only what ended before; a day alone is included.")
@click.option("--sample", default="", metavar="TEXT", help="Only samples whose name contains this.")
@click.option("--light", type=click.Choice(get_args(Light)), help="Only reports with this traffic light.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV (RFC 4180), with a header.")
@click.option(
    "--features", is_flag=True, help="Print CSV with median, mean and SD of each feature, one line for each result."
)
@json_option
@with_settings(config_needed=False)
def history(
    settings: Settings,
    number: int,
    states: tuple[str, ...],
    failed: bool,
    since: str | None,
    until: str | None,
    sample: str,
    light: str | None,
    as_csv: bool,
    features: bool,
    as_json: bool,
) -> int:
    """List what became of the last measurements, the newest first.

    Times are local on a terminal and UTC elsewhere. In CSV, text that a spreadsheet would take for a formula begins
    with an apostrophe, and what cannot be printed is escaped; --json has everything as it is. --features takes the
    figures of the reports, and computes those that are missing; exit code 1 if a result cannot be read.
    """
    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude each other")
    wanted = {State(state) for state in states} | ({State.FAILED} if failed else set())
    if features:
        if wanted - {State.DONE}:
            raise click.UsageError("--features is about measurements that are done; leave --state and --failed out")
        wanted = {State.DONE}
    since, until, light = since or "", until or "", light or ""
    entries: list[Entry] = []
    with reading(settings) as ledger:
        if ledger is not None:
            entries = ledger.history(
                *sorted(wanted), since=since, until=until, sample=sample, light=light, limit=number or -1
            )
    if features:
        # Imported here because other forms of the list need no reports.
        from dcnumd.commands.history_features import print_features  # noqa: PLC0415

        return print_features(settings, entries, as_json=as_json)
    if as_json:
        print_json([as_dict(entry) for entry in entries])
    elif as_csv:
        print_csv(CSV_COLUMNS, ([getattr(entry, name) for name in CSV_COLUMNS] for entry in entries))
    elif not entries:
        filtered = wanted or since or until or sample or light
        click.echo("no measurement fits" if filtered else "no measurement has come to its end yet", err=True)
    elif sys.stdout.isatty():
        # Imported here because only the output to a terminal needs rich.
        from dcnumd.commands.history_table import show_table  # noqa: PLC0415

        show_table(entries, more=len(entries) == number)
    else:
        for entry in entries:
            click.echo(entry_line(entry))
    return 0
