"""Reason codes: the source, the catalogue, the schema of the log and docs/operations.md know the same ones."""

from __future__ import annotations

import ast
import copy
import functools
import re
import typing
from collections.abc import Iterator

import pytest

from dcnumd import errors
from dcnumd.daemon.measurements.deadline import Deadline
from dcnumd.daemon.measurements.probe import Verdict
from dcnumd.errors import MeasurementError, WorkerError
from dcnumd.reasons import CATALOGUE, FAILURES, OTHERS, REFUSED_NAMES, codes_of
from dcnumd.write.result import REASONS
from tests.support.events import event_names, event_schema
from tests.support.manual import MANUAL, codes_in, documented, rows
from tests.support.source import PACKAGE, assigned, called, functions, modules, texts

OWN_ERRORS = {name for name, item in vars(errors).items() if isinstance(item, type)}
HANDED_ON = {
    "reason",
    "outcome",
    "error.reason",
    "self._worst.reason",
    "obstacle.reason",
    "result.reason",
    "found.verdict",
    "entry.reason",
}
"""Expressions for reasons that come from elsewhere, where they are looked at."""

with_manual = pytest.mark.skipif(not MANUAL.exists(), reason="the documents are not part of an installation")


def reason_positions() -> dict[str, int]:
    """Return the functions that take a reason, and at which place."""
    positions = {}
    for _, tree in modules():
        for function in functions(tree):
            names = [argument.arg for argument in function.args.args if argument.arg != "self"]
            if "reason" in names and not function.name.startswith("__"):
                positions[function.name] = names.index("reason")
    return positions


@functools.cache
def given_reasons() -> list[tuple[ast.expr, str, ast.Call]]:
    """Return each expression in the place of a reason, where it is, and in which call."""
    return list(found_reasons())


def found_reasons() -> Iterator[tuple[ast.expr, str, ast.Call]]:
    """Yield what `given_reasons` returns."""
    positions = reason_positions()
    for module, tree in modules():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            where, name = f"{module}:{node.lineno}", called(node)
            yield from ((keyword.value, where, node) for keyword in node.keywords if keyword.arg == "reason")
            position = 1 if name in OWN_ERRORS else positions.get(name, len(node.args))
            if position < len(node.args):
                yield node.args[position], where, node
            if name == "fromkeys" and len(node.args) > 1:
                yield node.args[1], where, node


def reasons_in_source() -> set[str]:
    """Return all reason codes that an error, a row of the ledger or a line of the log may have."""
    found = {text for expression, _, _ in given_reasons() for text in texts(expression)}
    for _, tree in modules():
        found |= {*assigned(tree, "reason"), *assigned(tree, "outcome")}
    found |= {*REASONS.values(), *typing.get_args(Verdict)}
    found |= set(typing.get_args(typing.get_type_hints(Deadline.wait)["return"]))
    # Those that mean success, and errors of Python, which have no codes.
    return {reason for reason in found if re.fullmatch("[a-z][a-z0-9_]*", reason)} - {"complete", "done"}


def test_the_catalogue_has_every_reason():
    """Whoever adds a code says what it means, and whoever removes one removes its words."""
    assert set(CATALOGUE) == reasons_in_source()
    assert not set(FAILURES) & set(OTHERS)


def test_reasons_are_named_where_they_arise():
    """A reason is a text in the source, or comes from one; else the test above would not see it."""
    handed_on = {
        where: ast.unparse(expression)
        for expression, where, call in given_reasons()
        if (called(call) in OWN_ERRORS or expression in {keyword.value for keyword in call.keywords})
        and not list(texts(expression))
        and ast.unparse(expression) not in HANDED_ON
    }
    assert handed_on == {}


