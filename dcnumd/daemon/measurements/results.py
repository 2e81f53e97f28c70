"""Detection of results that were removed, which are only reported or made again."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Callable, Iterable

import structlog

from dcnumd import routing
from dcnumd.config.values import Settings
from dcnumd.daemon.folders.availability import Availability
from dcnumd.daemon.ledger.queries import Made
from dcnumd.daemon.ledger.records import OUTPUT_GONE, Entry, State
from dcnumd.daemon.ledger.store import Ledger
from dcnumd.logic.stamp import Stamp

log = structlog.get_logger()

SLICE = 100
"""Number of results that are checked together."""


class Results:
    """Checks whether the results of finished measurements exist, each time a scan finds the measurements.

    Parameters
    ----------
    settings
        Settings with what to do about a missing result.
    ledger
        Ledger that records the results, and whether one is missing.
    availability
        Checks of files in folders that may not be mounted.
    on_change
        Called whenever all requested results have been checked.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        availability: Availability,
        on_change: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._availability = availability
        self._on_change = on_change
        self._waiting: dict[str, Stamp] = {}
        self._filled = asyncio.Event()
        self._busy = False

    @property
    def idle(self) -> bool:
        """Whether no check is pending."""
        return not self._waiting and not self._busy

    def request_checks(self, measurements: Iterable[tuple[str, Stamp]]) -> None:
        """Request a check of the results of these measurements; measurements without a result are ignored."""
        self._waiting.update(measurements)
        if self._waiting:
            self._filled.set()

    async def keep_checking(self, make_again: Callable[[str, Stamp], None]) -> None:
        """Carry out the checks requested with `request_checks`, until cancelled.

        Parameters
        ----------
        make_again
            Called with the path and stamp of each measurement whose result is missing and must be made again.
        """
        while True:
            await self._filled.wait()
            self._filled.clear()
            waiting, self._waiting = list(self._waiting.items()), {}
            self._busy = True
            for start in range(0, len(waiting), SLICE):
                await self._check(dict(waiting[start : start + SLICE]), make_again)
                # Let signals and jobs be handled in between, since there may be very many results.
                await asyncio.sleep(0)
            self._busy = False
            self._on_change()

    async def to_make(self, *entries: Entry | None) -> frozenset[str]:
        """Return the results of these rows that are certainly missing and must be made again.

        Missing results of groups with ``deleted = "leave"`` are not among them.
        """
        outputs = {
            entry.output: self._root_of(entry.path, entry.output)
            for entry in entries
            if entry is not None and entry.output and not (entry.state is State.DONE and self._are_left(entry.path))
        }
        there = await self._availability.find_results(outputs)
        return frozenset(output for output, is_there in there.items() if not is_there)

    async def _check(self, measurements: dict[str, Stamp], make_again: Callable[[str, Stamp], None]) -> None:
        results = {path: found for path in measurements if (found := self._ledger.result_of(path)) is not None}
        roots = {found.output: self._root_of(path, found.output) for path, found in results.items()}
        there = await self._availability.find_results(roots)
        changed: dict[str, tuple[Made, bool]] = {}
        for path, found in results.items():
            # Skip a result whose folder cannot be reached, and a row that changed during the check.
            if (is_there := there.get(found.output)) is None or self._ledger.result_of(path) != found:
                continue
            if not is_there and not self._are_left(path):
                log.info("output.gone", path=path, output=found.output, deleted="remake")
                make_again(path, measurements[path])
            elif is_there == (found.reason == OUTPUT_GONE):
                changed[path] = found, is_there
        if changed:
            with self._ledger.transaction():
                for found, is_there in changed.values():
                    self._ledger.note_presence(found.id, is_there=is_there)
        for path, (found, is_there) in changed.items():
            if is_there:
                log.info("output.returned", path=path, output=found.output)
            else:
                log.info("output.gone", path=path, output=found.output, deleted="leave")

    def _are_left(self, path: str) -> bool:
        """Return whether the settings of a measurement say to leave missing results alone."""
        return self._settings.group_of(pathlib.Path(path)).output.deleted == "leave"

    def _root_of(self, path: str, output: str) -> pathlib.Path:
        """Return the folder that must exist and be mounted for a result to count as missing."""
        root, folder = routing.output_root_of(self._settings, pathlib.Path(path)), pathlib.Path(output).parent
        # The result may be outside of the root if an earlier configuration placed it there.
        return root if folder.is_relative_to(root) else folder
