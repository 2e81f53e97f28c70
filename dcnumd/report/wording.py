"""The words for the operator: traffic lights, warnings, and the causes of failures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dcnumd.errors import printable
from dcnumd.reasons import CATALOGUE, Reason
from dcnumd.report.request import Light


class Verdict(NamedTuple):
    """The text of a traffic light, and its meaning."""

    what: str
    meaning: str


VERDICTS: dict[Light, Verdict] = {
    "green": Verdict("Looks good", "No check found a problem."),
    "yellow": Verdict("Please check", "The measurement can be used; read the warnings before the next sample."),
    "red": Verdict("Unusable", "The measurement has a serious problem; record the sample again if you can."),
    "grey": Verdict("Not rated", "The result contains too little to rate it."),
}
LIGHTS: dict[str, str] = {light: verdict.what for light, verdict in VERDICTS.items()}
"""Text of each traffic light, without its meaning."""
WARNINGS = {
    "interrupted": "interrupted",
    "no_events": "no events",
    "few_events": "few events",
    "flicker": "flicker",
    "ragged_contours": "ragged contours",
    "masks_dropped": "many masks dropped",
    "background_drift": "the background drifts",
    "too_dark": "too dark",
    "too_bright": "too bright",
    "border_cells": "many cells at the border",
    "saturated": "saturated pixels",
    "clogging": "clogging",
}
"""Short text of each check that warns."""


def cause_of(reason: str) -> Reason:
    """Return cause and cure of a reason code; for unknown codes, of other versions, the code itself as cause."""
    unknown = Reason(printable(reason.replace("_", " ")).capitalize(), "", "nobody", "no")
    return CATALOGUE.get(reason, unknown)


def told_of_blocked(problem: str, reason: str, error: str, waiting: int) -> str:
    """Return a line about a folder that takes no results: event, cause, error, cure, and number of waiting files."""
    cause = cause_of(reason)
    return f"{problem}: {cause.what}: {printable(error)}. {cause.cure} {who_waits(waiting)}."


def who_waits(waiting: int, noun: str = "measurement") -> str:
    """Return how many measurements or others wait, such as ``1 measurement waits``."""
    return f"{waiting:,} {noun}s wait" if waiting != 1 else f"1 {noun} waits"


def news_in_words(failed: int, red: int) -> str:
    """Return numbers of failures and red lights as text, such as ``2 failures and 1 red light``; empty for none."""
    counts = ((failed, "failure"), (red, "red light"))
    return " and ".join(f"{number:,} {noun}{'s' if number > 1 else ''}" for number, noun in counts if number)


def warning_words(names: Iterable[str]) -> str:
    """Return the checks that warn, in words."""
    return ", ".join(WARNINGS.get(name, name.replace("_", " ")) for name in names)


def explained(error: str, path: str) -> str:
    """Return an error without the path of the measurement at its beginning."""
    return printable(error).removeprefix(f"{printable(path)}: ")


def count_of(count: int, word: str) -> str:
    """Return a number and a noun, such as ``1 event`` or ``1,234 events``."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def inner(title: str) -> str:
    """Return a title as part of a sentence: in small letters, unless it begins with an abbreviation."""
    return title if title[:2].isupper() else title.lower()


def listed(names: Sequence[str]) -> str:
    """Return names as text, such as ``a, b and c``."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def percent(share: float) -> str:
    """Return a share as text, such as ``12 %``; only a share of 1 is ``100 %``."""
    if 0.995 <= share < 1:
        return f"{math.floor(1000 * share) / 10:g} %"
    return f"{short(100 * share)} %"


def short(value: float) -> str:
    """Return a number with two significant digits, or with all of those before the decimal point."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    decimals = max(0, 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
