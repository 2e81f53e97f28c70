"""Logging of the state of a watched folder: each state once, when it begins."""

from __future__ import annotations

import structlog

from dcnumd.daemon.folders.listing import Listing

log = structlog.get_logger()


class WatchLog:
    """Logs the state of one watched folder if it has changed.

    Parameters
    ----------
    folder
        Path of the folder.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._unreachable = False
        self._degraded = False
        self._armed: tuple[str, str] | None = None
        self._odd: set[str] = set()

    def unreachable(self, error: OSError) -> None:
        """Log that the folder is missing, is not mounted, or does not respond."""
        if not self._unreachable:
            log.warning("watch.unreachable", folder=self._folder, error=error.strerror or str(error))
        self._unreachable = True

    def reached(self) -> None:
        """Log that the folder is reachable again, if it was not."""
        if self._unreachable:
            log.info("watch.recovered", folder=self._folder)
        self._unreachable = False

    def means(self, mode: str, filesystem: str, rescan_seconds: float, problem: str) -> None:
        """Log how the folder is followed.

        Parameters
        ----------
        mode
            ``events`` or ``polling``.
        filesystem
            Type of the file system of the folder.
        rescan_seconds
            Time between scans [s].
        problem
            Why there are no file events, or not from all folders; empty without a problem, or if none are wanted.
        """
        if problem and not self._degraded:
            log.warning("watch.degraded", folder=self._folder, error=problem, rescan_seconds=rescan_seconds)
        elif self._degraded and not problem:
            log.info("watch.recovered", folder=self._folder)
        self._degraded = bool(problem)
        if not problem and (mode, filesystem) != self._armed:
            self._armed = mode, filesystem
            told = {"mode": mode, "filesystem": filesystem, "rescan_seconds": rescan_seconds}
            log.info("watch.armed", folder=self._folder, **told)

    def odd(self, listing: Listing) -> None:
        """Log new paths that look like measurements but are none, and folders that cannot be read."""
        odd = dict.fromkeys(listing.not_files, "not_a_file") | dict.fromkeys(listing.unreadable, "unreadable")
        odd |= dict.fromkeys(listing.left_out, "pattern") | {path: link.reason for path, link in listing.links.items()}
        errors = listing.unreadable | {path: link.text for path, link in listing.links.items()}
        for path, reason in odd.items():
            if path not in self._odd:
                log.warning("file.ignored", path=path, reason=reason, error=errors.get(path, ""))
        self._odd = set(odd)
