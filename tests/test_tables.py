"""Tables over a set of codes have all of them, so that no code ends a command in a KeyError."""

from __future__ import annotations

import ast
import pathlib
from typing import get_args

import pytest

from dcnumd.commands import ledger, report, rich_parts, status_screen
from dcnumd.config.values import Settings
from dcnumd.daemon.ledger.records import FINAL, TRANSITIONS, State
from dcnumd.daemon.measurements.inspector import incomplete
from dcnumd.daemon.measurements.probe import Look, Verdict
from dcnumd.daemon.measurements.tracker import Candidate
from dcnumd.logic.job_line import Stage
from dcnumd.logic.stamp import Stamp
from dcnumd.report import checks, index_rebuild, make, page, request, wording
from dcnumd.web import words

PACKAGE = pathlib.Path(wording.__file__).parents[1]
NO_MEASUREMENTS = {
    "already_processed",
    "demo",
    "ended",
    "ledger",
    "ledger_damaged",
    "ledger_locked",
    "output_not_writable",
    "silent",
    "state_folder",
}
"""Codes of commands and of the daemon itself, and of results that needed no computing."""


@pytest.mark.parametrize(
    ("table", "codes"),
    [
        (TRANSITIONS, State),
        (rich_parts.STATES, FINAL),
        (status_screen.WAITING_WORDS, {State.SETTLING, State.QUEUED}),
        (rich_parts.LIGHTS, get_args(request.Light)),
        (report.LIGHTS, get_args(request.Light)),
        (wording.VERDICTS, get_args(request.Light)),
        (page.LIGHT_HEX, get_args(request.Light)),
        (index_rebuild.LIGHTS, get_args(request.Light)),
        (page.STATE_COLOURS, get_args(checks.State)),
        (page.STATE_WORDS, get_args(checks.State)),
        (dict.fromkeys(page.SEVERITY), get_args(checks.State)),
        (make.ENDINGS, get_args(request.Format)),
        (words.STAGES, get_args(Stage)),
    ],
)
def test_tables_are_complete(table, codes):
    """Neither is a code missing, nor is there a word for none."""
    assert set(table) == set(codes)


def trees():
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path, ast.parse(path.read_text("utf-8"))


def codes_in(node):
    """Return the codes in an expression that may be its value."""
    values = {one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)}
    return {value for value in values if value.isidentifier()}


def reasons(tree):
    """Yield the reasons that a module gives to its errors and outcomes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", "")
            if name.endswith("Error"):
                yield from (text for argument in node.args[1:2] for text in codes_in(argument))
            if name.endswith("Error") or name == "JobResult":
                yield from (text for word in node.keywords if word.arg == "reason" for text in codes_in(word.value))
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "default_reason":
            yield from codes_in(node.value)


def test_every_reason_has_words():
    """Whatever an error in the code may give as its reason, people are told in words, with a cure."""
    given = {reason for _, tree in trees() for reason in reasons(tree) if reason}
    assert len(given) > 40
    assert given - NO_MEASUREMENTS - set(wording.CAUSES) == set()
    assert NO_MEASUREMENTS - given == set()


def test_every_check_has_words():
    """Each check of a report has a name for people."""
    tree = ast.parse(pathlib.Path(checks.__file__).read_text("utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    makers = {"Check", "_unknown", "_above"}
    first = [call.args[0] for call in calls if getattr(call.func, "id", "") in makers]
    names = {one.value for one in first if isinstance(one, ast.Constant)}
    assert names == set(wording.WARNINGS)


def test_every_refusal_has_words():
    """`why` knows each reason for which a name is not taken."""
    tree = ast.parse((PACKAGE / "daemon" / "folders" / "listing.py").read_text("utf-8"))
    (refusal,) = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "refusal"]
    given = {text for node in ast.walk(refusal) if isinstance(node, ast.Return) for text in codes_in(node)}
    assert given == set(ledger.REFUSALS)


@pytest.mark.parametrize("verdict", sorted(set(get_args(Verdict)) - {"complete", "own_output"}))
def test_every_verdict_ends_the_wait(verdict):
    """A file that stays as it is fails for a reason that has words, whichever way it is incomplete."""
    stamp = Stamp(1000, 0, 0, 0)
    candidate = Candidate("/in/a.rtdc", stamp, 1, "/in", Settings(), changed_at=0.0)
    error = incomplete(candidate, Look(verdict, stamp), 60.0)
    assert error.reason in wording.CAUSES
    assert "/in/a.rtdc: " in error.message
