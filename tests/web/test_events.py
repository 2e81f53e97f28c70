"""What browsers are told while they look."""

from __future__ import annotations

import dataclasses
import json
import time

import pytest

from dcnumd.web import feed, pages
from tests.support.web import busy, running, snapshot


def test_first_event_has_everything_and_the_next_ones_what_changed(serve):
    served = serve(busy())
    with served.listening() as listener:
        kind, parts = listener.next()
        assert kind == "snapshot"
        assert set(parts) == {"banner", "now", "live", "waiting", "plot", "done", "failed", "about"}
        served.show(dataclasses.replace(served.desk.shown, running=running(frames_done=20_000)))
        kind, parts = listener.next()
        assert kind == "snapshot"
        assert set(parts) == {"banner", "now"}
        assert "20,000 of 40,000" in parts["now"]


def test_the_page_and_the_events_say_the_same(serve):
    served = serve(busy())
    page = served.ask("/").text
    with served.listening() as listener:
        _, parts = listener.next()
    for html in parts.values():
        assert html in page


def test_changes_come_together_twice_per_second_at_most(serve):
    served = serve()
    with served.listening() as listener:
        listener.next()
        began = time.monotonic()
        for done in range(1, 101):
            served.show(snapshot(running=running(frames_done=done * 400)))
        heard = 0
        while "40,000 of 40,000" not in listener.next()[1].get("now", ""):
            heard += 1
        passed = time.monotonic() - began
    assert heard <= passed / feed.GAP_SECONDS + 1


def test_all_listeners_share_what_is_rendered(serve):
    served = serve(busy())
    listeners = []
    with served.listening() as one, served.listening() as two, served.listening() as three:
        listeners = [one, two, three]
        for listener in listeners:
            listener.next()
        before = served.desk.rendered
        served.show(snapshot())
        for listener in listeners:
            assert "Ready" in listener.next()[1]["banner"]
        assert served.desk.rendered == before + 1


def test_nothing_is_rendered_for_nobody(serve):
    served = serve()
    with served.listening() as listener:
        listener.next()
    deadline = time.monotonic() + 10
    while served.call(lambda: served.page._pages._listeners):
        assert time.monotonic() < deadline
    before = served.desk.rendered
    served.show(busy())
    assert served.desk.rendered == before
    with served.listening() as listener:
        assert "Processing" in listener.next()[1]["banner"]


def test_silence_is_broken(serve, monkeypatch):
    monkeypatch.setattr(pages, "ALIVE_SECONDS", 0.05)
    with serve().listening() as listener:
        assert listener.next()[0] == "snapshot"
        assert listener.next() == ("alive", 1)
        assert listener.next() == ("alive", 1)


def test_names_that_are_no_text_can_be_told(serve):
    with serve(snapshot(running=running(path="/srv/\udcff\n.rtdc"))).listening() as listener:
        assert "\\udcff\\n.rtdc" in listener.next()[1]["now"]


def test_a_desk_that_fails_ends_the_stream_and_not_the_page(serve, caplog):
    served = serve()
    with served.listening() as listener:
        listener.next()
        served.desk.broken = OSError("disk I/O error")
        served.run(served.desk.touch())
        with pytest.raises((ConnectionError, KeyError, EOFError, json.JSONDecodeError)):
            listener.next()
    answer = served.ask("/")
    assert answer.status == 503
    assert "cannot be told at this moment" in answer.text
    assert "GET /" in caplog.text
    served.desk.broken = None
    with served.listening() as listener:
        assert listener.next()[0] == "snapshot"
