"""An executor that runs jobs on this computer, in a child process whose workers are kept from job to job."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar

from dcnumd import routing
from dcnumd.config.values import Settings
from dcnumd.daemon.measurements.probe import check_methods
from dcnumd.logic.calls import load_models, warm_up, warm_up_ahead
from dcnumd.logic.job import Job, Progress
from dcnumd.processes.child import Child
from dcnumd.processes.courtesy import Courtesy
from dcnumd.processes.pipe_executor import ProcessDied

P = ParamSpec("P")
R = TypeVar("R")


class LocalExecutor:
    """Runs one job at a time in a child process, which uses all available processors with its workers.

    Parameters
    ----------
    settings
        Settings with the priority of the process, its processors, and the methods that it loads in advance.
    configure_logs
        Function that configures logging in the process; it must be picklable.
    on_progress
        Called with each progress report of a running job.
    """

    capacity = 1
    local = True
    cluster = None

    def __init__(
        self, settings: Settings, configure_logs: Callable[[], object], on_progress: Callable[[Progress], None]
    ) -> None:
        courtesy = Courtesy(settings.resources.nice, settings.resources.cpus)
        self.child = Child("pipeline", configure_logs, courtesy, on_progress)
        self.pool: Executor = _Pool(self.child)
        self._prepare = _preparations(settings)

    @property
    def alive(self) -> bool:
        """Whether the process exists, even if it is suspended."""
        return self.child.alive

    @property
    def losses(self) -> int:
        """Number of processes that have died unexpectedly."""
        return self.child.losses

    async def start(self) -> None:
        """Start the process and its workers, and check the configured methods."""
        await self.child.start(*self._prepare)

    def load(self, settings: Settings) -> None:
        """Load what jobs with new settings need, before the next job."""
        self._prepare = _preparations(settings)
        self.child.submit(self._prepare[-1])

    async def wait_until_lost(self) -> None:
        """Wait until the process has died."""
        await self.child.gone.wait()

    def explain(self, error: BaseException, job: Job) -> BaseException:  # noqa: ARG002 -- there is one job
        """Return an error that tells how the process ended if `error` means that it died; otherwise `error`."""
        return self.child.explain(error) if isinstance(error, ProcessDied) else error

    def hold(self) -> None:
        """Suspend the process and its workers."""
        self.child.hold()

    def resume(self) -> None:
        """Resume the process and its workers."""
        self.child.resume()

    def ask_to_stop(self, job: Job) -> None:  # noqa: ARG002 -- there is one job
        """Ask the job to stop."""
        self.child.resume()
        self.child.ask_to_stop()

    def terminate(self, job: Job) -> None:  # noqa: ARG002 -- there is one job
        """End the process and its workers with SIGTERM."""
        self.child.terminate()

    def kill(self, job: Job) -> None:  # noqa: ARG002 -- there is one job
        """End the process and its workers with SIGKILL."""
        self.child.kill()

    async def close(self, seconds: float) -> None:
        """End the process; kill it if it has not ended after `seconds` [s]."""
        await self.child.close(seconds)


def _preparations(settings: Settings) -> tuple[Callable[[], object], ...]:
    """Return the calls that prepare a new process for its first job; the last one loads models."""
    number = settings.resources.num_workers
    pipelines = tuple(routing.pipeline_settings(group) for group in settings.groups)
    return (
        warm_up_ahead,
        *(functools.partial(check_methods, pipeline) for pipeline in pipelines),
        functools.partial(warm_up, number),
        functools.partial(load_models, number, pipelines),
    )


class _Pool(Executor):
    """Submits calls to the current process of a child, which changes when it is started again."""

    def __init__(self, child: Child) -> None:
        self._child = child

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Submit a function to the process."""
        return self._child.submit(fn, *args, **kwargs)
