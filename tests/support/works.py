"""Parts of a daemon in the event loop of a test: real ledger, real child processes, real files."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools

from dcnumd.daemon import logs
from dcnumd.daemon.folders.availability import Availability
from dcnumd.daemon.ledger.records import State
from dcnumd.daemon.ledger.store import Ledger
from dcnumd.daemon.measurements.counters import Counters
from dcnumd.daemon.measurements.inspector import Inspector
from dcnumd.daemon.measurements.pipeline import Overseer
from dcnumd.daemon.measurements.reports import Reporter
from dcnumd.daemon.measurements.runner import JobRunner
from dcnumd.daemon.measurements.settle import Gate
from dcnumd.logic.stamp import Stamp
from dcnumd.processes.child import Child
from dcnumd.processes.courtesy import Courtesy


class Works:
    """A gate, and behind it a queue with its pipeline, or only a queue in which the test finds what has passed."""

    def __init__(self, folder, settings, *, with_jobs, once=False):
        self.settings = dataclasses.replace(settings, watch=dataclasses.replace(settings.watch, folders=(folder,)))
        self.ledger = Ledger.open(folder)
        self.ledger.recover()
        configure = functools.partial(logs.configure, self.settings.log)
        self.probe = Child("probe", configure, Courtesy(0))
        self.pipeline = Child("pipeline", configure, Courtesy(0), self._on_progress)
        self.changed = asyncio.Event()
        self.passed = asyncio.Queue()
        self.inspector = Inspector(self.settings, self.probe)
        self.overseer = Overseer(self.settings, self.pipeline, recognize=self.ledger.rebuilt)
        self.tidied = []
        availability = Availability(self.settings, self.ledger)
        self.counters = Counters()
        self.report = Child("report", configure, Courtesy(0))
        heard = self._tidy, lambda *_: None, self.changed.set
        self.reports = Reporter(self.settings, self.ledger, availability, self.report, self.counters, *heard)
        parts = self.overseer, self.inspector, availability, self.reports, self.counters, self._tidy, self.changed.set
        self.jobs = JobRunner(self.settings, self.ledger, *parts, once=once) if with_jobs else None
        enqueue = self.jobs.enqueue if self.jobs else self.passed.put_nowait
        heard = enqueue, self.changed.set, self._on_failure
        self.gate = Gate(self.settings, self.ledger, self.inspector, availability, *heard, once=once)

    def _on_failure(self, reason):
        self.counters.failed[reason] += 1

    def work(self):
        """Return what a daemon would have running."""
        gate = self.gate
        work = [gate.keep_admitting(), gate.keep_settling(), gate.keep_looking(), gate.results.keep_looking()]
        if self.jobs is not None:
            work += [self.jobs.keep_running(gate), self.jobs.keep_outputs(), self.jobs.keep_courteous(gate)]
        return work

    async def close(self):
        await self.probe.close(5.0)
        await self.pipeline.close(5.0)
        await self.report.close(5.0)
        self.ledger.close()

    async def offer(self, *paths):
        """Offer files as they are now, and wait until the gate has taken note of them."""
        self.gate.offer([(str(path), Stamp.at(str(path))) for path in paths])
        await self.gate._found.join()

    async def until(self, condition):
        """Wait until something has left the gate or the queue and `condition` holds."""
        async with asyncio.timeout(180):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def next_passed(self):
        """Return the next measurement that the gate lets through."""
        return await asyncio.wait_for(self.passed.get(), 60)

    async def next_left(self):
        """Wait until a file has left the gate."""
        await self.until(lambda: self.gate.idle)

    def states(self):
        return [entry.state for entry in self.ledger.entries()]

    def finish(self, entry, output):
        """Record a measurement as done, with a result."""
        output.write_bytes(b"result")
        self.ledger.move(entry.id, State.RUNNING)
        done = self.ledger.finish(entry.id, str(output))
        self.gate.leave_queue(entry.path, entry.stamp)
        return done

    def _on_progress(self, progress):
        if self.jobs is not None:
            self.jobs.on_progress(progress)

    def _tidy(self, folder):
        self.tidied.append(folder)


def with_works(folder, body, settings, **keywords):
    """Run `body` with working parts, none of which may end before it."""

    async def run():
        works = Works(folder, settings, **keywords)
        tasks = [asyncio.create_task(coroutine) for coroutine in works.work()]
        try:
            await body(works)
            assert not [task for task in tasks if task.done()]
        finally:
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await works.close()

    asyncio.run(run())
