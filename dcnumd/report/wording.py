"""What people are told of a measurement, in words for the operator: its traffic light, its warnings, why it failed."""

from __future__ import annotations

from typing import NamedTuple

from dcnumd.errors import printable
from dcnumd.reasons import CATALOGUE, Reason
from dcnumd.report.request import Light


class Verdict(NamedTuple):
    """What a traffic light says, and what it means."""

    what: str
    meaning: str


VERDICTS: dict[Light, Verdict] = {
    "green": Verdict("Looks good", "None of the checks found anything that needs a look."),
    "yellow": Verdict("Needs a look", "The measurement can be used; look at this before the next sample."),
    "red": Verdict("Hardly of use", "Something is badly wrong with this measurement."),
    "grey": Verdict("Not judged", "There is not enough in this result to judge it."),
}
LIGHTS: dict[str, str] = {light: verdict.what for light, verdict in VERDICTS.items()}
"""What a traffic light says, alone."""
WARNINGS = {
    "few_events": "few events",
    "flicker": "flicker",
    "masks_dropped": "many masks dropped",
    "background_drift": "the background drifts",
    "too_dark": "too dark",
    "too_bright": "too bright",
    "border_cells": "many cells at the border",
    "saturated": "saturated pixels",
    "clogging": "clogging",
}
"""The checks of a report."""


def cause_of(reason: str) -> Reason:
    """Return what a reason code means; codes of other versions speak for themselves."""
    unknown = Reason(printable(reason.replace("_", " ")).capitalize(), "", "nobody", "no")
    return CATALOGUE.get(reason, unknown)


def told_of_blocked(problem: str, reason: str, error: str, waiting: int) -> str:
    """Return in one line that a folder takes no results: the event, the cause, the cure, and how many wait for it."""
    cause = cause_of(reason)
    who = f"{waiting:,} measurements wait" if waiting != 1 else "1 measurement waits"
    return f"{problem}: {cause.what}: {printable(error)}. {cause.cure} {who}."


def explained(error: str, path: str) -> str:
    """Return what exactly was wrong; the measurement's own path goes without saying."""
    return printable(error).removeprefix(f"{printable(path)}: ")
