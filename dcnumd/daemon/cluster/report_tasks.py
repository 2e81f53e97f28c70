"""Calls that make reports on the workers of a cluster, each on the worker that has processed the measurement."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import zlib
from collections.abc import Callable
from typing import Any, ParamSpec, Protocol, TypeVar

from dcnumd.config.path_map import PathMap
from dcnumd.daemon.cluster.engine import report
from dcnumd.daemon.cluster.link import Link
from dcnumd.daemon.measurements.executor import NO_ATTEMPT
from dcnumd.daemon.measurements.report_process import ReportProcess
from dcnumd.errors import DcnumdError, WorkerError
from dcnumd.report.request import ReportRequest, ReportSummary

P = ParamSpec("P")
R = TypeVar("R")

REMEMBERED = 1000
"""Largest number of measurements of which it is remembered which worker has processed them."""
PAUSE_SECONDS = 1.0
"""Time before a call that was lost is made again, unless the cluster changes before [s]."""


class ReportTasks:
    """Calls the report processes of workers.

    Why are these calls no tasks of Dask? A task would wait for the job that runs on the worker, and so would the
    traffic light.

    Parameters
    ----------
    link
        Connection to the scheduler.
    paths
        Folders on this computer and on the workers.
    usable
        Function that returns the addresses of the workers that can make any report.
    """

    def __init__(self, link: Link, paths: PathMap, usable: Callable[[], frozenset[str]]) -> None:
        self.changed = asyncio.Event()
        """Set at each change of the connection, of the workers, or of the place where jobs run."""
        self._link = link
        self._paths = paths
        self._usable = usable
        self._places: dict[str, str] = {}
        """ID of a job → address of the worker that has processed it, the latest last."""
        self._gone: dict[str, asyncio.Event] = {}
        """Address of a worker → event that is set when it is lost."""

    @property
    def workers(self) -> int:
        """Number of workers that can make reports."""
        return len(self._link.workers)

    def remember(self, job_id: str, worker: str) -> None:
        """Have the report of a measurement made on the worker that has processed it."""
        self._places.pop(job_id, None)
        self._places[job_id] = worker
        if len(self._places) > REMEMBERED:
            del self._places[next(iter(self._places))]

    def on_worker_gone(self, worker: str) -> None:
        """Do not wait for a worker any more."""
        if (gone := self._gone.pop(worker, None)) is not None:
            gone.set()
        self.changed.set()

    def on_change(self) -> None:
        """Look again where calls can be made."""
        if self._link.client is None:
            for worker in tuple(self._gone):
                self.on_worker_gone(worker)
        self.changed.set()

    async def call(self, function: Callable[..., R], *args: Any, aside: bool) -> R:
        """Call a function on a worker, with paths as the worker sees them.

        Parameters
        ----------
        function
            A function of `dcnumd.report.calls`.
        args
            Its arguments; one is a `ReportRequest`.
        aside
            Whether other calls need not wait for it.

        Raises
        ------
        WorkerError
            With the reason ``executor_unreachable`` if there is no worker, ``worker_lost`` if it was lost meanwhile.
        DcnumdError
            The call failed.
        """
        client, request = self._link.client, next(one for one in args if isinstance(one, ReportRequest))
        if (worker := self._worker_for(request)) is None:
            raise WorkerError(f"{request.path_result}: no worker can make its report", "executor_unreachable")
        there = self._there(request)
        sent = [there if one is request else one for one in args]
        gone = self._gone.setdefault(worker, asyncio.Event())
        answer = asyncio.ensure_future(client.run(report, function, *sent, aside=aside, workers=[worker]))
        losing = asyncio.create_task(gone.wait())
        try:
            await asyncio.wait([answer, losing], return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                result: R = answer.result()[worker]
                return _here(request, result)
        except DcnumdError as error:
            text = error.message
            for away, home in ((there.path_result, request.path_result), (there.path_report, request.path_report)):
                text = text.replace(f"{away}", f"{home}")
            raise type(error)(text, error.reason, transient=error.transient) from error
        except (OSError, TimeoutError) as error:
            self._link.doubt()
            raise WorkerError(f"{request.path_result}: {error}", "executor_unreachable") from error
        except Exception as error:  # the boundary of one report: an error must affect nothing else
            raise WorkerError(f"{request.path_result}: {error!r}", "internal") from error
        finally:
            losing.cancel()
            answer.cancel()
        raise WorkerError(f"{request.path_result}: the worker {worker} was lost", "worker_lost")

    def _worker_for(self, request: ReportRequest) -> str | None:
        """Return the worker that has processed a measurement or, if it is gone, any other one; None without any."""
        former = self._places.get(request.job_id, "")
        if former in self._link.workers:
            return former
        workers = sorted(self._usable())
        return workers[zlib.crc32(request.job_id.encode()) % len(workers)] if workers else None

    def _there(self, request: ReportRequest) -> ReportRequest:
        """Return the request with the paths on the workers."""
        there = self._paths.there
        return dataclasses.replace(
            request,
            path_result=there(request.path_result),
            path_report=there(request.path_report),
            root=None if request.root is None else there(request.root),
            trusted_folders=None if request.trusted_folders is None else tuple(map(there, request.trusted_folders)),
        )


class ReportPlaces(Protocol):
    """Interface of an executor whose workers make reports."""

    local: bool
    """Whether reports are made on this computer all the same."""
    reports: ReportTasks


class RemoteReports:
    """Makes reports on a cluster, with the interface of `ReportProcess`.

    A call waits for a worker without an end, as jobs do; if its worker is lost, another one makes the report.

    Parameters
    ----------
    here
        Process that updates indexes, and makes reports while jobs run on this computer.
    cluster
        The executor of jobs.
    """

    def __init__(self, here: ReportProcess, cluster: ReportPlaces) -> None:
        self.here = here
        self._cluster = cluster

    @property
    def held(self) -> bool:
        """Whether no reports are made, because of a recording; only on this computer they disturb it."""
        return self._cluster.local and self.here.held

    @property
    def capacity(self) -> int:
        """Number of reports that can be made at the same time."""
        return self.here.capacity if self._cluster.local else max(self._cluster.reports.workers, 1)

    async def start(self) -> None:
        """Do nothing: the process on this computer starts when it is needed."""

    async def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function of `dcnumd.report.calls` that others wait for.

        Raises
        ------
        DcnumdError
            If the call fails.
        """
        return await self._call(False, function, *args, **kwargs)

    async def call_aside(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function of `dcnumd.report.calls` for which others need not wait; see `call`."""
        return await self._call(True, function, *args, **kwargs)

    def give_way(self, *, idle: bool) -> None:
        """Run calls on this computer only when processors are idle, or normally again."""
        self.here.give_way(idle=idle)

    def hold(self) -> None:
        """Suspend the process on this computer; reports on other computers do not disturb a recording."""
        self.here.hold()

    def resume(self) -> None:
        """Resume the process on this computer."""
        self.here.resume()

    async def _call(self, aside: bool, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        reports = self._cluster.reports
        while not self._cluster.local:
            reports.changed.clear()
            try:
                return await reports.call(function, *args, aside=aside, **kwargs)
            except WorkerError as error:
                if error.reason not in {*NO_ATTEMPT, "worker_lost"}:
                    raise
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PAUSE_SECONDS):
                    await reports.changed.wait()
        return await (self.here.call_aside if aside else self.here.call)(function, *args, **kwargs)


def _here(request: ReportRequest, result: R) -> R:
    """Return the answer of a worker with the paths on this computer."""
    if isinstance(result, ReportSummary):
        paths = tuple(request.path_report.with_name(path.name) for path in result.paths)
        return dataclasses.replace(result, paths=paths)
    return result
