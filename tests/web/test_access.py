"""Who is answered, who may change something, and what answers carry."""

from __future__ import annotations

import re
import socket
import time
import urllib.parse

import pytest

from dcnumd.config.values import WebSettings
from dcnumd.errors import ConfigError
from dcnumd.web import access
from dcnumd.web.address import HostNames, split_listen
from dcnumd.web.token import MAX_SESSIONS, SESSION_SECONDS, Keys, read_token
from tests.support.web import TOKEN, Served, busy, write_token

BUTTONS = [
    "/api/v1/acknowledge",
    "/acknowledge",
    "/api/v1/pause",
    "/api/v1/resume",
    "/api/v1/measurements/94/retry",
    "/pause",
    "/resume",
    "/measurements/94/retry",
]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(access, "WRONG_TOKEN_SECONDS", 0.01)


@pytest.fixture
def served(serve, token_file):
    return serve(busy(), token_file=token_file)


def own(served):
    return f"http://{served.address}"


def sign_in(served, token=TOKEN, **headers):
    form = urllib.parse.urlencode({"username": "dcnumd", "token": token})
    kind = "application/x-www-form-urlencoded"
    return served.ask("/sign-in", "POST", form, Content_Type=kind, **{"Origin": own(served), **headers})


def cookie_of(answer):
    return answer.headers["Set-Cookie"].partition(";")[0]


def test_without_a_token_file_nobody_changes_anything(serve):
    served = serve(busy())
    for path in (*BUTTONS, "/sign-in", "/sign-out"):
        answer = served.ask(path, "POST", Authorization=f"Bearer {TOKEN}")
        assert answer.status == 403, path
        assert "read-only" in answer.text, path
    assert not served.desk.shown.paused
    assert not served.desk.retried


@pytest.mark.parametrize(
    "header", ["", "Bearer ", "Bearer wrong-wrong-wrong-wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x"]
)
def test_who_does_not_know_the_token_changes_nothing(served, header):
    for path in BUTTONS:
        answer = served.ask(path, "POST", **({"Authorization": header} if header else {}))
        assert answer.status == 401, path
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="dcnumd"'
        assert TOKEN not in answer.text, path
        assert not served.desk.shown.paused, path
        assert not served.desk.retried, path


def test_reading_presses_no_button(served):
    assert {served.ask(path, Authorization=f"Bearer {TOKEN}").status for path in BUTTONS} == {405}
    assert not served.desk.shown.paused
    assert not served.desk.retried


def test_a_browser_signs_in_and_out(served):
    answer = sign_in(served)
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    attributes = answer.headers["Set-Cookie"]
    assert "HttpOnly" in attributes
    assert "SameSite=Strict" in attributes
    assert TOKEN not in attributes
    cookie = cookie_of(answer)
    page = served.ask("/", Cookie=cookie).text
    assert re.findall(r'action="(/(?:pause|measurements/\d+/retry))"', page) == [
        "/pause",
        "/measurements/94/retry",
        "/measurements/93/retry",
    ]

    answer = served.ask("/measurements/94/retry", "POST", Cookie=cookie, Origin=own(served))
    assert (answer.status, served.desk.retried) == (303, [94])
    assert "M094_data.rtdc: is processed again" in served.ask("/", Cookie=cookie).text
    assert "is processed again" not in served.ask("/", Cookie=cookie).text
    served.ask("/measurements/100/retry", "POST", Cookie=cookie, Origin=own(served))
    assert "it waits already" in served.ask("/", Cookie=cookie).text
    served.ask("/measurements/7777/retry", "POST", Cookie=cookie, Origin=own(served))
    assert "no measurement of this number" in served.ask("/", Cookie=cookie).text

    served.ask("/pause", "POST", Cookie=cookie, Origin=own(served))
    assert 'action="/resume"' in served.ask("/", Cookie=cookie).text
    served.ask("/resume", "POST", Cookie=cookie, Origin=own(served))
    assert not served.desk.shown.paused

    answer = served.ask("/sign-out", "POST", Cookie=cookie, Origin=own(served))
    assert (answer.status, "Max-Age=0" in answer.headers["Set-Cookie"]) == (303, True)
    assert "<button>Pause" not in served.ask("/", Cookie=cookie).text
    assert served.ask("/pause", "POST", Cookie=cookie, Origin=own(served)).status == 401


