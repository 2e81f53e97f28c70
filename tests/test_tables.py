"""Tables over a set of codes have all of them, so that no code ends a command in a KeyError."""

from __future__ import annotations

import ast
import pathlib
from typing import get_args

import pytest

from dcnumd.commands import report, rich_parts, status_screen
from dcnumd.config.values import Settings
from dcnumd.daemon.ledger.records import FINAL, TRANSITIONS, State
from dcnumd.daemon.measurements.inspector import incomplete
from dcnumd.daemon.measurements.probe import Inspection, Verdict
from dcnumd.daemon.measurements.tracker import Candidate
from dcnumd.logic.job_line import Stage
from dcnumd.logic.stamp import Stamp
from dcnumd.reasons import FAILURES
from dcnumd.report import check, index_rebuild, page, request, wording
from dcnumd.web import words


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
        (page.STATE_COLOURS, get_args(check.State)),
        (page.STATE_WORDS, get_args(check.State)),
        (dict.fromkeys(page.SEVERITY), get_args(check.State)),
        (request.ENDINGS, get_args(request.Format)),
        (words.STAGES, get_args(Stage)),
    ],
)
def test_tables_are_complete(table, codes):
    """Neither is a code missing, nor is there a word for none."""
    assert set(table) == set(codes)


def test_every_check_has_words():
    """Each check of a report has a name for people."""
    trees = [ast.parse(path.read_text("utf-8")) for path in pathlib.Path(check.__file__).parent.glob("checks*.py")]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    makers = {"Check", "unknown", "above"}
    first = [call.args[0] for call in calls if getattr(call.func, "id", "") in makers]
    names = {one.value for one in first if isinstance(one, ast.Constant)}
    assert names == set(wording.WARNINGS)


@pytest.mark.parametrize("verdict", sorted(set(get_args(Verdict)) - {"complete", "own_output"}))
def test_every_verdict_ends_the_wait(verdict):
    """A file that stays as it is fails for a reason that has words, whichever way it is incomplete."""
    stamp = Stamp(1000, 0, 0, 0)
    candidate = Candidate("/in/a.rtdc", stamp, 1, "/in", Settings(), changed_at=0.0)
    error = incomplete(candidate, Inspection(verdict, stamp), 60.0)
    assert error.reason in FAILURES
    assert "/in/a.rtdc: " in error.message
