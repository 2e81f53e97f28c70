"""The log events and reason codes: what the source holds, the schema and docs/operations.md say the same."""

from __future__ import annotations

import ast
import io
import json
import pathlib
import re
import typing
from collections.abc import Iterator

import jsonschema
import pytest
import structlog

import dcnumd
from dcnumd import errors
from dcnumd.config.values import LogSettings
from dcnumd.daemon import logs
from dcnumd.daemon.ledger.records import SURROUNDINGS
from dcnumd.daemon.measurements.deadline import Deadline
from dcnumd.daemon.measurements.probe import Verdict
from dcnumd.write.result import REASONS
from tests.support.events import event_fields, event_names, event_schema, fault_of

PACKAGE = pathlib.Path(dcnumd.__file__).parent
MANUAL = PACKAGE.parent / "docs" / "operations.md"
LOGS = re.compile(r"(log|job_log\(.*\))\.(debug|info|warning|error|critical|exception)")
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
COMMON = {"event", "exc_info"}

pytestmark = pytest.mark.skipif(not MANUAL.exists(), reason="the documents are not part of an installation")


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Yield the syntax of each module of the package that works under the daemon."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.parent.name != "simulate":
            yield str(path.relative_to(PACKAGE)), ast.parse(path.read_text("utf-8"))


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield all functions of a module."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def called(node: ast.Call) -> str:
    """Return the last name of what is called."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def texts(node: ast.expr) -> Iterator[str]:
    """Yield the texts that an expression may be."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from texts(node.body)
        yield from texts(node.orelse)


def assigned(tree: ast.AST, suffix: str) -> Iterator[str]:
    """Yield the texts that are given to variables whose name ends like that."""
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id.endswith(suffix) for target in targets):
            yield from texts(node.value)


def logged() -> Iterator[tuple[str, set[str], str]]:
    """Yield each event in the source with the fields that its line gets by name, and where it is."""
    for module, tree in modules():
        for function in functions(tree):
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and LOGS.fullmatch(ast.unparse(node.func)):
                    first, fields = node.args[0], {keyword.arg for keyword in node.keywords if keyword.arg}
                    for name in assigned(function, "event") if isinstance(first, ast.Name) else texts(first):
                        yield name, fields, f"{module}:{node.lineno}"
                elif isinstance(node, ast.Dict):
                    keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
                    if "event" in keys:
                        for name in texts(node.values[keys.index("event")]):
                            yield name, set(keys), f"{module}:{node.lineno}"


def reason_positions() -> dict[str, int]:
    """Return the functions that take a reason, and at which place."""
    positions = {}
    for _, tree in modules():
        for function in functions(tree):
            names = [argument.arg for argument in function.args.args if argument.arg != "self"]
            if "reason" in names and not function.name.startswith("__"):
                positions[function.name] = names.index("reason")
    return positions


def given_reasons() -> Iterator[tuple[ast.expr, str, bool]]:
    """Yield each expression in the place of a reason, where it is, and whether it can be nothing else."""
    positions = reason_positions()
    for module, tree in modules():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            where, name = f"{module}:{node.lineno}", called(node)
            is_error = name in OWN_ERRORS
            yield from ((keyword.value, where, True) for keyword in node.keywords if keyword.arg == "reason")
            position = 1 if is_error else positions.get(name, len(node.args))
            if position < len(node.args):
                yield node.args[position], where, is_error
            if name == "fromkeys" and len(node.args) > 1:
                yield node.args[1], where, False


def reasons_in_source() -> set[str]:
    """Return all reason codes that an error, a row of the ledger or a line of the log may have."""
    found = {text for expression, _, _ in given_reasons() for text in texts(expression)}
    for _, tree in modules():
        found |= {*assigned(tree, "reason"), *assigned(tree, "outcome")}
    found |= {*SURROUNDINGS, *REASONS.values(), *typing.get_args(Verdict)}
    found |= set(typing.get_args(typing.get_type_hints(Deadline.wait)["return"]))
    # Those that mean success, and errors of Python, which have no codes.
    return {reason for reason in found if re.fullmatch("[a-z][a-z0-9_]*", reason)} - {"complete", "done"}


