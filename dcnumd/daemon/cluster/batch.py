"""Processing of files on a cluster without daemon and ledger: each is inspected here, the rest is done there."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import functools
import os
import signal
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol

from dcnumd.config.values import Settings
from dcnumd.daemon import logs
from dcnumd.daemon.cluster.dask_executor import DaskExecutor
from dcnumd.daemon.cluster.report_tasks import RemoteReports
from dcnumd.daemon.measurements.deadline import Deadline
from dcnumd.daemon.measurements.executor import NO_ATTEMPT
from dcnumd.daemon.measurements.inspector import Inspector
from dcnumd.daemon.measurements.probe import Inspection, inspect_file, job_for_complete
from dcnumd.daemon.measurements.report_process import ReportProcess
from dcnumd.daemon.measurements.running_job import RunningJob
from dcnumd.errors import ConfigError, DcnumdError, JobCancelledError, WorkerError
from dcnumd.logic.job import Job, JobResult, Progress
from dcnumd.processes.child import Child
from dcnumd.processes.courtesy import Courtesy
from dcnumd.report.calls import make_report
from dcnumd.report.request import ReportRequest, ReportSummary
from dcnumd.status import Cluster

AHEAD = 4
"""Number of files that are inspected before a worker is free for them, so that none has to wait for that."""
REPORTS_SECONDS = 10.0
"""Time limit for the reports that are being made when a signal arrives [s]."""
CLOSE_SECONDS = 2.0
"""Time limit for the connection and for each process to end [s]."""


class Observer(Protocol):
    """Interface of an object that is notified of the files."""

    def on_cluster(self, cluster: Cluster) -> None:
        """Handle a change of the connection or of the number of workers."""

    def on_begin(self, job: Job) -> None:
        """Handle that a job was handed to the cluster, perhaps once more."""

    def on_progress(self, job: Job, progress: Progress) -> None:
        """Handle the progress of a job."""

    def on_inspected(self, job: Job, found: Inspection) -> None:
        """Handle what was found in a complete file."""

    def on_put_back(self, job: Job, error: DcnumdError) -> None:
        """Handle that a job ended without an outcome, and will be handed out again."""

    def on_end(
        self, job: Job, end: JobResult | DcnumdError, worker: str, report: ReportSummary | DcnumdError | None
    ) -> None:
        """Handle the end of a file; `worker` is the name of the last one that processed it, empty if none did."""


@dataclasses.dataclass(frozen=True, slots=True)
class Order:
    """A file to process."""

    job: Job
    """The job; its number (`Job.job_id`) must be different from those of all jobs on the cluster."""
    report: ReportRequest | None
    """Request for the report of its result; None if none is wanted."""


@dataclasses.dataclass(slots=True)
class _Run:
    order: Order
    found: Inspection | None = None
    attempt: int = 1
    worker: str = ""
    """Name of the worker that processed it last."""
    running: RunningJob | None = None


def process_batch(settings: Settings, orders: Sequence[Order], observer: Observer) -> None:
    """Process files on the cluster of the settings, until all have ended or SIGINT or SIGTERM arrives.

    A signal ends the jobs on the workers; a second one does not wait for them. Files that were not handed out by then
    have no end.

    Raises
    ------
    ConfigError
        The scheduler cannot be reached at the beginning. If it is lost later, the files wait for it.
    """
    asyncio.run(_Batch(settings, orders, observer).run())


class _Batch:
    def __init__(self, settings: Settings, orders: Sequence[Order], observer: Observer) -> None:
        self._settings = settings
        self._orders = orders
        self._observer = observer
        self._executor = DaskExecutor(settings, self._on_progress, self._on_cluster)
        configure = functools.partial(logs.configure, settings.log)
        courtesy = Courtesy(settings.resources.nice, settings.resources.cpus)
        self._probe, self._reporter = (Child(name, configure, courtesy) for name in ("probe", "report"))
        self._inspector = Inspector(settings, self._probe)
        self._reports = RemoteReports(ReportProcess(self._reporter, settings.report.plot), self._executor)
        self._reporting = 0
        self._report_ended = asyncio.Event()
        self._room = asyncio.Semaphore(AHEAD)
        self._ready = collections.deque[_Run]()
        self._runs: dict[str, _Run] = {}
        """Jobs that are handed out, by their number."""
        self._tasks: dict[str, set[asyncio.Task[None]]] = {"inspect": set(), "job": set(), "report": set()}
        self._left = len(orders)
        self._fault: BaseException | None = None
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._forced = asyncio.Event()

    async def run(self) -> None:
        """Process all files; see `process_batch`."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        for number in signals:
            loop.add_signal_handler(number, self._on_signal)
        try:
            if await self._connected():
                self._do("inspect", self._inspect_all())
                await self._hand_out_all()
            await self._wind_up()
        finally:
            closed = (self._executor, self._probe, self._reporter)
            await asyncio.gather(*(one.close(CLOSE_SECONDS) for one in closed))
            for number in signals:
                loop.remove_signal_handler(number)
        if self._fault is not None:
            raise self._fault

    async def _connected(self) -> bool:
        """Connect; return False if a signal arrives meanwhile.

        Raises
        ------
        ConfigError
            The scheduler cannot be reached.
        """
        starting = asyncio.create_task(self._executor.start(), name="connect")
        stopping = asyncio.create_task(self._stopping.wait(), name="stop")
        await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if self._stopping.is_set():
            starting.cancel()
            return False
        await starting
        cluster = self._executor.cluster
        if not cluster.connected:
            message = f"the scheduler {cluster.scheduler} cannot be reached; is it running?"
            raise ConfigError(message, "executor_unreachable")
        return True

    async def _inspect_all(self) -> None:
        for order in self._orders:
            await self._room.acquire()
            run = _Run(order)
            try:
                run.found = await self._inspector.have(os.fspath(order.job.path_in), inspect_file, order.job)
                run.order = dataclasses.replace(order, job=job_for_complete(order.job, run.found))
            except DcnumdError as error:
                self._room.release()
                self._end(run, error)
            else:
                self._observer.on_inspected(run.order.job, run.found)
                self._ready.append(run)
                self._changed.set()

    async def _hand_out_all(self) -> None:
        while self._left and not self._stopping.is_set() and self._fault is None:
            self._changed.clear()
            while self._ready and len(self._runs) < self._executor.capacity:
                self._hand_out(self._ready.popleft())
            await self._changed.wait()

    def _hand_out(self, run: _Run) -> None:
        job, size = run.order.job, run.found.stamp.size if run.found is not None else 0
        if run.attempt == 1:
            self._room.release()
        deadline = Deadline(self._settings.resources.job_timeout_seconds, size)
        run.running = RunningJob(job, self._executor, deadline, self._forced)
        self._runs[job.job_id] = run
        self._observer.on_begin(job)
        self._do("job", self._process(run, run.running))

    async def _process(self, run: _Run, running: RunningJob) -> None:
        """Wait for the end of a job; then hand it out again, or note its outcome."""
        job, request = run.order.job, run.order.report
        end: JobResult | DcnumdError
        try:
            end = await running.result()
        except DcnumdError as error:
            end = error
        except Exception as error:  # noqa: BLE001 -- the boundary of one file: no file may stop the others
            end = WorkerError(f"{job.path_in}: {error!r}", "internal")
        del self._runs[job.job_id]
        self._changed.set()
        if isinstance(end, WorkerError) and self._goes_on(end, run):
            self._observer.on_put_back(job, end)
            self._ready.append(run)
        elif request is not None and isinstance(end, JobResult) and end.outcome == "done":
            self._do("report", self._report(run, end, request))
        else:
            self._end(run, end)

    def _goes_on(self, error: WorkerError, run: _Run) -> bool:
        """Return whether to hand out a job again after an error."""
        if error.reason not in NO_ATTEMPT:
            if not error.transient or run.attempt >= self._settings.retry.attempts:
                return False
            run.attempt += 1
        return not self._stopping.is_set()

    async def _report(self, run: _Run, result: JobResult, request: ReportRequest) -> None:
        report: ReportSummary | DcnumdError = JobCancelledError("stopped before it was made")
        try:
            # A worker makes one report after the other, and a signal has to wait for those that it was given.
            while self._reporting >= self._reports.capacity and not self._stopping.is_set():
                self._report_ended.clear()
                await self._report_ended.wait()
            if not self._stopping.is_set():
                report = await self._made(request)
        except DcnumdError as error:
            report = error
        except asyncio.CancelledError:
            # The result is there all the same.
            pass
        self._end(run, result, report)

    async def _made(self, request: ReportRequest) -> ReportSummary:
        self._reporting += 1
        try:
            return await self._reports.call_aside(make_report, request)
        finally:
            self._reporting -= 1
            self._report_ended.set()

    async def _wind_up(self) -> None:
        """End what has not ended: after a signal, jobs; otherwise only reports are left, which are waited for."""
        for task in self._tasks["inspect"] | self._tasks["job"]:
            task.cancel()
        # The end of a job may start a report.
        for kind in ("inspect", "job"):
            await asyncio.gather(*self._tasks[kind], return_exceptions=True)
        if reports := set(self._tasks["report"]):
            await asyncio.wait(reports, timeout=REPORTS_SECONDS if self._stopping.is_set() else None)
        for task in self._tasks["report"]:
            task.cancel()
        await asyncio.gather(*self._tasks["report"], return_exceptions=True)

    def _end(self, run: _Run, end: JobResult | DcnumdError, report: ReportSummary | DcnumdError | None = None) -> None:
        self._left -= 1
        self._changed.set()
        self._observer.on_end(run.order.job, end, run.worker, report)

    def _do(self, kind: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=kind)
        self._tasks[kind].add(task)
        task.add_done_callback(functools.partial(self._on_done, kind))

    def _on_done(self, kind: str, task: asyncio.Task[None]) -> None:
        self._tasks[kind].discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            # Not the fault of one file but, for example, of the disk with the summary: it ends everything.
            self._fault = fault
            self._changed.set()

    def _on_progress(self, progress: Progress) -> None:
        if (run := self._runs.get(progress.job_id)) is not None and run.running is not None:
            run.running.sign_of_life()
            run.worker = progress.worker
            self._observer.on_progress(run.order.job, progress)

    def _on_cluster(self) -> None:
        self._report_ended.set()
        self._observer.on_cluster(self._executor.cluster)
        self._changed.set()

    def _on_signal(self) -> None:
        if self._stopping.is_set():
            self._forced.set()
            for task in self._tasks["report"]:
                task.cancel()
        self._stopping.set()
        self._report_ended.set()
        self._changed.set()
