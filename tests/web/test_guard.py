"""Clients that hang, dawdle or come in crowds cost nothing, and the end does not wait for them."""

from __future__ import annotations

import contextlib
import time

import pytest

from dcnumd.web import feed, guard, pages
from tests.support.web import TOKEN, busy, done, hang, snapshot

GET_EVENTS = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"


def dropped(client):
    """Return whether the server ends the connection; what it has sent before is passed over."""
    client.setblocking(True)
    client.settimeout(10)
    try:
        while client.recv(65536):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


@pytest.fixture
def _impatient(monkeypatch):
    monkeypatch.setattr(guard, "SILENT_SECONDS", 0.3)
    monkeypatch.setattr(guard, "SWEEP_SECONDS", 0.1)


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize(
    "request_",
    [b"", b"GET / HTTP/1.1\r\nHost: loc", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"],
    ids=["nothing", "half", "idle"],
)
def test_who_says_nothing_is_dropped(serve, request_):
    served = serve()
    with contextlib.closing(hang(served.address, request_)) as client:
        assert dropped(client)
    assert served.ask("/healthz").status == 200


@pytest.mark.usefixtures("_impatient")
def test_who_takes_no_answer_is_dropped(serve):
    served = serve()
    served.desk.reports[1] = b"x" * 20_000_000
    request = b"GET /measurements/1/ HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with contextlib.closing(hang(served.address, request)):
        deadline = time.monotonic() + 10
        while not served.call(served.page._transports):
            assert time.monotonic() < deadline
        while served.call(served.page._transports):
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.mark.usefixtures("_impatient")
def test_who_waits_for_news_is_not_dropped(serve):
    served = serve()
    with served.listening() as listener:
        listener.next()
        time.sleep(1.0)  # longer than anybody may be silent
        served.show(busy())
        assert "Processing" in listener.next()[1]["banner"]


def test_who_takes_no_news_is_dropped(serve, monkeypatch):
    """The others hear them all the same."""
    monkeypatch.setattr(pages, "TAKE_SECONDS", 0.3)
    monkeypatch.setattr(feed, "GAP_SECONDS", 0.01)
    many = tuple(done(number, "M" * 200 + f"{number}.rtdc") for number in range(1, 400))
    shown = [snapshot(done=many), snapshot(done=many[::-1])]
    served = serve(shown[0])
    with contextlib.closing(hang(served.address, GET_EVENTS)), served.listening() as listener:
        deadline = time.monotonic() + 30
        listener.next()
        for turn in range(1, 1000):
            if served.call(lambda: len(served.page._pages._listeners)) == 1:
                break
            served.show(shown[turn % 2])
            assert "done" in listener.next()[1]
            assert time.monotonic() < deadline


def test_form_that_does_not_arrive_is_given_up(serve, token_file, monkeypatch):
    monkeypatch.setattr(pages, "FORM_SECONDS", 0.2)
    served = serve(token_file=token_file)
    head = (
        b"POST /sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\n\r\ntoken="
    )
    with contextlib.closing(hang(served.address, head)) as client:
        assert client.recv(65536).startswith(b"HTTP/1.1 408 ")
        assert dropped(client)


GET_HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def answered(client):
    """Return the status that a client is answered with, which is kept open."""
    answer = b""
    while b"}" not in answer:
        answer += client.recv(65536)
    return int(answer.split()[1])


@pytest.mark.parametrize(
    "request_",
    [b"", b"GET / HTTP/1.1\r\nHost: loc", GET_HEALTH, b"GET /measurements/1/ HTTP/1.1\r\nHost: localhost\r\n\r\n"],
    ids=["silent", "half", "kept", "stalled"],
)
def test_connections_that_one_client_keeps_open_shut_nobody_out(serve, request_):
    """The crowd itself makes room, whether the others are at its address or at another one."""
    served = serve()
    served.desk.reports[1] = b"x" * 2_000_000
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(contextlib.closing(hang(served.address, GET_HEALTH, "127.0.0.2")))
        assert answered(other) == 200
        for _ in range(guard.MAX_CONNECTIONS + 30):
            stack.enter_context(contextlib.closing(hang(served.address, request_)))
        for _ in range(3):
            assert served.ask("/healthz").status == served.ask("/").status == 200
        other.sendall(GET_HEALTH)
        assert answered(other) == 200
        assert len(served.call(served.page._transports)) <= guard.MAX_CONNECTIONS


def test_monitors_are_answered_however_many_others_are(serve, monkeypatch):
    """A part of the connections can always be taken, since not all are answered at once."""
    monkeypatch.setattr(guard, "MAX_ANSWERS", 2)
    served = serve()
    with served.listening() as first, served.listening() as second:
        assert first.next()
        assert second.next()
        refused = served.ask("/api/v1/status")
        assert (refused.status, refused.headers["Retry-After"]) == (503, "30")
        assert refused.json == {"error": "Too many are being answered."}
        assert served.ask("/healthz").status == served.ask("/metrics").status == 200


def test_listeners_of_one_client_shut_nobody_out(serve, monkeypatch):
    """Who has most of them gives up the oldest one, until all have the same share."""
    monkeypatch.setattr(pages, "MAX_LISTENERS", 3)
    served = serve()
    with contextlib.ExitStack() as stack:

        def listen(source):
            client = stack.enter_context(contextlib.closing(hang(served.address, GET_EVENTS, source)))
            return client, client.recv(16).split()[1]

        crowd = [listen("127.0.0.1") for _ in range(4)]
        assert [status for _, status in crowd] == [b"200", b"200", b"200", b"503"]
        refused = served.ask("/events")
        assert (refused.status, refused.headers["Retry-After"]) == (503, "30")
        assert served.ask("/").status == 200
        assert listen("127.0.0.2")[1] == b"200"
        told = b""
        while not told.endswith(b"\r\n0\r\n\r\n"):
            part = crowd[0][0].recv(65536)
            assert part
            told += part
        assert listen("127.0.0.2")[1] == b"503"


def test_crowds_are_cut_off(serve, monkeypatch):
    monkeypatch.setattr(guard, "MAX_CONNECTIONS", 3)
    served = serve()
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            client = stack.enter_context(contextlib.closing(hang(served.address, GET_EVENTS)))
            assert client.recv(16)
        assert dropped(stack.enter_context(contextlib.closing(hang(served.address, b""))))
    deadline = time.monotonic() + 10
    while True:
        with contextlib.suppress(ConnectionError):
            if served.ask("/healthz").status == 200:
                break
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("junk", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20, b"GET " + b"x" * 100_000])
def test_junk_is_not_worth_a_line(serve, junk, caplog):
    served = serve()
    with contextlib.closing(hang(served.address, junk + b"\r\n\r\n")) as client:
        assert dropped(client)
    assert not caplog.records


def test_end_does_not_wait_for_clients(serve):
    """Listeners, clients that take nothing, half requests and silent ones: each of them might stay for seconds."""
    served = serve(busy())
    served.desk.reports[1] = b"x" * 20_000_000
    requests = [
        b"",
        b"GET / HTT",
        GET_EVENTS,
        b"GET /measurements/1/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /api/v1/pause HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n\r\n" + TOKEN.encode(),
    ]
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(contextlib.closing(hang(served.address, request))) for request in requests * 3]
        listener = stack.enter_context(served.listening())
        listener.next()
        deadline = time.monotonic() + 10
        while len(served.call(served.page._transports)) < 10:
            assert time.monotonic() < deadline
        began = time.monotonic()
        served.run(served.page.close())
        assert time.monotonic() - began < 3.0
        assert all(dropped(client) for client in clients)
