"""Results that were made and are not there any more: whether that is noticed only, or they are made again."""

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
"""Number of results that are looked for at once."""


class Results:
    """Looks for the results of measurements that are done, as often as these are found by a scan.

    Parameters
    ----------
    settings
        What to do about a result that is gone.
    ledger
        Which results there are, and where it is noted that one is gone.
    availability
        Finds out whether they are there.
    on_change
        Called whenever all have been looked for.
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
        """Whether there is nothing to look for."""
        return not self._waiting and not self._busy

    def look_for(self, measurements: Iterable[tuple[str, Stamp]]) -> None:
        """Have the results of these measurements looked for, those that have one."""
        self._waiting.update(measurements)
        if self._waiting:
            self._filled.set()

    async def keep_looking(self, make_again: Callable[[str, Stamp], None]) -> None:
        """Look for what `look_for` was told.

        Parameters
        ----------
        make_again
            Receives measurements whose result is gone and is to be made again.
        """
        while True:
            await self._filled.wait()
            self._filled.clear()
            waiting, self._waiting = list(self._waiting.items()), {}
            self._busy = True
            for start in range(0, len(waiting), SLICE):
                await self._look_for(dict(waiting[start : start + SLICE]), make_again)
                # However many there are, signals and jobs do not wait for them.
                await asyncio.sleep(0)
            self._busy = False
            self._on_change()

    async def to_make(self, *entries: Entry | None) -> frozenset[str]:
        """Return the results of these rows that are certainly gone, without those that are left so."""
        outputs = {
            entry.output: self._root_of(entry.path, entry.output)
            for entry in entries
            if entry is not None and entry.output and not (entry.state is State.DONE and self._are_left(entry.path))
        }
        there = await self._availability.look_for(outputs)
        return frozenset(output for output, is_there in there.items() if not is_there)

    async def _look_for(self, measurements: dict[str, Stamp], make_again: Callable[[str, Stamp], None]) -> None:
        results = {path: found for path in measurements if (found := self._ledger.result_of(path)) is not None}
        roots = {found.output: self._root_of(path, found.output) for path, found in results.items()}
        there = await self._availability.look_for(roots)
        changed: dict[str, tuple[Made, bool]] = {}
        for path, found in results.items():
            # Of one that cannot be reached nothing is known. And a row may have changed meanwhile.
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
        """Return whether results that are gone stay so in the group of a measurement."""
        return self._settings.group_of(pathlib.Path(path)).output.deleted == "leave"

    def _root_of(self, path: str, output: str) -> pathlib.Path:
        """Return the folder that must be there, and mounted, for a result in or below it to be gone."""
        root, folder = routing.output_root_of(self._settings, pathlib.Path(path)), pathlib.Path(output).parent
        # Results may lie where an earlier config had them.
        return root if folder.is_relative_to(root) else folder
