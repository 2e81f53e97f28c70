"""The metrics for Prometheus."""

from __future__ import annotations

import datetime as dt
import typing
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from dcnumd.reasons import FAILURES
from dcnumd.report.conditions import NAMES, conditions_of
from dcnumd.report.request import Light
from dcnumd.status import LATENCY_BOUNDS, Latency, Snapshot, Totals
from dcnumd.web.control import Control


def exposed(control: Control, accept: str) -> tuple[bytes, str]:
    """Return all metrics, encoded, and their content type.

    Parameters
    ----------
    control
        Access to the daemon.
    accept
        The Accept header of the request, which decides on the encoding.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(control))
    ProcessCollector(registry=registry)
    encoder, content_type = choose_encoder(accept)
    return encoder(registry), content_type


class _Collector(Collector):
    def __init__(self, control: Control) -> None:
        self._control = control

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics with their present values."""
        snapshot = self._control.snapshot()
        yield from _state(snapshot)
        yield from _work(snapshot)
        yield from _counts(self._control.totals())

    def describe(self) -> list[Metric]:
        """Return an empty list, so that the registry does not call `collect` at registration."""
        return []


def _state(snapshot: Snapshot) -> Iterator[Metric]:
    yield InfoMetricFamily("dcnumd_build", "The version of dcnumd.", value={"version": snapshot.version})
    yield _gauge("dcnumd_start_time_seconds", "When the daemon began, seconds since 1970.", _posix(snapshot.started))
    yield _gauge("dcnumd_ready", "1 if measurements are noticed and processed.", snapshot.ready)
    yield _gauge("dcnumd_healthy", "1 while work goes on, or could.", snapshot.healthy)
    yield _gauge("dcnumd_paused", "1 while somebody wants no measurement to be started.", snapshot.paused)
    yield _gauge("dcnumd_held_for_recording", "1 while a recording stops the processing.", snapshot.held_for_recording)
    known = GaugeMetricFamily("dcnumd_condition", "1 while the daemon is in this condition.", labels=["name"])
    present = {one.name for one in conditions_of(snapshot)}
    for name in NAMES:
        known.add_metric([name], float(name in present))
    yield known
    reachable = GaugeMetricFamily("dcnumd_folder_reachable", "1 if a watched folder can be listed.", labels=["folder"])
    for path, is_reachable in {folder.path: folder.reachable for folder in snapshot.folders}.items():
        reachable.add_metric([_text(path)], float(is_reachable))
    yield reachable
    yield from _places(snapshot)


def _places(snapshot: Snapshot) -> Iterator[Metric]:
    """Yield the metrics of the output folders."""
    blocked = GaugeMetricFamily(
        "dcnumd_output_blocked",
        "1 while measurements wait for a folder of results that takes none, with the reason; else 0 without one.",
        labels=["folder", "reason"],
    )
    reasons = dict.fromkeys((output.path for output in snapshot.outputs), "")
    reasons |= {one.folder: one.reason for one in snapshot.blocked}
    for path, reason in reasons.items():
        blocked.add_metric([_text(path), reason], float(bool(reason)))
    yield blocked
    free = GaugeMetricFamily("dcnumd_output_free_bytes", "Room in a folder of results.", labels=["folder"])
    for output in snapshot.outputs:
        if output.free_bytes is not None:
            free.add_metric([_text(output.path)], float(output.free_bytes))
    yield free


