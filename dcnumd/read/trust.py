"""Limits on the files to which a measurement may refer: external links, external storage, virtual datasets and basins.

Anyone who can put a file into a watched folder decides what it refers to. The daemon therefore reads such files only in
folders where the operator expects measurements. It does not even look up other names, because a lookup can hang on a
dead share or wake an automounter.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import errno
import functools
import os
import pathlib
from collections.abc import Iterator

from dcnumd.errors import MeasurementError

MAX_SYMLINKS = 40
"""Largest number of symbolic links in one path, the same as in Linux."""


@dataclasses.dataclass(frozen=True)
class Trust:
    """Where files may be to which a measurement refers, and in which state files may be.

    Attributes
    ----------
    folders
        Files in and below these may be read; None for any file.
    basins
        Whether file basins may be anywhere, regardless of `folders`.
    interrupted
        Whether files that are marked as open for writing in SWMR mode may be read, since nobody writes them any more.
    """

    folders: tuple[pathlib.Path, ...] | None = None
    basins: bool = True
    interrupted: bool = False

    def allows(self, path: str | pathlib.Path) -> bool:
        """Return whether a file may be read; `path` is absolute.

        Only names in trusted folders, and those on the way to them, are looked up.
        """
        try:
            return self.way_out(path) is None
        except OSError:
            return False

    def way_out(self, path: str | pathlib.Path) -> str | None:
        """Return the place where a path leaves the trusted folders; None if it does not. `path` is absolute.

        Only names in trusted folders, and those on the way to them, are looked up.

        Raises
        ------
        OSError
            ELOOP, for circular symbolic links.
        """
        return None if self.folders is None else self._way_out(os.fspath(path))

    def allows_basin(self, path: str | pathlib.Path) -> bool:
        """Return whether a file may be read as a basin; `path` is absolute."""
        return self.basins or self.allows(path)

    def require_input(self, path: str | pathlib.Path) -> None:
        """Make sure that a measurement itself may be read, even if its path contains symbolic links.

        Raises
        ------
        MeasurementError
            Reason ``outside``; or ``unreadable``, for circular symbolic links.
        """
        try:
            elsewhere = self.way_out(path)
        except OSError as error:
            raise MeasurementError(f"{path}: cannot be read ({error.strerror})", reason="unreadable") from error
        if elsewhere is not None:
            raise MeasurementError(f"{path}: {leads_out(elsewhere)}", reason="outside")

    def require(self, path: str | pathlib.Path, referring: str, what: str) -> None:
        """Make sure that a file may be read.

        Parameters
        ----------
        path
            The file, absolute.
        referring
            The file that refers to it.
        what
            How it refers to it, for the message: the kind of reference and its name.

        Raises
        ------
        MeasurementError
            Reason ``outside``.
        """
        if not self.allows(path):
            raise MeasurementError(
                f"{referring}: {what} leads to {path}, which is outside of the watched and the output folders",
                reason="outside",
            )

    @functools.cached_property
    def _real(self) -> tuple[str, ...]:
        """Real paths of the trusted folders."""
        return tuple(os.path.realpath(folder) for folder in self.folders or ())

    @functools.cached_property
    def _ways(self) -> tuple[frozenset[str], frozenset[str]]:
        """All parents of the trusted folders: of their real paths, and of the paths in the configuration."""
        real = {str(way) for path in self._real for way in _with_parents(path)}
        # why not `resolve`? The names may be symbolic links and have to stay as they are
        named = {str(way) for folder in self.folders or () for way in _with_parents(os.path.abspath(folder))}  # noqa: PTH100
        return frozenset(real), frozenset(named)

    def _is_below(self, path: str) -> bool:
        return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in self._real)

    def _way_out(self, path: str) -> str | None:
        """Follow `path` name by name as the kernel would, and stop before the first name outside."""
        real, named = self._ways
        place, links = "/", 0
        rest = path.split("/")[::-1]
        while rest:
            part = rest.pop()
            if part in {"", "."}:
                continue
            if part == "..":
                place = os.path.dirname(place)  # noqa: PTH120 -- of a real path, as text
                continue
            place = f"{place.rstrip('/')}/{part}"
            if place in real:
                continue
            if place not in named and not self._is_below(place):
                return "/".join([place.rstrip("/"), *reversed(rest)])
            target = _link_target(place)
            if target is None:
                continue
            links += 1
            if links > MAX_SYMLINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            place = "/" if target.startswith("/") else os.path.dirname(place)  # noqa: PTH120 -- see above
            rest.extend(target.split("/")[::-1])
        return None if self._is_below(place) else place


def leads_out(place: str) -> str:
    """Return the message for a symbolic link to a `place` outside of the trusted folders, with the cure."""
    return (
        f"a symbolic link leads to {place}, which is outside of the watched and the output folders; "
        "move or copy that file to here, or have its folder watched"
    )


_in_force: contextvars.ContextVar[Trust] = contextvars.ContextVar("trust", default=Trust())  # noqa: B039 -- frozen


@contextlib.contextmanager
def trusting(trust: Trust) -> Iterator[None]:
    """Apply `trust` to all measurements that are opened in the block, also by code that it calls."""
    token = _in_force.set(trust)
    try:
        yield
    finally:
        _in_force.reset(token)


def trust_in_force() -> Trust:
    """Return what `trusting` set; outside of its block, any file may be read."""
    return _in_force.get()


def _with_parents(path: str) -> tuple[pathlib.Path, ...]:
    folder = pathlib.Path(path)
    return (folder, *folder.parents)


def _link_target(path: str) -> str | None:
    """Return the target of a symbolic link; None if the path is not a link or does not exist."""
    try:
        return os.readlink(path)  # noqa: PTH115 -- text, as it is
    except (OSError, ValueError):
        return None