def test_events_have_buttons_for_those_who_may_press_them(served):
    with served.listening() as listener:
        assert "<button" not in str(listener.next())
    with served.listening(Cookie=cookie_of(sign_in(served))) as listener:
        assert "<button" in str(listener.next())


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], f"{TOKEN}x", "ü" * 20])
def test_a_wrong_token_begins_no_session(served, token):
    answer = sign_in(served, token)
    assert (answer.status, answer.headers["Set-Cookie"]) == (401, None)
    assert "This is not the token." in answer.text


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://localhost"])
def test_other_pages_press_no_button(served, origin):
    """Not even with the cookie, nor with the token."""
    cookie = cookie_of(sign_in(served))
    for headers in ({"Cookie": cookie}, {"Authorization": f"Bearer {TOKEN}"}):
        assert served.ask("/pause", "POST", Origin=origin, **headers).status == 403
    assert sign_in(served, Origin=origin).status == 403
    assert not served.desk.shown.paused


def test_a_cookie_needs_to_be_sent_by_our_page(served):
    cookie = cookie_of(sign_in(served))
    assert served.ask("/pause", "POST", Cookie=cookie).status == 403
    assert served.ask("/pause", "POST", Cookie=cookie, Sec_Fetch_Site="same-site").status == 403
    assert served.ask("/pause", "POST", Cookie=cookie, Sec_Fetch_Site="same-origin").status == 303


def test_a_page_behind_a_web_server_is_ours(serve, token_file):
    served = serve(busy(), token_file=token_file, hosts=("Instrument.example.org",))
    assert sign_in(served, Host="instrument.example.org", Origin="https://instrument.example.org").status == 303


def test_known_names_are_answered(serve):
    served = serve(hosts=("lab.example.org",))
    for host in ("127.0.0.1", "localhost", "LOCALHOST:8480", "[::1]:9000", "lab.example.org:1"):
        assert served.ask("/healthz", Host=host).status == 200, host


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "192.0.2.1", "[::1", "localhost.", "@"])
def test_other_names_are_not_answered(serve, host):
    """A foreign page whose name leads here reads nothing."""
    served = serve(busy())
    for path in ("/", "/events", "/api/v1/status", "/nothing"):
        answer = served.ask(path, Host=host)
        assert answer.status == 421, path
        assert "web.hosts" in answer.text, path
        assert "M100" not in answer.text, path


def test_on_the_network_the_address_itself_is_answered():
    names = HostNames(WebSettings(listen="0.0.0.0:8480"))
    assert names.allow("192.0.2.7:8480", "192.0.2.7")
    assert names.allow("[2001:db8::7]:8480", "2001:db8::7")
    assert not names.allow("192.0.2.8:8480", "192.0.2.7")
    assert not names.allow("evil.example", "192.0.2.7")


@pytest.mark.parametrize("path", ["/", "/nothing", "/plot.png", "/static/live.css", "/healthz", "/events", "/pause"])
def test_every_answer_has_the_browser_be_careful(served, path):
    if path == "/events":
        with served.listening(path) as listener:
            headers = listener.response.headers
    else:
        headers = served.ask(path).headers
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Cache-Control"].startswith("no-store")
    assert headers["Server"] == "dcnumd"
    assert headers["Access-Control-Allow-Origin"] is None


def test_nobody_sends_long_forms(served):
    assert sign_in(served, "x" * 10_000).status == 413


def test_programs_are_refused_in_json_and_people_on_a_page(served):
    assert served.ask("/api/v1/nothing").json == {"error": "Not Found"}
    assert "<h1>Not Found</h1>" in served.ask("/nothing").text


