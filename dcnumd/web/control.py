"""What the live page may ask of the daemon."""

from __future__ import annotations

from typing import Literal, Protocol

from dcnumd.status import Ended, Running, Snapshot, Totals, Waiting


class Control(Protocol):
    """What the daemon offers; everything is called in its event loop, and is quick."""

    @property
    def version(self) -> int:
        """Grows whenever something has changed."""

    def snapshot(self) -> Snapshot:
        """Return what is going on now."""

    async def changed(self, version: int) -> int:
        """Wait until something is different from `version`, and return the version then."""

    def totals(self) -> Totals:
        """Return what was counted since the start."""

    def entry(self, entry_id: int) -> Ended | Waiting | Running | None:
        """Return what is known of a measurement by its number."""

    def history(self, *, limit: int, before: int | None = None, state: str | None = None) -> list[Ended]:
        """Return measurements that came to an end, the last one first."""

    def retry(self, entry_id: int) -> str:
        """Have a measurement processed again, and return what happens; KeyError or ValueError if it cannot be."""

    def pause(self) -> None:
        """Start no job from now on."""

    def resume(self) -> None:
        """Start jobs again."""

    def plot(self) -> bytes:
        """Return the scatter plot of the last report, a PNG; empty if there is none."""

    async def report(self, entry_id: int, ending: Literal[".html", ".json"], name: str = "") -> bytes | None:
        """Return the page or the figures of a measurement's report; None if there are none, or not of that name."""
