"""What a worker of the cluster does with a job: it passes it to its pipeline process, which stays for the next job."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
from collections.abc import Callable
from typing import Any, TypeVar

import structlog

from dcnumd.config.values import PlotSettings, Settings
from dcnumd.daemon.cluster.exclusions import OF_WORKER
from dcnumd.daemon.cluster.names import stop_event
from dcnumd.daemon.measurements.deadline import Deadline
from dcnumd.daemon.measurements.local_executor import LocalExecutor
from dcnumd.daemon.measurements.report_process import ReportProcess
from dcnumd.daemon.measurements.running_job import RunningJob
from dcnumd.errors import DcnumdError, WorkerError
from dcnumd.logic.job import Job, JobResult, Progress
from dcnumd.logic.memory import beside_pipeline, in_mb
from dcnumd.processes.child import Child
from dcnumd.processes.courtesy import Courtesy

R = TypeVar("R")

log = structlog.get_logger()

WAIT_SECONDS = 30.0
"""Time limit of a question to the scheduler whether a job is to stop [s], after which it is asked again. Without a
limit, the scheduler would keep each question for ever."""


class Engine:
    """The pipeline process of a worker, and the one for reports; they outlive connections to the scheduler.

    A job whose connection is lost continues. If it is handed to this worker again, the running one is joined.

    Parameters
    ----------
    settings
        Settings of the worker, of which those of resources and models apply; each job brings its pipeline.
    configure_logs
        Function that configures logging in the process.
    """

    def __init__(self, settings: Settings, configure_logs: Callable[[], object]) -> None:
        # What a config says of a pipeline concerns only a daemon, and might not be possible here.
        settings = self._settings = Settings(resources=settings.resources, models=settings.models, log=settings.log)
        self._executor = LocalExecutor(settings, configure_logs, self._on_progress)
        courtesy = Courtesy(settings.resources.nice, settings.resources.cpus)
        self._reporter = Child("report", configure_logs, courtesy)
        self._reports = ReportProcess(self._reporter, PlotSettings())
        self._turn = asyncio.Lock()
        self._current: tuple[Job, asyncio.Task[JobResult]] | None = None
        self._running: RunningJob | None = None
        self._tell: Callable[[Progress], None] | None = None

    async def start(self) -> None:
        """Start the process and its workers, and compile the kernels if necessary."""
        await self._executor.start()

    async def close(self, seconds: float) -> None:
        """End the running job, if any, and then the process, within `seconds` [s]."""
        if self._current is not None:
            self._current[1].cancel()
            await asyncio.wait([self._current[1]])
        await asyncio.gather(self._executor.close(seconds), self._reporter.close(seconds))

    async def report(self, function: Callable[..., R], *args: Any, aside: bool) -> R:
        """Call a function of `dcnumd.report.calls`, in a process that is started for the first one.

        Parameters
        ----------
        function, args
            The function and its arguments, with paths on this computer.
        aside
            Whether it is called in a copy of the process, only when processors are idle if a job runs.

        Raises
        ------
        DcnumdError
            The call failed.
        """
        await self._reports.start()
        return await (self._reports.call_aside if aside else self._reports.call)(function, *args)

    async def process(self, job: Job, tell: Callable[[Progress], None], asked: asyncio.Task[None]) -> JobResult:
        """Process a job, when the previous one has ended.

        Parameters
        ----------
        job
            The job with paths on this computer.
        tell
            Called with the progress.
        asked
            Task that ends when the job is to stop.

        Raises
        ------
        DcnumdError
            The job failed.
        JobCancelledError
            It was asked to stop.
        """
        folders = (*job.settings.model_folders, *self._settings.models.folders)
        job = dataclasses.replace(
            job,
            settings=dataclasses.replace(job.settings, model_folders=folders),
            num_workers=self._settings.resources.num_workers,
            max_memory_mb=self._settings.resources.max_memory_mb,
            other_memory_mb=in_mb(beside_pipeline(reports=True, isoelastics=True)),
        )
        if self._current is None or self._current[0] != job:
            async with self._turn:
                while self._current is not None:
                    await asyncio.wait([self._current[1]])
                self._current = job, asyncio.create_task(self._run(job), name=f"job {job.job_id}")
        work = self._current[1]
        self._tell = tell
        tell(Progress(job.job_id, "background", 0, 0, 0))
        # If this call is cancelled because the scheduler was lost, the job continues.
        await asyncio.wait([work, asked], return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()
        return await asyncio.shield(work)

    async def _run(self, job: Job) -> JobResult:
        self._reports.give_way(idle=True)
        try:
            running = self._running = RunningJob(job, self._executor, Deadline(0, _size(job)), asyncio.Event())
            return await running.result()
        except DcnumdError as error:
            if error.reason not in OF_WORKER or error.reason == "worker_path":
                raise
            raise type(error)(f"{error.message}, {_where()}", error.reason, transient=error.transient) from error
        finally:
            self._current = self._running = None
            self._reports.give_way(idle=False)

    def _on_progress(self, progress: Progress) -> None:
        if self._running is not None:
            self._running.sign_of_life()
        if self._tell is not None:
            self._tell(progress)


_engine: Engine | None = None


def use(engine: Engine | None) -> None:
    """Process jobs with `engine` from now on."""
    global _engine  # noqa: PLW0603 -- there is one engine for each worker process
    _engine = engine


async def process(job: Job, topic: str) -> JobResult:
    """Process a job on this worker; the daemon submits this function to the scheduler.

    Parameters
    ----------
    job
        The job with paths on this computer.
    topic
        Topic on which progress is reported.
    """
    from distributed import Event, get_client, get_worker  # noqa: PLC0415 -- a worker has loaded it

    worker = get_worker()
    if _engine is None:
        raise WorkerError(f"{worker.address} was not started by `dcnumd worker`", "worker")

    def tell(progress: Progress) -> None:
        # The connection may just be breaking; the daemon then does not wait for this job any more.
        with contextlib.suppress(Exception):
            # Dask adds the address of the worker as `worker`.
            worker.log_event(topic, {**dataclasses.asdict(progress), "name": str(worker.name)})

    asked = asyncio.create_task(_until_set(Event(stop_event(job.job_id), client=get_client())))
    try:
        return await _engine.process(job, tell, asked)
    finally:
        asked.cancel()


async def report(function: Callable[..., R], *args: Any, aside: bool) -> R:
    """Call a function of `dcnumd.report.calls` on this worker; see `Engine.report`."""
    if _engine is None:
        raise WorkerError("this worker was not started by `dcnumd worker`", "worker")
    return await _engine.report(function, *args, aside=aside)


async def _until_set(event: Any) -> None:
    """Wait until a distributed event is set; for ever if the scheduler is lost."""
    try:
        while not await event.wait(timeout=WAIT_SECONDS):
            pass
    except OSError as error:
        log.debug("log.message", logger=__name__, message=f"nobody can ask the job to stop any more: {error}")
        await asyncio.Event().wait()


def _size(job: Job) -> int:
    """Return the size of the measurement of a job [bytes].

    Raises
    ------
    WorkerError
        With the reason ``worker_path`` if there is no such file on this computer.
    """
    try:
        return job.path_in.stat().st_size
    except OSError as error:
        # The daemon replaces the path by its own; the folder tells where the worker has looked.
        where = f"{_where()} in {job.path_in.parent}"
        raise WorkerError(f"{job.path_in}: cannot be found {where}: {error.strerror}", "worker_path") from error


def _where() -> str:
    return f"on the worker {os.uname().nodename}"
