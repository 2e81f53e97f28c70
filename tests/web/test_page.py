"""What is on the page, for each state of the daemon."""

from __future__ import annotations

import dataclasses
import html.parser

import pytest

from dcnumd.status import Blocked, Cluster, Folder, Output, Recording, Unacknowledged, Waiting
from tests.support.web import ago, busy, done, failed, full, png, running, snapshot

HOSTILE = "<script>alert(1)</script>\"'&\n\t\u202e測定\udcff.rtdc"


class Reader(html.parser.HTMLParser):
    """Collects the text, the elements and the attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def read(served) -> Reader:
    answer = served.ask("/")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    return Reader(answer.text)


def test_page_tells_without_a_script_what_is_going_on(serve):
    """And without a token, it has no button."""
    page = read(serve(busy()))
    assert not page.all("form")
    assert not page.all("button")
    for text in (
        "Processing M100_data.rtdc",
        "734 MB",
        "28.4 MB/s",
        "43 %",
        "17,240 of 40,000 frames",
        "12,346 frames/s",
        "about 2 s left",
        "M101_data.rtdc ready",
        "The disk for the results is full.",
        "few events, the background drifts",
        "The file is damaged. Copy it again",
        "events/image: chunk 12 of 40 cannot be unpacked",
        "120 processed, 4,800,000 frames, 1,185,120 events",
    ):
        assert text in page.text
    links = {link["href"] for link in page.all("a")}
    assert {"/measurements/99/", "/measurements/96/"} <= links
    assert "/measurements/95/" not in links
    (bar,) = page.all("progress")
    assert (bar["value"], bar["max"]) == ("17240", "40000")
    assert [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "refresh"] == ["5"]


def test_page_tells_that_a_result_was_taken_away(serve):
    page = read(serve(dataclasses.replace(busy(), done=(done(1, reason="output_gone"), done(2)))))
    assert page.text.count("Its result was moved or deleted") == 1


@pytest.mark.parametrize(
    ("fields", "colour", "title", "part"),
    [
        ({}, "green", "Ready", "Record the next measurement"),
        ({"ready": False}, "grey", "Starting", "a minute the first time"),
        ({"stopping": True, "faults": ("worker.failed",)}, "grey", "Stopping", "after the next start"),
        ({"faults": ("worker.failed",)}, "red", "Out of order", "Ask the engineer"),
        ({"faults": ("ledger.unwritable",), "ready": False}, "red", "Out of order", "The ledger cannot be written"),
        ({"faults": ("executor.unreachable",)}, "red", "Out of order", "check the network and the scheduler"),
        (
            {"cluster": Cluster("tls://server:8786", connected=True, workers=0, refused=2, capacity=0)},
            "yellow",
            "No computer to process",
            "2 cannot be used because their versions differ",
        ),
        ({"paused": True}, "yellow", "Paused", "until somebody resumes"),
        ({"paused": True, "running": running()}, "yellow", "Paused", "M100_data.rtdc is finished first"),
        ({"folders": (Folder("/a", reachable=False),)}, "red", "A folder is missing", "/a cannot be reached"),
        (
            {"folders": (Folder("/a", reachable=False), Folder("/b", reachable=True))},
            "yellow",
            "A folder is missing",
            "/a cannot be reached",
        ),
        (
            {"blocked": full().blocked, "running": running()},
            "yellow",
            "No place for results",
            "/mnt/results: The disk for the results is full, 12 measurements wait. Delete or move files",
        ),
        ({"blocked": full().blocked, "outputs": full().outputs[1:]}, "red", "No place for results", "12 measurements"),
        (
            {
                "unacknowledged": Unacknowledged(2, 1, failed(94, "truncated", "ends at 12 of 40 MB")),
                "running": running(),
            },
            "yellow",
            "2 failures and 1 red light",
            "M094_data.rtdc: The end of the file is missing. Copy it again from the instrument",
        ),
        (
            {"unacknowledged": Unacknowledged(0, 1, done(97, light="red", warnings=("clogging", "few_events")))},
            "yellow",
            "1 red light",
            "M097_data.rtdc: clogging, few events. Look at its report",
        ),
        (
            {"oldest_wait_seconds": 5000.0, "queue": 12, "running": running()},
            "yellow",
            "Measurements wait long",
            "12 wait, the first for 1:23 h",
        ),
        (
            {
                "oldest_wait_seconds": 5000.0,
                "queue": 12,
                "running": running(held=True),
                "held_for_recording": True,
            },
            "green",
            "Recording",
            "stands still",
        ),
        ({"running": running()}, "green", "Processing", "M100_data.rtdc"),
        ({"running": running(held=True), "held_for_recording": True}, "green", "Recording", "stands still"),
        ({"recording": (Recording("/a/b.rtdc", 1, 2.0, 3.0),)}, "green", "Recording", "as soon as it is complete"),
        ({"waiting": (Waiting(1, "/a/b.rtdc", "queued", ago(), "", ""),)}, "green", "Waiting", "about to be processed"),
        (
            {"waiting": (Waiting(1, "/a/b.rtdc", "queued", ago(), "output_not_mounted", ""),)},
            "green",
            "Waiting",
            "Connect the share or disk",
        ),
    ],
)
def test_headline_says_the_state_in_a_colour_and_words(serve, fields, colour, title, part):
    page = read(serve(snapshot(**fields)))
    (banner,) = [one for one in page.all("section") if "banner" in (one["class"] or "")]
    assert banner["class"] == f"card banner banner-{colour}"
    assert f" {title} " in page.text.partition("Recording 0")[0] + " "
    assert part in page.text


def test_page_tells_where_results_go_and_what_is_in_the_way(serve):
    page = read(serve(full()))
    for text in (
        "results /srv/acquisition, 250 GB free",
        "takes no results /mnt/results",
        "M007.rtdc waits since",
        "Details no_space /mnt/results: 0.3 GB are free, 1.4 GB are needed",
    ):
        assert text in page.text


def test_idle_page_says_what_will_be_there(serve):
    page = read(serve())
    assert "The plot of the next measurement appears here." in page.text
    assert not [image for image in page.all("img") if "plot" in (image["src"] or "")]
    assert "Failed 0" in page.text
    assert not [part for part in page.all("section") if part.get("aria-labelledby") in {"failed", "waiting"}]


def test_names_of_files_are_text_and_nothing_else(serve):
    """Whatever a file or a sample is called, the page has the elements that it has for plain names."""
    path = f"/srv/{HOSTILE}"
    evil = snapshot(
        folders=(Folder(f"{path}/", reachable=False),),
        outputs=(Output(path, 1), Output(f"{path}/", 1)),
        blocked=(Blocked(path, "output.blocked", HOSTILE, HOSTILE, 2),),
        recording=(Recording(path, 1, 1.0, 1.0),),
        waiting=(Waiting(3, path, "queued", ago(), HOSTILE, HOSTILE),),
        running=running(path=path, sample=HOSTILE, stage=HOSTILE),
        done=(done(1, HOSTILE, sample=HOSTILE, warnings=(HOSTILE,), light="red"),),
        failed=(failed(2, HOSTILE, HOSTILE, HOSTILE, sample=HOSTILE),),
        plot_id=1,
    )
    plain = read(serve(_renamed(evil)))
    page = read(serve(evil))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]
    assert [sorted(attributes) for _, attributes in page.elements] == [
        sorted(attributes) for _, attributes in plain.elements
    ]
    assert page.text.count("<script>alert(1)</script>\"'&\\n\\t\\u202e測定\\udcff.rtdc") > 8


def _renamed(shown):
    """Return a snapshot with other names."""

    def plain(value):
        if isinstance(value, str):
            return value.replace(HOSTILE, "plain.rtdc")
        if isinstance(value, tuple):
            return tuple(map(plain, value))
        if dataclasses.is_dataclass(value):
            return dataclasses.replace(
                value, **{f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
            )
        return value

    return plain(shown)


def test_plot_and_report_come_from_the_desk(serve):
    served = serve(busy())
    assert served.ask("/plot.png").status == 404
    served.desk.picture = png()
    answer = served.ask("/plot.png?99")
    assert (answer.status, answer.headers["Content-Type"], answer.body) == (200, "image/png", png())

    assert served.ask("/measurements/99/").status == 404
    served.desk.reports[99] = "<!DOCTYPE html><title>Zellen \N{EN DASH} µm²</title>".encode()
    answer = served.ask("/measurements/99/")
    assert (answer.status, answer.body) == (200, served.desk.reports[99])
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("sandbox; default-src 'none';")
    assert "script-src" not in policy
    assert served.ask("/measurements/99/M001_dcn.json").status == 404
    served.desk.figures[99, "M001 µ_dcn.json"] = b'{"events": 7}'
    assert served.ask("/measurements/99/M001%20%C2%B5_dcn.json").json == {"events": 7}


def test_no_path_of_a_request_leads_to_a_file(serve):
    served = serve()
    for path in (
        "/measurements/..%2f..%2fetc%2fpasswd",
        "/measurements/../../etc/passwd",
        "/static/../state.py",
        "/static/..%2f..%2fstate.py",
        "/static//etc/passwd",
        "/measurements/1234567890123456789012345",
        "/measurements/-1/",
        "/measurements/99/..%2f..%2fetc%2fpasswd.json",
        "/measurements/%D9%A1%00",
        "/nothing",
    ):
        answer = served.ask(path)
        assert answer.status == 404, path
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8", path
        assert "root:" not in answer.text, path


def test_files_of_the_page_are_kept_by_browsers_as_long_as_they_are_the_same(serve):
    served = serve()
    page = read(served)
    addresses = [link["href"] for link in page.all("link")] + [script["src"] for script in page.all("script")]
    assert len(addresses) == 3
    for address in addresses:
        assert address is not None
        answer = served.ask(address)
        assert answer.status == 200
        assert "immutable" in answer.headers["Cache-Control"]
        assert served.ask(address.partition("?")[0]).headers["Cache-Control"] == "no-store"


def test_all_that_is_processed_is_shown(serve):
    """Where several measurements are processed at the same time each has its name and its progress."""
    first, second = running(1, path="/srv/M001.rtdc"), running(2, path="/srv/M002.rtdc", worker="left")
    page = read(serve(snapshot(running=first, also_running=(second,))))
    assert len(page.all("progress")) == 2
    assert "M001.rtdc" in page.text
    assert "M002.rtdc" in page.text
    assert page.text.count(", on ") == 1
    assert "/srv, on left" in page.text


def test_measurement_that_has_not_settled_is_told(serve):
    """What is processed early may still be discarded, which nobody should take for a loss."""
    early = "before the file counts as complete; a change discards it"
    assert early in read(serve(snapshot(running=running(early=True)))).text
    assert early not in read(serve(snapshot(running=running()))).text


def test_measurements_of_one_name_have_their_folder_wherever_they_are_shown(serve):
    """The same measurement has the same name in all parts of the page; a name that only one has stays short."""
    one, other = (f"/srv/acquisition/2026-11-{day}/M001_data.rtdc" for day in (21, 22))
    shown = snapshot(
        recording=(Recording("/srv/acquisition/2026-11-23/M001_data.rtdc", 1, None, 9.0),),
        waiting=(Waiting(5, other, "queued", ago(), "", ""),),
        running=running(path=one),
        done=(done(1, "M002_data.rtdc"), done(2, path=one)),
        failed=(dataclasses.replace(failed(3, "damaged", "broken"), path=other),),
        plot_id=2,
    )
    page = read(serve(shown))
    for text in (
        "Processing 2026-11-21/M001_data.rtdc",
        "2026-11-23/M001_data.rtdc 1 B no longer growing",
        "2026-11-22/M001_data.rtdc ready",
        "Looks good 2026-11-21/M001_data.rtdc blood 2",
        "Looks good M002_data.rtdc",
        "2026-11-22/M001_data.rtdc blood 3",
    ):
        assert text in page.text
    assert [bar["aria-label"] for bar in page.all("progress")] == ["Progress of 2026-11-21/M001_data.rtdc"]
    assert page.text.startswith("43 % - 2026-11-21/M001_data.rtdc - dcnumd")


def test_file_at_rest_has_no_rate(serve):
    """It says that it does not grow, once it was observed for a moment, and the API says null."""
    served = serve(snapshot(recording=(Recording("/a/M1.rtdc", 7, None, 0.0), Recording("/a/M2.rtdc", 8, None, 4.0))))
    page = read(served)
    assert "M1.rtdc 7 B /a" in page.text
    assert "M2.rtdc 8 B no longer growing; it is processed once it is complete" in page.text
    assert "B/s" not in page.text
    assert [one["bytes_per_second"] for one in served.ask("/api/v1/status").json["recording"]] == [None, None]
    assert "dcnumd_recording_bytes_per_second 0.0" in served.ask("/metrics").text
