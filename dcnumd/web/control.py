"""The interface between the live page and the daemon."""

from __future__ import annotations

from typing import Literal, Protocol

from dcnumd.report.request import PlotKind
from dcnumd.status import Ended, Running, Snapshot, Totals, Waiting


class Control(Protocol):
    """What the daemon offers to the live page. All methods are called in its event loop and must not block."""

    @property
    def version(self) -> int:
        """Number of the present state, which grows with each change."""

    def snapshot(self) -> Snapshot:
        """Return the present state."""

    async def changed(self, version: int) -> int:
        """Wait until the version differs from `version`, and return the new one."""

    def totals(self) -> Totals:
        """Return the counts since the daemon started."""

    def entry(self, entry_id: int) -> Ended | Waiting | Running | None:
        """Return the measurement with this ID; None if there is none."""

    def history(self, *, limit: int, before: int | None = None, state: str | None = None) -> list[Ended]:
        """Return finished measurements, the latest first.

        Parameters
        ----------
        limit
            Largest number of measurements to return.
        before
            Only measurements that finished before the one with this ID; None: from the latest on.
        state
            Only measurements in this state; None: all.
        """

    def retry(self, entry_id: int) -> str:
        """Process a measurement again, and return what happens.

        Raises
        ------
        KeyError
            If there is no measurement with this ID.
        ValueError
            If it cannot be processed again now; the text says why.
        """

    def acknowledge(self) -> int:
        """Note that somebody has seen what failed or got a red light, and return the number of these measurements.

        Raises
        ------
        ValueError
            If that cannot be noted now; the text says why.
        """

    def pause(self) -> None:
        """Start no job from now on."""

    def resume(self) -> None:
        """Start jobs again."""

    def plot(self) -> bytes:
        """Return the scatter plot of the latest report as a PNG; empty if there is none."""

    def live_plot(self, entry_id: int) -> bytes:
        """Return the scatter plot of a measurement that is being recorded as a PNG; empty if there is none."""

    async def report(self, entry_id: int, ending: Literal[".html", ".json"], name: str = "") -> bytes | None:
        """Return the page (``.html``) or the figures (``.json``) of a measurement's report.

        Returns
        -------
        content
            The content of the file; None if there is none, or if it does not have the given `name`.
        """

    async def plot_of(self, entry_id: int, name: str, kind: PlotKind) -> bytes | None:
        """Return a plot of a measurement's report as the content of a file; None if there is none of this name.

        Raises
        ------
        ValueError
            If it cannot be drawn now; the text says why.
        """
