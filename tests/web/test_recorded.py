"""What the page, the API and the metrics say of measurements that are processed while they are recorded."""

from __future__ import annotations

import dataclasses

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dcnumd.status import Course, LiveCheck, Recording
from dcnumd.web.charts import HEIGHT, WIDTH, Chart
from tests.support.web import ago, live, png, recorded, running, snapshot
from tests.web.test_page import read

CLOGGING = LiveCheck("clogging", "alarm", "The channel clogged: no event during the last 12 of 60 s.", ago(12.0))


def test_recording_shows_events_rates_and_checks(serve):
    """Numbers, both courses and the plot; what warns is there in words, with the time since when."""
    served = serve(snapshot(recording=(recorded(light="red", checks=(CLOGGING,)),)))
    page = read(served)
    for text in (
        "M200_data.rtdc while it is recorded",
        "Unusable 60 s recorded",
        "Events 134,550 Events/s 2,242 Events per frame 0.65",
        "Clogging since ",
        ": The channel clogged: no event during the last 12 of 60 s.",
        "Event rate: 80 events/s (50 to 110)",
        "Brightness: 121 grey levels (120 to 121)",
        "205,600 of 207,000 frames processed, 9,400 of them again.",
    ):
        assert text in page.text
    assert "Its events are shown after the end" not in page.text
    (image,) = [image for image in page.all("img") if "plot" in image["src"]]
    assert image["src"] == "/recordings/200/plot.png?58"
    assert "M200_data.rtdc" in image["alt"]
    assert served.ask("/recordings/200/plot.png").status == 404
    served.desk.live_pictures[200] = png()
    answer = served.ask(image["src"])
    assert (answer.status, answer.headers["Content-Type"], answer.body) == (200, "image/png", png())


def test_beginning_of_a_recording_has_no_plot_and_no_charts(serve):
    """What is not known yet has a dash or is left out."""
    fresh = {"plot": 0, "events": 0, "events_per_second": None, "yield_per_frame": None, "light": "grey"}
    page = read(
        serve(snapshot(recording=(recorded(**fresh, event_rate=Course(), brightness=Course((0.5,), (120.0,))),)))
    )
    assert "The plot appears with the first events." in page.text
    assert "Not rated yet" in page.text
    assert "Events 0 Events/s \N{EN DASH} Events per frame \N{EN DASH}" in page.text
    assert not page.all("svg")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"lagging": True}, "The camera is faster than this computer: a part of the frames is shown now"),
        ({"spool_full": True}, "The file for the events is full: the remaining frames are processed again"),
    ],
)
def test_what_is_left_for_later_is_said(serve, fields, text):
    """Nobody wonders why the result takes longer than usual."""
    assert text not in read(serve(snapshot(recording=(recorded(),)))).text
    assert text in read(serve(snapshot(recording=(recorded(**fields),)))).text


def test_recording_that_is_not_read_says_why(serve):
    """Unless nobody wants any recording to be read."""
    plain = Recording("/srv/M1.rtdc", 7, 1.0, 4.0, 3)
    served = serve(snapshot(recording=(dataclasses.replace(plain, not_live="live_mode"),)))
    assert "Its events are shown after the end. It is not recorded in SWMR mode of HDF5" in read(served).text
    (told,) = served.ask("/api/v1/status").json["recording"]
    assert (told["id"], told["live"], told["not_live"]) == (3, None, "live_mode")
    for reason in ("", "live_off"):
        served.run(served.desk.show(snapshot(recording=(dataclasses.replace(plain, not_live=reason),))))
        assert "Its events are shown after the end" not in read(served).text


@pytest.mark.parametrize(
    ("fields", "colour", "title", "text"),
    [
        ({}, "green", "Recording", "Its events are shown while they are recorded."),
        ({"light": "red", "checks": (CLOGGING,)}, "red", "Check the recording", "M200_data.rtdc: clogging."),
        (
            {"light": "yellow", "checks": (CLOGGING, dataclasses.replace(CLOGGING, name="flicker"))},
            "yellow",
            "Check the recording",
            "M200_data.rtdc: clogging, flicker.",
        ),
    ],
)
def test_headline_warns_while_something_can_be_done(serve, fields, colour, title, text):
    """A warning about the recording precedes what is processed at the same time."""
    warned = "checks" in fields
    shown = snapshot(recording=(recorded(**fields),), running=running() if warned else None)
    page = read(serve(shown))
    (banner,) = [one for one in page.all("section") if "banner" in (one["class"] or "")]
    assert banner["class"] == f"card banner banner-{colour}"
    assert f" {title} {text} " in page.text


def test_metrics_count_what_is_read(serve):
    """The longest lag counts, and what was given up has its reason."""
    shown = snapshot(recording=(recorded(1), recorded(2, lag_seconds=1.5), Recording("/a", 1, 1.0, 1.0)))
    families = text_string_to_metric_families(serve(shown).ask("/metrics").text)
    found = {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}
    expected = {
        ("dcnumd_live_recordings",): 2,
        ("dcnumd_live_lag_seconds",): 1.5,
        ("dcnumd_live_frames_total",): 205_600,
        ("dcnumd_live_frames_again_total",): 9_400,
        ("dcnumd_live_abandoned_total", "worker_killed"): 1,
        ("dcnumd_live_latency_seconds_sum",): 5.5,
    }
    assert {key: found[key] for key in expected} == expected


def test_chart_connects_neighbours_only():
    """An interval without a value leaves a gap, and noise does not fill the drawing."""
    times = (0.5, 1.5, 2.5, 5.5, 6.5)
    chart = Chart.of(Course(times, (100.0, 100.2, 100.0, 100.1, 100.0)), from_zero=False, least=4.0)
    assert [len(points.split()) for points in chart.lines] == [3, 2]
    places = [tuple(map(float, point.split(","))) for line in chart.lines for point in line.split()]
    assert all(0 <= x <= WIDTH and 0.4 * HEIGHT < y < 0.6 * HEIGHT for x, y in places)
    assert (chart.low, chart.high, chart.last) == (100.0, 100.2, 100.0)
    rate = Chart.of(Course(times, (0.0, 0.0, 0.0, 0.0, 0.0)), from_zero=True, least=1.0)
    assert {point.split(",")[1] for line in rate.lines for point in line.split()} == {"54.0"}
    assert Chart.of(Course((0.5,), (1.0,)), from_zero=True, least=1.0) is None


def test_recordings_of_one_name_can_be_told_apart(serve):
    """Each has its folder, its own plot, and a heading that names its part of the page."""
    first, second = recorded(1), dataclasses.replace(recorded(2), path="/srv/other/M200_data.rtdc", live=live(events=3))
    page = read(serve(snapshot(recording=(first, second))))
    assert "2026-11-21/M200_data.rtdc while it is recorded" in page.text
    assert "other/M200_data.rtdc while it is recorded" in page.text
    assert [one["aria-labelledby"] for one in page.all("section") if "recorded" in (one["class"] or "")] == [
        "live-1",
        "live-2",
    ]
