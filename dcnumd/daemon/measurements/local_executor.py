"""Runs jobs on this computer: in a child process of its own, whose workers stay for all jobs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar

from dcnumd import routing
from dcnumd.config.values import Settings
from dcnumd.daemon.measurements.probe import check_methods
from dcnumd.logic.calls import warm_up, warm_up_ahead
from dcnumd.logic.job import Job, Progress
from dcnumd.processes.child import Child
from dcnumd.processes.courtesy import Courtesy
from dcnumd.processes.pipe_executor import ProcessDied

P = ParamSpec("P")
R = TypeVar("R")


class LocalExecutor:
    """One process for one job at a time: it and its workers use all processors that they may.

    Parameters
    ----------
    settings
        How much the process steps back behind others, and what it loads ahead.
    configure_logs
        Sets up its logs; it must pickle.
    on_progress
        Receives what running jobs report.
    """

    capacity = 1

    def __init__(
        self, settings: Settings, configure_logs: Callable[[], object], on_progress: Callable[[Progress], None]
    ) -> None:
        resources = settings.resources
        courtesy = Courtesy(resources.nice, resources.cpus)
        self.child = Child("pipeline", configure_logs, courtesy, on_progress)
        self.pool: Executor = _Pool(self.child)
        self._prepare: tuple[Callable[[], object], ...] = (
            warm_up_ahead,
            *(functools.partial(check_methods, routing.pipeline_settings(group)) for group in settings.groups),
            functools.partial(warm_up, resources.num_workers),
        )

    @property
    def alive(self) -> bool:
        """Whether there is a process, be it held or not."""
        return self.child.alive

    @property
    def losses(self) -> int:
        """Number of processes that have died."""
        return self.child.losses

    async def start(self) -> None:
        """Start the process and its workers, with methods that exist."""
        await self.child.start(*self._prepare)

    async def wait_until_lost(self) -> None:
        """Return when the process has died."""
        await self.child.gone.wait()

    def explain(self, error: BaseException, job: Job) -> BaseException:  # noqa: ARG002 -- there is one job
        """Return how the process ended, if that is what an error tells."""
        return self.child.explain(error) if isinstance(error, ProcessDied) else error

    def hold(self) -> None:
        """Stop the process and its workers where they are."""
        self.child.hold()

    def resume(self) -> None:
        """Let them go on."""
        self.child.resume()

    def ask_to_stop(self, job: Job) -> None:  # noqa: ARG002 -- there is one job
        """Ask the job to stop."""
        self.child.resume()
        self.child.ask_to_stop()

    def terminate(self, job: Job) -> None:  # noqa: ARG002 -- there is one job
        """End the process and its workers by SIGTERM."""
        self.child.terminate()

    def kill(self, job: Job) -> None:  # noqa: ARG002 -- there is one job
        """End the process and its workers by SIGKILL."""
        self.child.kill()

    async def close(self, seconds: float) -> None:
        """End the process."""
        await self.child.close(seconds)


class _Pool(Executor):
    """What calls are submitted to, whichever process the child is at that moment."""

    def __init__(self, child: Child) -> None:
        self._child = child

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Have a function called in the process."""
        return self._child.submit(fn, *args, **kwargs)