@pytest.mark.parametrize(
    "content", ["", "short", "0123456789abcde", "two words that are long enough", "schlüssel-der-lang-genug-ist"]
)
def test_token_must_be_one_long_word(tmp_path, content):
    with pytest.raises(ConfigError, match="at least 16"):
        read_token(write_token(tmp_path / "token", content))


def test_token_must_be_secret(tmp_path):
    with pytest.raises(ConfigError, match="open to every user"):
        read_token(write_token(tmp_path / "token", mode=0o644))
    assert read_token(write_token(tmp_path / "token", mode=0o640)) == TOKEN


def test_token_must_be_in_a_file(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(ConfigError, match=r"web\.token_file"):
            read_token(path)
    (tmp_path / "large").write_text("x" * 5000)
    (tmp_path / "large").chmod(0o600)
    with pytest.raises(ConfigError, match="one token"):
        read_token(tmp_path / "large")


def test_page_does_not_start_with_a_token_that_is_none(tmp_path):
    path = write_token(tmp_path / "token", "short")
    with pytest.raises(ConfigError, match="at least 16"), Served(WebSettings(listen="127.0.0.1:0", token_file=path)):
        pass


def test_sessions_end_and_are_few(monkeypatch):
    keys = Keys(TOKEN)
    first = keys.begin()
    assert keys.session(first) is not None
    others = [keys.begin() for _ in range(MAX_SESSIONS)]
    assert keys.session(first) is None
    assert all(keys.session(value) is not None for value in others)
    later = time.monotonic() + SESSION_SECONDS
    monkeypatch.setattr("dcnumd.web.token.time.monotonic", lambda: later + 1)
    assert keys.session(others[0]) is None


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("127.0.0.1:8480", ("127.0.0.1", 8480)),
        ("[::1]:80", ("::1", 80)),
        ("::1:80", ("::1", 80)),
        ("localhost:0", ("localhost", 0)),
    ],
)
def test_addresses_are_understood(listen, expected):
    assert split_listen(listen) == expected


@pytest.mark.parametrize("listen", ["", "8480", ":8480", "localhost", "localhost:", "localhost:65536", "localhost:x"])
def test_addresses_that_are_none_are_refused(listen):
    with pytest.raises(ConfigError, match=r"web\.listen"):
        split_listen(listen)


@pytest.mark.parametrize(
    ("listen", "part"),
    [
        ("192.0.2.77:8480", "no such address"),
        ("[2001:db8::77]:8480", "no such address|not speak this kind"),
        ("no-such-computer.invalid:8480", "no computer of this name"),
        ("no..name:8480", "no computer of this name"),
    ],
)
def test_addresses_that_cannot_be_used_are_told(listen, part):
    with pytest.raises(ConfigError, match=part), Served(WebSettings(listen=listen)):
        pass


def resolve_to(monkeypatch, *addresses):
    """Have every name stand for these addresses, each with its family."""
    found = [(family, socket.SOCK_STREAM, 0, "", address) for family, address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)


def test_a_name_is_served_at_those_of_its_addresses_that_there_are(monkeypatch):
    """Such as localhost, which stands for ::1 too where there is no IPv6."""
    ours = socket.AF_INET, ("127.0.0.1", 0)
    resolve_to(monkeypatch, (socket.AF_INET, ("192.0.2.77", 0)), (socket.AF_IPX, ("127.0.0.1", 0)), ours, ours)
    with Served(WebSettings(listen="here:0")) as served:
        monkeypatch.undo()
        assert served.ask("/healthz").status == 200


def test_a_kind_of_address_that_is_not_spoken_is_told(monkeypatch):
    resolve_to(monkeypatch, (socket.AF_IPX, ("127.0.0.1", 0)))
    with pytest.raises(ConfigError, match="does not speak this kind of address"), Served(WebSettings(listen="here:0")):
        pass


def test_address_that_is_taken_is_told(serve):
    with pytest.raises(ConfigError, match="taken by another program"), Served(WebSettings(listen=serve().address)):
        pass


def test_served_on_ipv6(serve):
    served = serve(listen="[::1]:0")
    assert re.fullmatch(r"\[::1\]:\d+", served.address)
    assert served.ask("/healthz").status == 200
