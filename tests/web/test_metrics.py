"""What Prometheus gets."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dcnumd.status import Folder
from tests.support.web import busy, full, snapshot


def samples(served, **headers):
    text = served.ask("/metrics", **headers).text
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation.endswith(".") for family in families)
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def test_metrics_of_a_busy_day(serve):
    found = samples(serve(busy()))
    assert {name for name, *_ in found} >= {
        "dcnumd_start_time_seconds", "dcnumd_last_success_timestamp_seconds", "process_resident_memory_bytes",
    }  # fmt: skip
    expected = {
        ("dcnumd_build_info", "1.2.3"): 1,
        ("dcnumd_ready",): 1,
        ("dcnumd_healthy",): 1,
        ("dcnumd_paused",): 0,
        ("dcnumd_folder_reachable", "/srv/acquisition"): 1,
        ("dcnumd_measurements", "done"): 1234,
        ("dcnumd_queue_length",): 2,
        ("dcnumd_unacknowledged",): 0,
        ("dcnumd_recording_files",): 1,
        ("dcnumd_recording_bytes_per_second",): 28_400_000,
        ("dcnumd_running",): 1,
        ("dcnumd_running_progress_ratio",): 0.431,
        ("dcnumd_measurements_finished_total",): 120,
        ("dcnumd_measurements_failed_total", "damaged"): 2,
        ("dcnumd_measurements_failed_total", "no_images"): 1,
        ("dcnumd_measurements_failed_total", "checksum"): 0,
        ("dcnumd_events_found_total",): 1_185_120,
        ("dcnumd_worker_losses_total",): 1,
        ("dcnumd_reports_written_total", "green"): 100,
        ("dcnumd_reports_written_total", "grey"): 0,
        ("dcnumd_result_latency_seconds_bucket", "5.0"): 1,
        ("dcnumd_result_latency_seconds_bucket", "10.0"): 2,
        ("dcnumd_result_latency_seconds_bucket", "3600.0"): 2,
        ("dcnumd_result_latency_seconds_bucket", "+Inf"): 3,
        ("dcnumd_result_latency_seconds_sum",): 7215.0,
        ("dcnumd_light_latency_seconds_bucket", "1.0"): 1,
        ("dcnumd_light_latency_seconds_count",): 1,
    }
    assert {key: found[key] for key in expected} == pytest.approx(expected)


def test_metrics_of_folders_that_take_no_results(serve):
    served = serve(full())
    found = samples(served)
    assert found["dcnumd_output_blocked", "/mnt/results", "no_space"] == 1
    assert found["dcnumd_output_blocked", "/srv/acquisition", ""] == 0
    assert found["dcnumd_output_free_bytes", "/srv/acquisition"] == 250e9
    assert ("dcnumd_output_free_bytes", "/mnt/results") not in found
    served.show(snapshot())
    found = samples(served)
    assert found["dcnumd_output_blocked", "/mnt/results", ""] == 0
    assert ("dcnumd_output_blocked", "/mnt/results", "no_space") not in found


def test_metrics_of_a_day_that_has_not_begun(serve):
    found = samples(serve())
    assert found["dcnumd_running",] == 0
    assert ("dcnumd_last_success_timestamp_seconds",) not in found
    # an alert needs a value before the first failure
    assert found["dcnumd_measurements_failed_total", "not_hdf5"] == 0


def test_names_of_folders_cannot_break_lines(serve):
    path = 'a"b\\c\nd\udcff'
    found = samples(serve(snapshot(folders=(Folder(path, reachable=False), Folder(path, reachable=True)))))
    assert found["dcnumd_folder_reachable", 'a"b\\c\nd\\udcff'] == 1


def test_the_asker_chooses_the_form(serve):
    answer = serve().ask("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
