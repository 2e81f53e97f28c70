"""Reads a watched folder: all of it, or what file events name in it, by the same rules."""

from __future__ import annotations

import os
import pathlib
import stat
from collections.abc import Callable, Iterable

from dcnumd.config.values import Settings
from dcnumd.daemon.folders.links import LinkFault, stat_of
from dcnumd.daemon.folders.listing import CandidateFilter, Listing, list_folder
from dcnumd.logic.stamp import Stamp
from dcnumd.read.trust import Trust


class FolderReader:
    """Knows what is looked at in one watched folder; all of its methods may hang with the share.

    Parameters
    ----------
    root
        The folder.
    settings
        What to look for.
    trusted
        Symbolic links may lead to files in these folders; None: to any file.
    """

    def __init__(self, root: pathlib.Path, settings: Settings, trusted: tuple[pathlib.Path, ...] | None = None) -> None:
        self._root = root
        self._recursive = settings.watch.recursive
        self._accepts = CandidateFilter.of(settings)
        self._trusted = trusted

    def read(self, give_sign: Callable[[], None]) -> Listing:
        """Return everything that is there.

        Raises
        ------
        OSError
            If the folder itself cannot be listed.
        """
        return self._listed(os.fspath(self._root), Trust(self._trusted), give_sign)

    def read_named(self, paths: Iterable[str], give_sign: Callable[[], None]) -> Listing:
        """Return the possible measurements among these paths, and what is in those that are folders."""
        listing = Listing()
        # anew each time, as links on the way to the folders may change
        trust = Trust(self._trusted)
        for path in paths:
            give_sign()
            try:
                if not self._follows(path):
                    continue
                if self._is_folder(path):
                    # Files that came with a new folder raise no events of their own.
                    inside = self._listed(path, trust, give_sign)
                    listing.found += inside.found
                    listing.folders |= inside.folders
                elif not self._accepts.refusal(path):
                    result = stat_of(path, trust)
                    if not isinstance(result, LinkFault) and stat.S_ISREG(result.st_mode):
                        listing.found.append((path, Stamp.of(result)))
            except OSError:
                # It is gone already, or will be found by the next scan.
                continue
        return listing

    def may_be_measurement(self, path: str) -> bool:
        """Return whether a file of this name would be taken; its folder is not looked at, so this never hangs."""
        return not self._accepts.refusal(path)

    def _listed(self, folder: str, trust: Trust, give_sign: Callable[[], None]) -> Listing:
        return list_folder(folder, self._accepts, recursive=self._recursive, trust=trust, give_sign=give_sign)

    def _is_folder(self, path: str) -> bool:
        """Return whether a path is a folder that is looked into."""
        if not self._recursive or self._accepts.is_output(path):
            return False
        return stat.S_ISDIR(pathlib.Path(path).lstat().st_mode)

    def _follows(self, path: str) -> bool:
        """Return whether a scan would come to `path` too: not through links to folders, not into hidden ones."""
        inner = pathlib.Path(path)
        if inner.name.startswith("."):
            return False
        for parent in inner.parents:
            if parent == self._root:
                return True
            if parent.name.startswith(".") or parent.is_symlink():
                return False
        return False
