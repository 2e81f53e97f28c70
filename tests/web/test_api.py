"""What programs get, held against the document that describes it."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import get_args, get_type_hints

import jsonschema
import openapi_spec_validator
import pytest

from dcnumd.report.conditions import Condition, Name
from dcnumd.status import (
    Blocked,
    Ended,
    Folder,
    Latency,
    Output,
    Recording,
    Running,
    Snapshot,
    Totals,
    Unacknowledged,
    Waiting,
)
from dcnumd.web.api import OPENAPI
from tests.support.web import TOKEN, busy, done, failed, full, png, running, snapshot

DOCUMENT = json.loads(OPENAPI.read_text("utf-8"))
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def checked(served, path, method="GET", **headers):
    """Ask, and hold the answer against the document."""
    answer = served.ask(path, method, **headers)
    plain = re.sub(r"/\d+", "/{id}", path.partition("?")[0])
    plain = re.sub(r"(/{id}/).+\.json$", r"\1{name}", plain)
    plain = re.sub(r"(/plots/).+$", r"\1{name}.{kind}", plain)
    described = DOCUMENT["paths"][plain][method.lower()]["responses"][str(answer.status)]
    if "$ref" in described:
        described = DOCUMENT["components"]["responses"][described["$ref"].rpartition("/")[2]]
    content_type = answer.headers["Content-Type"].partition(";")[0]
    assert content_type in described["content"]
    if content_type == "application/json":
        schema = {**described["content"][content_type]["schema"], "components": DOCUMENT["components"]}
        jsonschema.validate(answer.json, schema, jsonschema.Draft202012Validator)
    return answer


def test_document_is_sound_and_served(serve):
    openapi_spec_validator.validate(DOCUMENT)
    assert checked(serve(), "/api/v1/openapi.json").json == DOCUMENT


@pytest.mark.parametrize(
    "kind",
    [Blocked, Condition, Ended, Folder, Latency, Output, Recording, Running, Snapshot, Totals, Unacknowledged, Waiting],
)
def test_document_has_every_field(kind):
    """What is added to a value is described, too."""
    schema = DOCUMENT["components"]["schemas"]["Status" if kind is Snapshot else kind.__name__]
    more = {"totals", "conditions"} if kind is Snapshot else set()
    fields = {field.name for field in dataclasses.fields(kind)} | more
    assert set(schema["properties"]) == set(schema["required"]) == fields


def test_document_knows_the_states():
    for kind in (Ended, Waiting):
        schema = DOCUMENT["components"]["schemas"][kind.__name__]
        assert set(schema["properties"]["state"]["enum"]) == set(get_args(get_type_hints(kind)["state"]))
    condition = DOCUMENT["components"]["schemas"]["Condition"]
    assert condition["properties"]["name"]["enum"] == list(get_args(Name))


def test_every_route_is_in_the_document(serve):
    """All that can be asked is described, except what is for browsers alone."""
    served = serve()
    routes = served.call(lambda: [(r.method, r.resource.canonical) for r in served.page._runner.app.router.routes()])
    forms = {
        ("POST", path)
        for path in ("/acknowledge", "/pause", "/resume", "/sign-in", "/sign-out", "/measurements/{id}/retry")
    }
    known = {(m, p) for m, p in routes if m != "HEAD"} - forms - {("GET", "/"), ("GET", "/static/{name}")}
    assert known == {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}


@pytest.mark.parametrize("shown", [snapshot(), busy(), full()], ids=["idle", "busy", "full"])
def test_status(serve, shown):
    served = serve(shown)
    status = checked(served, "/api/v1/status").json
    expected = json.loads(json.dumps(dataclasses.asdict(shown)))
    assert {key: value for key, value in status.items() if key not in {"time", "totals", "conditions"}} == {
        key: value for key, value in expected.items() if key != "time"
    }
    assert status["totals"]["failed"] == {"damaged": 2, "no_images": 1}


def test_status_follows_what_changes(serve):
    served = serve()
    assert checked(served, "/api/v1/status").json["running"] is None
    served.show(snapshot(running=running()))
    assert checked(served, "/api/v1/status").json["running"]["frames"] == 40_000


def test_history_comes_in_pages(serve):
    served = serve(busy())
    first = checked(served, "/api/v1/measurements?limit=3").json
    assert [one["id"] for one in first["measurements"]] == [99, 98, 97]
    second = checked(served, f"/api/v1/measurements?limit=200&before={first['before']}").json
    assert [one["id"] for one in second["measurements"]] == [96, 95, 94, 93]
    assert second["before"] is None
    failed = checked(served, "/api/v1/measurements?state=failed").json
    assert [one["reason"] for one in failed["measurements"]] == ["damaged", "incomplete"]


def test_wrong_questions_are_told_what_is_expected(serve):
    served = serve(busy())
    for query in (
        "state=queued", "state=", "limit=0", "limit=201", "limit=x", "limit=%D9%A1", "before=-1", "before=1e3",
    ):  # fmt: skip
        answer = checked(served, f"/api/v1/measurements?{query}")
        assert answer.status == 400, query
        assert "expected" in answer.json["error"], query
    answer = checked(served, "/api/v1/measurements?limit=3&sates=failed")
    assert answer.status == 400
    assert answer.json["error"] == "'sates' is not a parameter; there are before, limit, state"


def test_one_measurement(serve):
    served = serve(busy())
    for number, state in ((99, "done"), (94, "failed"), (101, "queued"), (100, "running")):
        assert checked(served, f"/api/v1/measurements/{number}").json["state"] == state
    for unknown in (7, 999_999_999_999_999_999):
        assert checked(served, f"/api/v1/measurements/{unknown}").status == 404


def test_acknowledge(serve, token_file):
    """Failures and red lights are in the status until somebody acknowledges them."""
    served = serve(
        snapshot(unacknowledged=Unacknowledged(2, 1, failed(94, "damaged", "chunk 3"))), token_file=token_file
    )
    assert checked(served, "/api/v1/status").json["unacknowledged"]["latest"]["reason"] == "damaged"
    assert checked(served, "/api/v1/acknowledge", "POST", **BEARER).json == {"acknowledged": 3}
    assert checked(served, "/api/v1/status").json["unacknowledged"] == {"failed": 0, "red": 0, "latest": None}


def test_retry_pause_and_resume(serve, token_file):
    served = serve(busy(), token_file=token_file)
    outcome = checked(served, "/api/v1/measurements/94/retry", "POST", **BEARER).json["outcome"]
    assert "M094" in outcome
    assert served.desk.retried == [94]
    assert checked(served, "/api/v1/measurements/7/retry", "POST", **BEARER).status == 404
    answer = checked(served, "/api/v1/measurements/101/retry", "POST", **BEARER)
    assert (answer.status, "waits already" in answer.json["error"]) == (409, True)
    assert checked(served, "/api/v1/pause", "POST", **BEARER).json == {"paused": True}
    assert checked(served, "/api/v1/status").json["paused"]
    assert checked(served, "/api/v1/resume", "POST", **BEARER).json == {"paused": False}
    assert not checked(served, "/api/v1/status").json["paused"]


def test_answers_that_are_no_json_have_their_type(serve):
    served = serve(busy())
    served.desk.picture = png()
    served.desk.reports[99] = b"<!DOCTYPE html>"
    served.desk.figures[99, "M001_dcn.json"] = b"{}"
    for path in ("/plot.png", "/measurements/99/", "/measurements/99/M001_dcn.json", "/metrics"):
        assert checked(served, path).status == 200


def test_plots_are_files_of_both_kinds(serve):
    """By the name of a plot; where none is drawn now, the answer says why."""
    served = serve(busy())
    served.desk.plots = {(99, "area_um-deform", "png"): png(), (99, "area_um-deform", "svg"): b"<svg/>"}
    path = "/api/v1/measurements/99/plots/"
    for kind, content_type in (("png", "image/png"), ("svg", "image/svg+xml")):
        answer = checked(served, f"{path}area_um-deform.{kind}")
        assert (answer.status, answer.headers["Content-Type"]) == (200, content_type)
        assert answer.body == served.desk.plots[99, "area_um-deform", kind]
    assert checked(served, f"{path}volume.svg").status == 404
    for name in ("area_um-deform.pdf", "..%2fsecret.svg", f"{'x' * 101}.svg", "a%22b.svg"):
        assert served.ask(path + name).status == 404
    served.desk.held_plots = "Another plot is being drawn; try again."
    answer = checked(served, f"{path}volume.svg")
    assert (answer.status, answer.json["error"]) == (409, served.desk.held_plots)


def test_health_is_told_with_reasons(serve):
    served = serve()
    assert checked(served, "/healthz").json == {"status": "ok", "reasons": []}
    down = [
        {"healthy": False, "faults": ("ledger.unwritable",)},
        {"healthy": False, "faults": ("worker.failed",)},
        {"ready": False},
        {"stopping": True},
        {"folders": (Folder("/a", reachable=False), Folder("/b", reachable=False))},
        {"blocked": full().blocked},
    ]
    for fields in down:
        served.show(snapshot(**fields))
        answer = checked(served, "/healthz")
        assert (answer.status, answer.json["status"], len(answer.json["reasons"])) == (503, "failing", 1)
    told = "disk.low: The disk for the results is full: /mnt/results: 0.3 GB are free"
    assert answer.json["reasons"][0].startswith(told)
    for fields in ({"paused": True}, {"folders": (Folder("/a", reachable=False), Folder("/b", reachable=True))}):
        served.show(snapshot(**fields))
        assert checked(served, "/healthz").status == 200


def test_a_desk_that_fails_is_told(serve, caplog):
    served = serve()
    served.desk.broken = OSError("disk I/O error")
    for path in ("/api/v1/status", "/healthz", "/metrics"):
        answer = served.ask(path)
        assert answer.status == 503
    assert "disk I/O error" in caplog.text


def test_names_that_are_no_text_can_be_told(serve):
    shown = snapshot(done=(done(1, "\udcff.rtdc"),))
    assert checked(serve(shown), "/api/v1/measurements/1").json["name"] == "\udcff.rtdc"
