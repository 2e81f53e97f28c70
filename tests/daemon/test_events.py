"""The log events: what the source holds, the schema and docs/reference/events.md say the same."""

from __future__ import annotations

import ast
import io
import json
import re
from collections.abc import Iterator

import jsonschema
import pytest
import structlog

from dcnumd.config.values import LogSettings
from dcnumd.daemon import logs
from tests.support.events import event_fields, event_names, event_schema, fault_of
from tests.support.manual import EVENTS, documented, rows
from tests.support.source import assigned, functions, modules, texts

LOGS = re.compile(r"(log|job_log\(.*\))\.(debug|info|warning|error|critical|exception)")
COMMON = {"event", "exc_info"}

pytestmark = pytest.mark.skipif(not EVENTS.exists(), reason="the documents are not part of an installation")


def logged() -> Iterator[tuple[str, set[str], str]]:
    """Yield each event in the source with the fields that its line gets by name, and where it is."""
    # Who simulates a recording only reads the log.
    for module, tree in ((name, tree) for name, tree in modules() if not name.startswith("simulate/")):
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


def test_every_event_is_in_the_schema_and_in_the_manual():
    """Whoever adds an event describes it, and whoever removes one removes its description."""
    in_source = {name for name, _, _ in logged()}
    in_manual = documented("# Log events", EVENTS)
    assert event_names() == in_source
    assert sorted(in_manual) == sorted(in_source)


def test_every_field_is_explained():
    """The manual names each field of each event with its meaning; those of every line, and of every job, once."""
    common = event_fields("job.queued") | {"exception"}
    for event, _, meaning, fields in rows("# Log events", EVENTS):
        name = event.strip("`")
        explained = re.findall(r"`(\w+)`(?: \(optional\))?: \S", fields)
        assert meaning.endswith(".")
        assert set(explained) - common == event_fields(name) - common, name
    introduction = EVENTS.read_text("utf-8").partition("\n| ")[0]
    assert common - set(re.findall(r"`(\w+)`", introduction)) == set()


def test_every_field_is_in_the_schema():
    """A line has no fields that its event does not define."""
    unknown = {where: fields - COMMON - event_fields(name) for name, fields, where in logged()}
    assert {where: fields for where, fields in unknown.items() if fields} == {}


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