def _work(snapshot: Snapshot) -> Iterator[Metric]:
    known = GaugeMetricFamily("dcnumd_measurements", "Measurements in each state of the ledger.", labels=["state"])
    for state, count in snapshot.counts.items():
        known.add_metric([state], count)
    yield known
    yield _gauge(
        "dcnumd_unacknowledged",
        "Measurements that failed or got a red light, and that nobody has acknowledged.",
        snapshot.unacknowledged.failed + snapshot.unacknowledged.red,
    )
    yield _gauge("dcnumd_queue_length", "Complete measurements that wait for their turn.", snapshot.queue)
    yield _gauge(
        "dcnumd_oldest_wait_seconds", "How long the one that waits longest has waited.", snapshot.oldest_wait_seconds
    )
    yield _gauge("dcnumd_recording_files", "Files that grow, or settle.", len(snapshot.recording))
    yield _gauge(
        "dcnumd_recording_bytes_per_second",
        "How fast they grow together.",
        sum(recording.bytes_per_second or 0.0 for recording in snapshot.recording),
    )
    live = [one.live for one in snapshot.recording if one.live is not None]
    yield _gauge("dcnumd_live_recordings", "Recordings that are processed while they grow.", len(live))
    lag = max((one.lag_seconds for one in live), default=0.0)
    yield _gauge("dcnumd_live_lag_seconds", "Longest time from the last processed to the last recorded frame.", lag)
    if (cluster := snapshot.cluster) is not None:
        yield _gauge("dcnumd_cluster_connected", "1 while the scheduler of the cluster is reached.", cluster.connected)
        yield _gauge("dcnumd_cluster_workers", "Workers that can process measurements.", cluster.workers)
        yield _gauge("dcnumd_cluster_workers_refused", "Workers whose version or kernels differ.", cluster.refused)
        yield _gauge(
            "dcnumd_cluster_workers_excluded", "Workers that could not do what others can.", len(cluster.excluded)
        )
        yield _gauge("dcnumd_cluster_capacity", "Measurements that may be processed together.", cluster.capacity)
        yield _gauge("dcnumd_cluster_fallback", "1 while this computer processes them instead.", cluster.fallback)
    running = snapshot.running
    number = len(snapshot.also_running) + (running is not None)
    yield _gauge("dcnumd_running", "Measurements that are being processed.", number)
    yield _gauge(
        "dcnumd_running_progress_ratio",
        "Share of its frames that is done.",
        running.frames_done / running.frames if running and running.frames else 0.0,
    )
    yield _gauge("dcnumd_running_frames_per_second", "How fast that is.", running.frames_per_second if running else 0.0)
    if snapshot.last_success:
        yield _gauge(
            "dcnumd_last_success_timestamp_seconds",
            "When a measurement was finished last, seconds since 1970.",
            _posix(snapshot.last_success),
        )


def _counts(totals: Totals) -> Iterator[Metric]:
    yield _counter("dcnumd_measurements_finished_total", "Measurements processed since the start.", totals.finished)
    failed = CounterMetricFamily(
        "dcnumd_measurements_failed_total", "Measurements that failed since the start, by reason.", labels=["reason"]
    )
    # Why zeros, too: a rate needs two values, so without them the first failure of a kind would raise no alert.
    for reason, count in (dict.fromkeys(FAILURES, 0) | dict(totals.failed)).items():
        failed.add_metric([reason], count)
    yield failed
    yield _counter(
        "dcnumd_measurements_skipped_total", "Measurements with nothing to do since the start.", totals.skipped
    )
    yield _counter("dcnumd_frames_processed_total", "Frames processed since the start.", totals.frames)
    yield _counter("dcnumd_events_found_total", "Events found since the start.", totals.events)
    yield _counter("dcnumd_processing_seconds_total", "Total processing time since the start.", totals.seconds)
    yield _histogram("dcnumd_result_latency_seconds", "Time from a complete measurement to its result.", totals.latency)
    yield _histogram("dcnumd_light_latency_seconds", "Time from a result to its traffic light.", totals.light_latency)
    yield from _live_counts(totals)
    reports = CounterMetricFamily(
        "dcnumd_reports_written_total", "Reports written since the start, by traffic light.", labels=["light"]
    )
    for light, count in (dict.fromkeys(typing.get_args(Light), 0) | dict(totals.lights)).items():
        reports.add_metric([light], count)
    yield reports
    yield _counter(
        "dcnumd_reports_failed_total", "Reports that could not be made since the start.", totals.reports_failed
    )
    yield _counter(
        "dcnumd_worker_losses_total", "Processes that died and were replaced since the start.", totals.worker_losses
    )


def _live_counts(totals: Totals) -> Iterator[Metric]:
    yield _counter(
        "dcnumd_live_frames_total", "Frames processed while they were recorded, since the start.", totals.live_frames
    )
    yield _counter(
        "dcnumd_live_frames_again_total",
        "Such frames that were processed again since the start, because their background had changed.",
        totals.live_frames_again,
    )
    abandoned = CounterMetricFamily(
        "dcnumd_live_abandoned_total", "Recordings given up while they were read, by reason.", labels=["reason"]
    )
    for reason, count in totals.live_abandoned.items():
        abandoned.add_metric([reason], count)
    yield abandoned
    yield _histogram(
        "dcnumd_live_latency_seconds",
        "Time from the last recorded frame to the result, if it was processed during its recording.",
        totals.live_latency,
    )


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=float(value))


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, value=float(value))


def _histogram(name: str, text: str, latency: Latency) -> HistogramMetricFamily:
    buckets = [*zip(map(str, LATENCY_BOUNDS), latency.counts, strict=True), ("+Inf", latency.number)]
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=latency.seconds)


def _posix(time: str) -> float:
    return dt.datetime.fromisoformat(time).timestamp()


def _text(path: str) -> str:
    """Return a path with backslash escapes in place of bytes that are not UTF-8."""
    return path.encode("utf-8", "backslashreplace").decode()