def documented(heading: str) -> list[str]:
    """Return the codes that the tables below a heading of the manual define, until the next one of its rank."""
    rank = heading.partition(" ")[0]
    _, _, below = MANUAL.read_text("utf-8").partition(f"\n{heading}\n")
    assert below, f"{MANUAL.name} has no heading {heading!r}"
    section = re.split(rf"^#{{1,{len(rank)}}} ", below, maxsplit=1, flags=re.MULTILINE)[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return [code for cell in cells for code in re.findall(r"`([a-z0-9_.]+)`", cell)]


def test_every_event_is_in_the_schema_and_in_the_manual():
    """Whoever adds an event describes it, and whoever removes one removes its description."""
    in_source = {name for name, _, _ in logged()}
    in_manual = documented("## Log events")
    assert event_names() == in_source
    assert sorted(in_manual) == sorted(in_source)


def test_every_field_is_in_the_schema():
    """A line has no fields that its event does not define."""
    unknown = {where: fields - COMMON - event_fields(name) for name, fields, where in logged()}
    assert {where: fields for where, fields in unknown.items() if fields} == {}


def test_every_reason_is_in_the_manual():
    """Each reason code has its cure in the manual, and the manual knows no others."""
    assert set(documented("## Reason codes")) == reasons_in_source()


def test_reasons_are_named_where_they_arise():
    """A reason is a text in the source, or comes from one; else the test above would not see it."""
    handed_on = {
        where: ast.unparse(expression)
        for expression, where, must in given_reasons()
        if must and not list(texts(expression)) and ast.unparse(expression) not in HANDED_ON
    }
    assert handed_on == {}


def test_the_schema_knows_the_reasons_of_each_event():
    """The manual's tables and the schema's enumerations name the same codes."""
    definitions = event_schema()["$defs"]
    assert sorted(documented("### Of job.failed")) == sorted(definitions["failure"]["enum"])
    others = set()
    for name in event_names() - {"job.failed"}:
        reason = definitions[name]["properties"].get("reason", {})
        others |= {*reason.get("enum", ()), *([reason["const"]] if "const" in reason else [])}
    known = {*documented("### Of other events"), *documented("### Of job.failed")}
    assert set(documented("### Of other events")) <= others <= known


def test_the_schema_is_sound():
    """It is a JSON Schema of 2020-12, and as a whole it allows each of its events."""
    schema = event_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    listed = {choice["$ref"].removeprefix("#/$defs/") for choice in schema["anyOf"]}
    assert listed == event_names() | {"shortened"}


LINE = {"event": "job.failed", "level": "error", "timestamp": "2026-01-02T03:04:05.678901Z"}
JOB = {"job_id": "a1", "path": "/srv/M.rtdc", "ppid": None, "pphash": None}
FAILURE = {"reason": "damaged", "error": "…", "error_type": "MeasurementError", "attempt": 1, "will_retry": False}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({}, None),
        ({"exception": "Traceback …"}, None),
        ({"event": "job.exploded"}, "no event 'job.exploded'"),
        ({"reason": "bad_luck"}, "'bad_luck' is not one of"),
        ({"attempt": "1"}, "'1' is not of type 'integer'"),
        ({"level": "info"}, "'info' is not one of"),
        ({"colour": "red"}, "'colour' was unexpected"),
        ({"timestamp": "yesterday"}, "'yesterday' does not match"),
    ],
)
def test_lines_that_are_something_else_are_found(changes, complaint):
    """Unknown events, reasons, fields and types are faults, and the complaint names them."""
    fault = fault_of({**LINE, **JOB, **FAILURE, **changes})
    assert fault is None if complaint is None else complaint in (fault or "")
    lacking = {**LINE, **JOB, **FAILURE}
    del lacking["will_retry"]
    assert "'will_retry' is a required property" in (fault_of(lacking) or "")


def test_a_line_that_was_shortened_is_allowed():
    """A line that would be too long for journald keeps its name, and fits the schema as a whole."""
    stream = io.StringIO()
    logs.configure(LogSettings(format="json"), stream)
    try:
        folders = [f"/srv/{number:0500d}" for number in range(100)]
        structlog.get_logger().info("daemon.started", folders=folders)
    finally:
        structlog.reset_defaults()
    event = json.loads(stream.getvalue())
    assert event["event"] == "daemon.started"
    assert event["shortened_from"] > logs.MAX_LINE
    assert fault_of(event) is None
    assert jsonschema.Draft202012Validator(event_schema()).is_valid(event)
