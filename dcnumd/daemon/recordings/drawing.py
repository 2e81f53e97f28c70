"""Checks and plots of recordings, which the process that makes reports makes of their events."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from dcnumd.config.values import Settings
from dcnumd.daemon.ledger.records import utc_now
from dcnumd.daemon.measurements.report_process import ReportCalls
from dcnumd.daemon.recordings.reading import Reading
from dcnumd.errors import DcnumdError
from dcnumd.report.calls import summarize_live
from dcnumd.report.request import LiveReportRequest


class Drawing:
    """Judges and draws the events of recordings, and keeps the latest plots.

    Parameters
    ----------
    settings
        Settings of the checks and of the plot, and whether there is a page that shows it.
    reports
        What makes reports.
    most
        Number of plots that are kept.
    on_change
        Called when there is something new to show.
    """

    def __init__(self, settings: Settings, reports: ReportCalls, most: int, on_change: Callable[[], object]) -> None:
        report = settings.report
        self._request = LiveReportRequest(report.limits, report.plot, draw=bool(settings.web.listen))
        self._reports = reports
        self._most = most
        self._on_change = on_change
        self._plots: dict[int, bytes] = {}

    def plot(self, entry_id: int) -> bytes:
        """Return the plot of a recording by the number of its row, a PNG; empty if there is none.

        Pages may ask for it a moment after the end of the recording.
        """
        return self._plots.get(entry_id, b"")

    async def draw(self, reading: Reading, values: bytes) -> None:
        """Judge and draw the events of a recording; after an error, the next step of the recording tries again.

        Parameters
        ----------
        reading
            The recording.
        values
            What the live process has collected for that.
        """
        try:
            with contextlib.suppress(DcnumdError):
                found = await self._reports.here.call(summarize_live, values, self._request)
                reading.note_report(found, utc_now())
                if found.plot:
                    self._keep(reading.entry_id, found.plot)
                self._on_change()
        finally:
            reading.drawing = None

    def _keep(self, entry_id: int, plot: bytes) -> None:
        self._plots.pop(entry_id, None)
        self._plots[entry_id] = plot
        while len(self._plots) > self._most:
            del self._plots[next(iter(self._plots))]