def test_errors_say_that_they_may_pass_only_where_their_code_does_not():
    """A code either has one answer for all errors with it, or each error with it may give its own."""
    differing = {code for code, reason in CATALOGUE.items() if reason.transient == "depends"}
    given, needless = set[str](), dict[str, set[str]]()
    for expression, where, call in given_reasons():
        if called(call) in OWN_ERRORS and any(keyword.arg == "transient" for keyword in call.keywords):
            codes = set(texts(expression))
            given |= codes
            if codes and not codes & differing:
                needless[where] = codes
    assert needless == {}
    assert differing - given == set()


def test_an_error_takes_from_its_code_whether_it_may_pass():
    """Its own word counts before that, and crosses the border of a process with it."""
    assert WorkerError("…", "memory").transient
    assert not MeasurementError("…", "damaged").transient
    assert not MeasurementError("…", "unreadable").transient
    assert not MeasurementError("…", "of_another_package").transient
    assert copy.copy(MeasurementError("…", "unreadable", transient=True)).transient


def test_only_a_hang_is_called_stalled():
    """It is the deadline that finds one; whoever raises that code for another fault sends the operator astray."""
    assert [where for expression, where, _ in given_reasons() if "stalled" in texts(expression)] == []


@pytest.mark.parametrize("code", CATALOGUE)
def test_every_reason_has_a_cause_and_a_cure(code):
    """What has happened stands before a full stop, or a colon; what to do about it is a sentence."""
    reason = CATALOGUE[code]
    assert reason.what[0].isupper() or reason.what.startswith("dcnumd ")
    assert not reason.what.endswith(".")
    assert reason.cure.endswith(".")


def test_every_refused_name_has_words():
    """`why` knows each reason for which a name is not taken."""
    tree = ast.parse((PACKAGE / "daemon" / "folders" / "listing.py").read_text("utf-8"))
    (refusal,) = [function for function in functions(tree) if function.name == "refusal"]
    returned = [node.value for node in ast.walk(refusal) if isinstance(node, ast.Return) and node.value is not None]
    assert {text for value in returned for text in texts(value) if text} == set(REFUSED_NAMES)


@with_manual
def test_every_reason_is_in_the_manual():
    """Each reason code has its cure in the manual, and the manual knows no others."""
    assert set(documented("## Reason codes")) == set(CATALOGUE)
    assert sorted(documented("### Of job.failed")) == sorted(FAILURES)


@with_manual
def test_the_manual_says_what_is_tried_again():
    """Its column agrees with the catalogue; of what the daemon waits for, it says nothing."""
    said = {code: row[2] for row in rows("### Of job.failed") for code in codes_in(row[0])}
    waits = codes_of("results")
    assert {code for code, again in said.items() if not again} == waits
    found = {code: again if again in {"yes", "no"} else "depends" for code, again in said.items() if code not in waits}
    assert found == {code: reason.transient for code, reason in FAILURES.items() if code not in waits}


def reasons_of(event: str) -> set[str]:
    """Return the reasons that the schema allows an event."""
    reason = event_schema()["$defs"][event]["properties"].get("reason", {})
    listed = [reason, *reason.get("anyOf", ())]
    return {code for one in listed for code in (*one.get("enum", ()), *([one["const"]] if "const" in one else []))}


def test_the_schema_knows_the_failures():
    """A failed job has a reason of the catalogue, and a blocked folder one that measurements wait for."""
    definitions = event_schema()["$defs"]
    assert definitions["failure"]["enum"] == sorted(FAILURES)
    assert reasons_of("disk.low") | reasons_of("output.blocked") == codes_of("results")
    blocked = definitions["daemon.heartbeat"]["properties"]["blocked"]["items"]["properties"]
    assert set(blocked["reason"]["enum"]) == codes_of("results")


@with_manual
def test_the_schema_knows_the_reasons_of_each_event():
    """The manual's tables and the schema's enumerations name the same codes."""
    others = set().union(*(reasons_of(name) for name in event_names() - {"job.failed"}))
    known = {*documented("### Of other events"), *documented("### Of job.failed")}
    assert set(documented("### Of other events")) <= others <= known
