"""Processing of the files of the command `process` on the workers of a cluster."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from dcnumd.commands.process_output import Outcomes, tell_fallback, tell_missing_report
from dcnumd.commands.process_progress import FilesDisplay, files_display
from dcnumd.config.path_map import PathMap
from dcnumd.config.values import Settings
from dcnumd.errors import ConfigError, DcnumdError
from dcnumd.extras import lacking
from dcnumd.logic.job import Job, JobResult, Progress
from dcnumd.report.request import ReportRequest, ReportSummary
from dcnumd.status import Cluster

if TYPE_CHECKING:
    from dcnumd.daemon.measurements.probe import Inspection


def cluster_settings(settings: Settings, jobs: Sequence[Job], requests: Sequence[ReportRequest | None]) -> Settings:
    """Return settings with which jobs run on the cluster that the config names.

    Raises
    ------
    ConfigError
        The config names no cluster, Dask is not installed, or the workers do not know where a file is.
    """
    executor = dataclasses.replace(settings.executor, kind="dask")
    if lack := lacking("distributed"):
        raise ConfigError(f"--executor dask cannot be used: {lack}")
    if bool(executor.scheduler) == (executor.scheduler_file is not None):
        raise ConfigError("--executor dask needs executor.scheduler or executor.scheduler_file in the config, or --set")
    paths = PathMap.of(executor.paths)
    reports = [request.path_report for request in requests if request is not None]
    for path in (*(path for job in jobs for path in (job.path_in, job.path_out)), *reports):
        if not paths.covers(path):
            raise ConfigError(f"executor.paths says nothing of {path.parent}; add its folder on the workers")
    return dataclasses.replace(settings, executor=executor)


def process_on_cluster(
    settings: Settings, jobs: Sequence[Job], requests: Sequence[ReportRequest | None], outcomes: Outcomes
) -> None:
    """Process files, as many at the same time as the cluster has workers, until all have ended or a signal arrives.

    Parameters
    ----------
    settings
        Settings from `cluster_settings`.
    jobs, requests
        The jobs, and for each the request for the report of its result; None if none is wanted.
    outcomes
        Is told the outcome of each file.

    Raises
    ------
    ConfigError
        The scheduler cannot be reached.
    """
    from dcnumd.daemon import logs  # noqa: PLC0415 -- slow to import, and not needed on this computer alone
    from dcnumd.daemon.cluster.batch import Order, process_batch  # noqa: PLC0415 -- likewise

    orders = []
    for job, request in zip(jobs, requests, strict=True):
        number = job_id(job)
        # The report is made by the worker that has processed the job with its number.
        wanted = None if request is None else dataclasses.replace(request, job_id=number)
        orders.append(Order(dataclasses.replace(job, job_id=number), wanted))
    with files_display(len(jobs)) as display:
        # After the display has taken over stderr, so that log lines appear above it.
        logs.configure(settings.log, sys.stderr)
        process_batch(settings, orders, _Watcher(display, outcomes))


def job_id(job: Job) -> str:
    """Return a number for a job on the cluster, which is the same in each run of the command.

    A job that still runs after this command was killed is then found by the next run instead of being started twice.
    """
    return hashlib.sha256(os.fsencode(repr(dataclasses.replace(job, job_id="")))).hexdigest()[:16]


class _Watcher:
    """Shows the progress of all files, and tells the outcome of each."""

    def __init__(self, display: FilesDisplay, outcomes: Outcomes) -> None:
        self._display = display
        self._outcomes = outcomes
        self._without_workers = False

    def on_cluster(self, cluster: Cluster) -> None:
        if cluster.connected and not cluster.workers and not self._without_workers:
            with self._display.hidden():
                click.echo(f"Note: no worker of {cluster.scheduler} can process files now; they wait for one", err=True)
        self._without_workers = cluster.connected and not cluster.workers

    def on_inspected(self, job: Job, found: Inspection) -> None:
        if found.not_applicable:
            with self._display.hidden():
                tell_fallback(job, found.segmenter, found.not_applicable)

    def on_begin(self, job: Job) -> None:
        self._display.begin(job)

    def on_progress(self, job: Job, progress: Progress) -> None:
        self._display.update(job, progress)

    def on_put_back(self, job: Job, error: DcnumdError) -> None:
        self._display.remove(job)
        with self._display.hidden():
            click.echo(f"Note: {error.message}; the file is handed out again", err=True)

    def on_end(
        self, job: Job, end: JobResult | DcnumdError, worker: str, report: ReportSummary | DcnumdError | None
    ) -> None:
        self._display.end(job, end)
        with self._display.hidden():
            if isinstance(end, JobResult) and isinstance(report, DcnumdError):
                tell_missing_report(end.path_out, report)
            self._outcomes.add(job, end, report if isinstance(report, ReportSummary) else None, worker)
