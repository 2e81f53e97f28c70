"""Conversion of rows of the ledger to the form that the live page shows."""

from __future__ import annotations

import dataclasses
import pathlib
import typing
from collections.abc import Mapping
from typing import Literal

from dcnumd.daemon.ledger.records import Entry, State
from dcnumd.daemon.ledger.store import Ledger
from dcnumd.status import Ended, Unacknowledged, Waiting

SHOWN_WAITING = 50
"""Largest number of waiting measurements shown."""
SHOWN_ENDED = 20
"""Largest number of finished measurements shown, for each final state."""


@dataclasses.dataclass(frozen=True, slots=True)
class Lists:
    """The measurements in the ledger that are shown, and the number of rows in each state."""

    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    waiting: tuple[Waiting, ...] = ()
    done: tuple[Ended, ...] = ()
    failed: tuple[Ended, ...] = ()
    unacknowledged: Unacknowledged = dataclasses.field(default_factory=Unacknowledged)

    @classmethod
    def of(cls, ledger: Ledger) -> Lists:
        """Return the lists from a ledger."""
        failed, red, latest = ledger.unacknowledged()
        waiting = ledger.entries(State.SETTLING, State.QUEUED, limit=2 * SHOWN_WAITING)
        return cls(
            {str(state): number for state, number in ledger.counts().items()},
            tuple(waiting_row(entry) for entry in waiting),
            tuple(ended_row(entry) for entry in ledger.history(State.DONE, limit=SHOWN_ENDED)),
            tuple(ended_row(entry) for entry in ledger.history(State.FAILED, limit=SHOWN_ENDED)),
            Unacknowledged(failed, red, ended_row(latest) if latest else None),
        )


def waiting_row(entry: Entry) -> Waiting:
    """Return a waiting measurement in the form that the live page shows."""
    state: Literal["settling", "queued"] = "queued" if entry.state in {State.QUEUED, State.RUNNING} else "settling"
    return Waiting(entry.id, entry.path, state, entry.changed_at, entry.reason, entry.error)


def ended_row(entry: Entry) -> Ended:
    """Return a finished measurement in the form that the live page shows."""
    return Ended(
        id=entry.id,
        path=entry.path,
        name=pathlib.PurePath(entry.path).name,
        sample=entry.sample,
        state=typing.cast('Literal["done", "failed", "skipped"]', str(entry.state)),
        ended=entry.finished_at or "",
        frames=entry.frames,
        events=entry.events,
        seconds=entry.seconds,
        light=entry.light,
        warnings=tuple(entry.warnings.split()),
        reason=entry.reason,
        error=entry.error,
        output=entry.output or "",
        has_report=entry.report is not None and entry.report.endswith(".html"),
        report_wanted=entry.report_state == "wanted",
    )
