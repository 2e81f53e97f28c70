"""An executor that runs jobs on the workers of a Dask cluster."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Executor, Future
from typing import Any

from dcnumd.config.path_map import PathMap
from dcnumd.config.values import Settings
from dcnumd.daemon.cluster import names
from dcnumd.daemon.cluster.engine import process
from dcnumd.daemon.cluster.exclusions import Exclusions
from dcnumd.daemon.cluster.link import Link
from dcnumd.daemon.cluster.places import job_there, result_here, seen_here, text_here
from dcnumd.daemon.cluster.report_tasks import ReportTasks
from dcnumd.daemon.cluster.turns import urgency
from dcnumd.errors import DcnumdError, WorkerError
from dcnumd.logic.job import Job, JobResult, Progress
from dcnumd.status import Cluster


@dataclasses.dataclass(eq=False, slots=True)
class Handed:
    """A job that was handed to the cluster."""

    job: Job
    """The job with paths on this computer."""
    answer: Future[JobResult]
    worker: str = ""
    """Address of the worker that has started the job; empty as long as it waits for one."""
    name: str = ""
    """Name of that worker."""
    allowed: frozenset[str] = frozenset()
    """Addresses of the only workers that may start it; empty if all may."""
    error: WorkerError | None = None
    """Why the daemon does not wait for the job any more."""
    given_up: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    """Set when `error` is."""

    def give_up(self, error: WorkerError) -> None:
        """Do not wait for the job any more."""
        if self.error is None:
            self.error = error
            self.given_up.set()


class DaskExecutor:
    """Runs several jobs at a time, each on one worker of the cluster.

    Parameters
    ----------
    settings
        Settings with the scheduler, the paths on the workers, and the priorities of folders.
    on_progress
        Called with each progress report of a job.
    on_change
        Called when the connection or the number of workers has changed.
    """

    local = False

    def __init__(
        self, settings: Settings, on_progress: Callable[[Progress], None], on_change: Callable[[], object]
    ) -> None:
        self.pool: Executor = _Pool(self._hand_out)
        self.losses = 0
        """Number of workers that died while they processed a job of this daemon."""
        self._settings = settings
        self._on_progress = on_progress
        self._on_change = on_change
        self._daemon = names.daemon_name(settings.state_folder())
        self._paths = PathMap.of(settings.executor.paths)
        self._link = Link(settings.executor, names.topic(self._daemon), self)
        self._exclusions = Exclusions(on_change)
        self.reports = ReportTasks(self._link, self._paths, self._usable)
        """Calls that make reports on the workers."""
        self._keeper: asyncio.Task[None] | None = None
        self._jobs: dict[str, Handed] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def capacity(self) -> int:
        """Number of jobs that may run now; 0 without a connection or a worker."""
        workers = len(self._usable())
        return self._settings.executor.capacity or workers if workers else 0

    @property
    def alive(self) -> bool:
        """Whether the executor is connected, or tries to connect."""
        return self._keeper is not None and not self._keeper.done()

    @property
    def cluster(self) -> Cluster:
        """The state of the cluster."""
        link = self._link
        return Cluster(
            link.scheduler,
            connected=link.client is not None,
            workers=len(link.workers),
            refused=len(link.refused),
            capacity=self.capacity,
            excluded=self._exclusions.workers,
        )

    async def start(self) -> None:
        """Begin to connect, and wait until the first attempt has ended; without a scheduler, further ones follow."""
        if not self.alive:
            self._keeper = asyncio.create_task(self._link.keep(), name="cluster")
            tried = asyncio.create_task(self._link.tried.wait())
            await asyncio.wait([tried, self._keeper], return_when=asyncio.FIRST_COMPLETED)
            tried.cancel()
            if self._keeper.done():
                error = self._keeper.exception()
                if isinstance(error, DcnumdError):
                    raise error
                raise WorkerError(f"the cluster cannot be used: {error!r}", "worker_start", transient=True) from error

    def load(self, settings: Settings) -> None:
        """Use the priorities of new settings; a worker loads models with the first job that needs them."""
        self._settings = settings

    async def wait_until_lost(self) -> None:
        """Wait until the connection is not kept up any more, which only an unexpected error can cause."""
        if self._keeper is not None:
            await asyncio.wait([self._keeper])

    def explain(self, error: BaseException, job: Job) -> BaseException:  # noqa: ARG002 -- errors explain themselves
        """Return the error unchanged."""
        return error

    def hold(self) -> None:
        """Do nothing: jobs on other computers do not disturb a recording on this one."""

    def resume(self) -> None:
        """Do nothing; see `hold`."""

    def ask_to_stop(self, job: Job) -> None:
        """Ask the worker to end the job, which it does within seconds, if necessary by ending its process."""
        self._do(self._ask_to_stop(job))

    def terminate(self, job: Job) -> None:
        """Do nothing: the worker terminates a job that does not react."""

    def kill(self, job: Job) -> None:
        """Do not wait for the job any more."""
        if (handed := self._jobs.get(job.job_id)) is not None:
            handed.give_up(WorkerError(f"{job.path_in}: the worker did not end the job", "worker_lost"))

    async def close(self, seconds: float) -> None:
        """Close the connection, within `seconds` [s]."""
        tasks = {*self._tasks, *([self._keeper] if self._keeper is not None else [])}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    def on_cluster_change(self) -> None:
        """Stop to wait for jobs that nobody can start or complete any more, and tell the daemon."""
        self.reports.on_change()
        self._exclusions.keep(self._link.workers)
        for handed in self._jobs.values():
            if self._link.client is None:
                handed.give_up(_unreachable(handed.job))
            elif not handed.worker and not (handed.allowed or self._link.workers) & self._link.workers:
                text = f"{handed.job.path_in}: the workers that could take it are gone"
                handed.give_up(WorkerError(text, "worker_ended"))
        self._on_change()

    def on_message(self, message: Mapping[str, Any]) -> None:
        """Handle a report of a worker on the progress of a job."""
        if (handed := self._jobs.get(message["job_id"])) is not None:
            handed.worker, handed.name = message["worker"], message["name"]
            self.reports.remember(message["job_id"], handed.worker)
            fields = {name: value for name, value in message.items() if name not in {"worker", "name"}}
            self._on_progress(Progress(**fields, worker=message["name"]))

    def on_worker_gone(self, worker: str, *, expected: bool) -> None:
        """Stop to wait for the jobs of a worker; Dask itself would start them again without telling."""
        self.reports.on_worker_gone(worker)
        for handed in self._jobs.values():
            if handed.worker != worker:
                continue
            path = handed.job.path_in
            if expected:
                handed.give_up(WorkerError(f"{path}: the worker {worker} was stopped", "worker_ended"))
            else:
                self.losses += 1
                handed.give_up(WorkerError(f"{path}: the worker {worker} was lost", "worker_lost"))

    def _do(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _hand_out(self, job: Job) -> Future[JobResult]:
        handed = Handed(job, Future())
        handed.answer.set_running_or_notify_cancel()
        self._jobs[job.job_id] = handed
        self._do(self._answer(handed))
        return handed.answer

    async def _answer(self, handed: Handed) -> None:
        """Set the outcome of a job when it is known."""
        try:
            result = await self._outcome(handed)
        except asyncio.CancelledError:
            handed.answer.set_exception(_unreachable(handed.job))
            raise
        except Exception as error:  # noqa: BLE001 -- the caller handles it
            handed.answer.set_exception(error)
        else:
            handed.answer.set_result(result)
        finally:
            if self._jobs.get(handed.job.job_id) is handed:
                del self._jobs[handed.job.job_id]

    async def _outcome(self, handed: Handed) -> JobResult:
        from distributed import Event, KilledWorker, fire_and_forget  # noqa: PLC0415 -- loaded when it was connected

        job, client = handed.job, self._link.client
        if client is None:
            raise _unreachable(job)
        usable = self._usable()
        handed.allowed = frozenset() if usable == self._link.workers else usable
        there = job_there(self._paths, job)
        try:
            # An earlier attempt may have been asked to stop.
            await Event(names.stop_event(job.job_id), client=client).clear()
        except OSError as error:
            raise _unreachable(job) from error
        remote = client.submit(
            process,
            there,
            names.topic(self._daemon),
            key=names.key(self._daemon, job.job_id),
            resources={names.resource(): 1},
            workers=sorted(handed.allowed) or None,
            priority=urgency(self._settings.group_of(job.path_in).watch.priority, self._link.time()),
            retries=0,
            pure=False,
        )
        # The job continues if this daemon is killed; its next run finds it by its key.
        fire_and_forget(remote)
        answer = asyncio.ensure_future(remote.result())
        given_up = asyncio.create_task(handed.given_up.wait())
        try:
            await asyncio.wait([answer, given_up], return_when=asyncio.FIRST_COMPLETED)
            if answer.done() and not answer.cancelled():
                result = await seen_here(result_here(job, there, answer.result()))
                if result.outcome == "done":
                    self._exclusions.succeeded(handed.worker)
                return result
        except CancelledError as error:
            # This is how Dask tells that the connection is lost; it is not the `CancelledError` of asyncio.
            self._link.doubt()
            raise handed.error or _unreachable(job) from error
        except KilledWorker as error:
            raise WorkerError(f"{job.path_in}: its workers died: {error}", "worker_lost") from error
        except DcnumdError as error:
            raise self._failure(handed, there, error) from error
        finally:
            given_up.cancel()
            if not answer.done():
                answer.cancel()
                await self._cancel(client, remote)
            # As long as anything refers to it, such as an exception, another attempt would get the same outcome.
            remote.release()
        if handed.error is not None:
            raise handed.error
        self._link.doubt()
        raise _unreachable(job)

    def _failure(self, handed: Handed, there: Job, error: DcnumdError) -> DcnumdError:
        """Return the error of a job for this computer; one that costs no attempt if only the worker is to blame."""
        text = text_here(handed.job, there, error.message)
        error = type(error)(text, error.reason, transient=error.transient)
        workers, retry = self._link.workers, self._settings.retry
        if self._exclusions.failed(handed.job, handed.worker, handed.name, error, workers, retry):
            return WorkerError(text, "worker_unfit")
        return error

    def _usable(self) -> frozenset[str]:
        """Return the addresses of the workers that get jobs."""
        return self._exclusions.usable(self._link.workers)

    async def _cancel(self, client: Any, remote: Any) -> None:
        """Tell the scheduler to forget a job, if it can be reached."""
        if client is self._link.client:
            await client.cancel([remote], force=True)

    async def _ask_to_stop(self, job: Job) -> None:
        from distributed import Event  # noqa: PLC0415 -- as above

        if self._link.client is not None:
            try:
                await Event(names.stop_event(job.job_id), client=self._link.client).set()
            except OSError:
                self._link.doubt()


class _Pool(Executor):
    """Hands the job of each call ``submit(run_job, job)`` to the cluster; `process` calls the function there."""

    def __init__(self, hand_out: Callable[[Job], Future[JobResult]]) -> None:
        self._hand_out = hand_out

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:  # noqa: ARG002 -- see above
        """Hand out the job, which is the only argument."""
        return self._hand_out(*args)


def _unreachable(job: Job) -> WorkerError:
    return WorkerError(f"{job.path_in}: the connection to the cluster was lost", "executor_unreachable")
