"""Parts of a daemon in the event loop of a test, with a real ledger, real files and, on request, real processes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import inspect

from dcnumd.config.values import PlotSettings
from dcnumd.daemon import logs
from dcnumd.daemon.ledger.records import State
from dcnumd.daemon.ledger.store import Ledger
from dcnumd.daemon.measurements.counters import Counters
from dcnumd.daemon.measurements.report_process import ReportProcess
from dcnumd.daemon.session import Session
from dcnumd.daemon.workers import Workers, make_executor
from dcnumd.logic.stamp import Stamp
from dcnumd.processes.child import Child
from dcnumd.processes.courtesy import Courtesy
from tests.support.fakes import FakeChild, FakeExecutor
from tests.support.loop import run_jumping


class Works:
    """The settling of measurements and their queue, with or without the jobs that process them."""

    def __init__(self, folder, settings, *, with_jobs, once=False, executor=None, processes=False, live=None):
        watch = dataclasses.replace(settings.watch, folders=(folder,))
        self.settings = dataclasses.replace(settings, watch=watch)
        self.ledger = Ledger.open(folder)
        self.changed = asyncio.Event()
        self.with_jobs = with_jobs
        configure = functools.partial(logs.configure, self.settings.log)
        if processes:
            self.executor = make_executor(self.settings, configure, self._on_progress, self.changed.set)
            self.probe, self.report = (Child(name, configure, Courtesy(0)) for name in ("probe", "report"))
        else:
            self.executor, self.probe, self.report = executor or FakeExecutor(), FakeChild(), FakeChild()
        if processes and self.settings.live.enabled:
            live = Child("live", configure, Courtesy(0))
        self.live = live
        workers = Workers(self.executor, self.probe, self.report, ReportProcess(self.report, PlotSettings()), live)
        self.session = Session(self.settings, self.ledger, workers, Counters(), self, once=once)
        self.lifecycle, self.settling, self.jobs = self.session.lifecycle, self.session.settling, self.session.jobs
        self.tracker, self.queue = self.lifecycle.tracker, self.lifecycle.queue
        self.lifecycle.recover()

    def work(self):
        """Return the coroutines that a daemon would run."""
        settling, session = self.settling, self.session
        work = [settling.keep_admitting(), settling.keep_settling(), settling.keep_inspecting()]
        work.append(session.results.keep_checking(settling.make_again))
        if self.with_jobs:
            work += [self.jobs.keep_running(), self.jobs.early.keep_starting(), self.jobs.outputs.keep_checking()]
        if self.with_jobs and self.settings.resources.pause_while_acquiring:
            work.append(session.keep_courteous())
        if self.live is not None:
            work.append(session.recordings.keep_reading())
        return work

    async def close(self):
        children = [self.probe, self.executor, self.report, *([self.live] if self.live is not None else [])]
        await asyncio.gather(*(one.close(5.0) for one in children))
        self.ledger.close()

    async def offer(self, *paths):
        """Offer files as they are now, and wait until they have been admitted."""
        self.settling.offer([(str(path), Stamp.at(str(path))) for path in paths])
        await self.settling.all_admitted()

    async def until(self, condition):
        """Wait until `condition` holds; it is checked at each change of a measurement's state."""
        async with asyncio.timeout(180):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def next_passed(self):
        """Wait for the next measurement in the queue, remove it, and return its entry."""
        async with asyncio.timeout(60):
            while (waiting := self.queue.take()) is None:
                self.queue.filled.clear()
                await self.queue.filled.wait()
        return waiting.entry

    async def next_left(self):
        """Wait until no file is settling."""
        await self.until(lambda: self.settling.idle)

    def states(self):
        return [entry.state for entry in self.ledger.entries()]

    def finish(self, entry, output):
        """Write a result, and record its measurement as done; return its entry."""
        output.write_bytes(b"result")
        self.ledger.move(entry.id, State.RUNNING)
        done = self.ledger.finish(entry.id, str(output))
        self.lifecycle.leave_queue(entry.path, entry.stamp)
        return done

    def on_ready(self):
        """Do nothing: the session does not start the parts."""

    def on_change(self):
        self.changed.set()

    def lacks_plot(self):
        """Return False: there is no live page."""
        return False

    def on_report(self, *_):
        """Do nothing: no reports are made."""

    def _on_progress(self, progress):
        self.jobs.on_progress(progress)


def with_works(folder, body, settings, *, processes=False, **keywords):
    """Run `body` with working parts, and fail if one of them ends before it.

    With `processes`, processes and time are real; otherwise calls run at once and time jumps.
    """

    async def run():
        works = Works(folder, settings, processes=processes, **keywords)
        works.tasks = tasks = [asyncio.create_task(coroutine) for coroutine in works.work()]
        try:
            await body(works)
            assert not [task for task in tasks if task.done() and task.exception() is None]
        finally:
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await works.close()

    if processes:
        asyncio.run(run())
    else:
        run_jumping(run())


def in_works(settings, **keywords):
    """Decorate a test that is a coroutine function; it gets the working parts of a daemon in `tmp_path` as `works`."""

    def decorate(test):
        wanted = inspect.signature(test).parameters

        @functools.wraps(test)
        def run(tmp_path, **fixtures):
            fixtures |= {"tmp_path": tmp_path} if "tmp_path" in wanted else {}
            with_works(tmp_path, lambda works: test(works=works, **fixtures), settings, **keywords)

        names = dict.fromkeys(["tmp_path", *(name for name in wanted if name != "works")])
        run.__signature__ = inspect.Signature(
            [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
        )
        return run

    return decorate
