"""Workers that cannot do jobs which others can; they are excluded: they get none for a time that grows."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

import structlog

from dcnumd.config.values import RetrySettings
from dcnumd.daemon.clock import now
from dcnumd.daemon.measurements.backoff import backoff_seconds
from dcnumd.errors import DcnumdError
from dcnumd.logic.job import Job
from dcnumd.status import ExcludedWorker

log = structlog.get_logger()

OF_WORKER = frozenset(
    {
        "card_lost",
        "memory",
        "memory_limit",
        "method",
        "model_missing",
        "model_unsupported",
        "output_folder",
        "output_no_permission",
        "output_not_mounted",
        "output_read_only",
        "output_unreachable",
        "unreadable",
        "worker_path",
        "worker_start",
    }
)
"""Reasons for failures that may be the fault of the worker: the daemon has read the file, and knows the methods."""
MIN_SECONDS, MAX_SECONDS = 1.0, 600.0
"""Shortest and longest time for which a worker gets no jobs [s]; its cause may be gone soon, and nobody says so."""


@dataclasses.dataclass(slots=True)
class _Record:
    about: ExcludedWorker
    job_id: str
    """The job that failed there last."""
    since: float
    failures: int = 0
    until: float = 0.0
    timer: asyncio.TimerHandle | None = None

    @property
    def excluded(self) -> bool:
        return now() < self.until


class Exclusions:
    """Decides which workers get jobs, from those that have failed.

    A fast failure makes a worker free again at once, so without this it would take most of the jobs.

    Parameters
    ----------
    on_change
        Called when a worker gets jobs again.
    """

    def __init__(self, on_change: Callable[[], object]) -> None:
        self._on_change = on_change
        self._records: dict[str, _Record] = {}
        """Address of a worker → what is known about it, from its failure to its next success."""

    @property
    def workers(self) -> tuple[ExcludedWorker, ...]:
        """The workers that were excluded and have not completed a job since, by name."""
        return tuple(sorted((record.about for record in self._records.values()), key=lambda about: about.worker))

    def usable(self, workers: frozenset[str]) -> frozenset[str]:
        """Return those of the workers that get jobs: all if there are no others than those excluded."""
        excluded = {worker for worker, record in self._records.items() if record.excluded}
        return workers - excluded or workers

    def failed(
        self, job: Job, worker: str, name: str, error: DcnumdError, workers: frozenset[str], retry: RetrySettings
    ) -> bool:
        """Exclude a worker if a job failed because of it; return whether another worker can take the job.

        If no other worker is left, the job is to blame rather than the workers that were excluded for it; these get
        jobs again.

        Parameters
        ----------
        job
            The job.
        worker, name
            Address and name of the worker; empty if it is not known.
        error
            Why the job failed.
        workers
            Addresses of all workers that are there.
        retry
            Settings with the time for which a worker is excluded first.
        """
        if error.reason not in OF_WORKER or not worker:
            return False
        if all(other == worker or self._is_excluded(other) for other in workers):
            for address in [one for one, record in self._records.items() if record.job_id == job.job_id]:
                self._use_again(address)
            return False
        self._exclude(worker, ExcludedWorker(name, error.reason, error.message), job, retry)
        return True

    def succeeded(self, worker: str) -> None:
        """Note that a worker has completed a job."""
        if worker in self._records:
            self._use_again(worker)

    def keep(self, workers: frozenset[str]) -> None:
        """Forget the workers that are not there any more."""
        for worker in self._records.keys() - workers:
            self._forget(worker)

    def _is_excluded(self, worker: str) -> bool:
        record = self._records.get(worker)
        return record is not None and record.excluded

    def _exclude(self, worker: str, about: ExcludedWorker, job: Job, retry: RetrySettings) -> None:
        record = self._records.get(worker)
        if record is None:
            record = self._records[worker] = _Record(about, job.job_id, now())
        record.about, record.job_id = about, job.job_id
        if record.excluded:
            # One of several jobs that it was given before the first of them failed.
            return
        record.failures += 1
        seconds = max(MIN_SECONDS, min(backoff_seconds(retry, record.failures), MAX_SECONDS))
        record.until = now() + seconds
        record.timer = asyncio.get_running_loop().call_later(seconds, self._on_change)
        if record.failures == 1:
            told = {"worker": about.worker, "address": worker, "reason": about.reason, "error": about.error}
            log.warning("worker.excluded", **told, retry_in_seconds=round(seconds, 1))
        self._on_change()

    def _use_again(self, worker: str) -> None:
        record = self._forget(worker)
        seconds = round(now() - record.since, 1)
        log.info("worker.used_again", worker=record.about.worker, address=worker, seconds=seconds)
        self._on_change()

    def _forget(self, worker: str) -> _Record:
        record = self._records.pop(worker)
        if record.timer is not None:
            record.timer.cancel()
        return record
