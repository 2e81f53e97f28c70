"""The connection of the daemon to the scheduler of a Dask cluster, which is made again whenever it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import Any, Protocol

import structlog

from dcnumd.config.values import ExecutorSettings
from dcnumd.daemon.clock import now
from dcnumd.daemon.cluster import dask_loading
from dcnumd.daemon.cluster.names import JOIN_TOPIC, PREFIX, address_in, resource

log = structlog.get_logger()

CONNECT_SECONDS = 10.0
"""Time limit of an attempt to connect to the scheduler [s]."""
PAUSE_SECONDS = 2.0
"""Time between two attempts to connect [s]."""
CHECK_SECONDS = 2.0
"""Time between two questions to the scheduler, to notice that it is gone [s]."""
ANSWER_SECONDS = 20.0
"""Time after which a scheduler that does not answer counts as unreachable [s]."""
CANNOT_CONNECT = (OSError, TimeoutError, ValueError, TypeError)
"""What Dask raises if it cannot connect: among others `TypeError` if it has no certificates for ``tls://``."""


class Observer(Protocol):
    """Interface of an object that is notified of events in the cluster."""

    def on_cluster_change(self) -> None:
        """Handle a change of the connection or of the number of workers."""

    def on_message(self, message: Mapping[str, Any]) -> None:
        """Handle a message of a worker on the topic of this daemon."""

    def on_worker_gone(self, worker: str, *, expected: bool) -> None:
        """Handle the end of a worker; it is `expected` if the worker said that it would leave."""


class Link:
    """Keeps a client of the scheduler, and counts the workers that can process jobs.

    Parameters
    ----------
    settings
        Settings with the address of the scheduler.
    topic
        Topic of the messages for this daemon.
    observer
        Object that is notified of events in the cluster.
    """

    def __init__(self, settings: ExecutorSettings, topic: str, observer: Observer) -> None:
        self.client: Any = None
        """The client; None while there is no connection."""
        self.workers: frozenset[str] = frozenset()
        """Addresses of the workers that have our version and our kernels."""
        self.refused: frozenset[str] = frozenset()
        """Addresses of the workers of dcnumd that have others."""
        self.tried = asyncio.Event()
        """Set after the first attempt to connect."""
        self._settings = settings
        self._topic = topic
        self._observer = observer
        self._changed = asyncio.Event()
        self._lost_at: float | None = None
        self._clock_ahead = 0.0

    @property
    def scheduler(self) -> str:
        """Address of the scheduler, or the path of the file that contains it."""
        return self._settings.scheduler or f"{self._settings.scheduler_file}"

    def time(self) -> float:
        """Return the time by the clock of the scheduler [s]."""
        return now() + self._clock_ahead

    def doubt(self) -> None:
        """Check the connection now: a job was lost with it."""
        self._changed.set()

    async def keep(self) -> None:
        """Connect, and connect again after each loss, until cancelled."""
        distributed = await dask_loading.load()
        while True:
            self.client = await self._connect(distributed.Client)
            try:
                await self._watch(self.client)
            finally:
                client, self.client = self.client, None
                self.workers = self.refused = frozenset()
                await _close(client, JOIN_TOPIC, self._topic)
            self._lose("the connection was lost")

    async def _connect(self, make_client: Any) -> Any:
        while True:
            try:
                client = make_client(
                    self._address(), asynchronous=True, timeout=CONNECT_SECONDS, set_as_default=False, name="dcnumd"
                )
            except (OSError, ValueError) as error:
                self._lose(str(error))
            else:
                try:
                    await client
                except CANNOT_CONNECT as error:
                    self._lose(str(error))
                    await _close(client)
                else:
                    return client
            await asyncio.sleep(PAUSE_SECONDS)

    def _address(self) -> str:
        file = self._settings.scheduler_file
        return self._settings.scheduler if file is None else address_in(file)

    async def _watch(self, client: Any) -> None:
        """Keep the list of workers up to date, until the connection is lost."""
        connection = client.scheduler_comm
        client.subscribe_topic(JOIN_TOPIC, lambda event: self._on_scheduler_event(event[1]))
        client.subscribe_topic(self._topic, lambda event: self._observer.on_message(event[1]))
        self._changed.set()
        connected = False
        # The client connects again by itself, but its jobs are lost by then, and so are the subscriptions.
        while client.status == "running" and client.scheduler_comm is connection:
            complete = self._changed.is_set()
            self._changed.clear()
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    known = await client.scheduler.identity(n_workers=-1 if complete else 0)
                    if not connected:
                        self._clock_ahead = await client.run_on_scheduler(time.time) - now()
            except (OSError, TimeoutError):
                return
            if complete:
                self._note_workers(known["workers"])
            if not connected:
                self._find()
                connected = True
            if complete:
                self._observer.on_cluster_change()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_SECONDS):
                    await self._changed.wait()

    def _on_scheduler_event(self, event: Mapping[str, Any]) -> None:
        if event.get("action") == "add-worker":
            self._changed.set()
        elif event.get("action") == "remove-worker":
            self._observer.on_worker_gone(event["worker"], expected=event["expected"])
            self._changed.set()

    def _note_workers(self, workers: Mapping[str, Mapping[str, Any]]) -> None:
        wanted = resource()
        refused = dict[str, tuple[str, str]]()
        for address, about in workers.items():
            has = [name for name in about["resources"] if name.startswith(PREFIX)]
            if has and wanted not in has:
                refused[address] = (str(about["name"]), has[0])
        self.workers = frozenset(address for address, about in workers.items() if wanted in about["resources"])
        for address in refused.keys() - self.refused:
            name, found = refused[address]
            log.warning("worker.refused", worker=name, address=address, found=found, expected=wanted)
        self.refused = frozenset(refused)

    def _find(self) -> None:
        if self._lost_at is None:
            log.info("executor.connected", scheduler=self.scheduler, workers=len(self.workers))
        else:
            seconds = round(now() - self._lost_at, 1)
            log.info("executor.recovered", scheduler=self.scheduler, workers=len(self.workers), seconds=seconds)
        self._lost_at = None
        self.tried.set()

    def _lose(self, error: str) -> None:
        if self._lost_at is None:
            self._lost_at = now()
            log.warning("executor.unreachable", scheduler=self.scheduler, error=error)
        self.tried.set()
        self._observer.on_cluster_change()


async def _close(client: Any, *topics: str) -> None:
    """Close a client; what the scheduler is told then may fail, because it may be gone."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(CONNECT_SECONDS):
            for topic in topics:
                client.unsubscribe_topic(topic)
            await client.close()
