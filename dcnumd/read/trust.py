"""Which other files a measurement may lead to: external links, external storage, virtual datasets and basins.

Whoever can put a file into a watched folder decides what it refers to. What the daemon reads on its behalf must
therefore lie where the operator expects measurements, and nothing else may even be looked for: the mere lookup of a
name can wait for a dead share or wake an automounter.
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
"""Symbolic links in one path; Linux gives up at the same number."""


@dataclasses.dataclass(frozen=True)
class Trust:
    """Where the files may lie that a measurement refers to.

    Attributes
    ----------
    folders
        Files in and below these may be read; None: any file.
    basins
        Whether file basins may lie anywhere, whatever `folders` says.
    """

    folders: tuple[pathlib.Path, ...] | None = None
    basins: bool = True

    def allows(self, path: str | pathlib.Path) -> bool:
        """Return whether a file may be read; `path` is absolute.

        Only names in trusted folders, and those on the way to them, are looked up.
        """
        try:
            return self.way_out(path) is None
        except OSError:
            return False

    def way_out(self, path: str | pathlib.Path) -> str | None:
        """Return where the way to a file leads out of the trusted folders, None if it does not; `path` is absolute.

        Only names in trusted folders, and those on the way to them, are looked up.

        Raises
        ------
        OSError
            ELOOP if symbolic links lead in circles.
        """
        return None if self.folders is None else self._way_out(os.fspath(path))

    def allows_basin(self, path: str | pathlib.Path) -> bool:
        """Return whether a file may be read as a basin; `path` is absolute."""
        return self.basins or self.allows(path)

    def require_input(self, path: str | pathlib.Path) -> None:
        """Make sure that a measurement itself may be read, which symbolic links may have in another place.

        Raises
        ------
        MeasurementError
            Reason ``outside``; or ``unreadable``, if the links lead in circles.
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
            By which name and in which way.

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
        """Names on the way to trusted folders: the real ones, and those that the operator wrote."""
        real = {str(way) for path in self._real for way in _with_parents(path)}
        # not `resolve`: the names themselves, which may be symbolic links
        named = {str(way) for folder in self.folders or () for way in _with_parents(os.path.abspath(folder))}  # noqa: PTH100
        return frozenset(real), frozenset(named)

    def _is_below(self, path: str) -> bool:
        return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in self._real)

    def _way_out(self, path: str) -> str | None:
        """Follow `path` name by name as the system would, and stop before the first that is nobody's business."""
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
    """Return what is wrong with a link that leads to a `place` outside of the trusted folders, and the cure."""
    return (
        f"a symbolic link leads to {place}, which is outside of the watched and the output folders; "
        "move or copy that file to here, or have its folder watched"
    )


_in_force: contextvars.ContextVar[Trust] = contextvars.ContextVar("trust", default=Trust())  # noqa: B039 -- frozen


@contextlib.contextmanager
def trusting(trust: Trust) -> Iterator[None]:
    """Have all measurements that are opened meanwhile, by whomever, lead nowhere else."""
    token = _in_force.set(trust)
    try:
        yield
    finally:
        _in_force.reset(token)


def trust_in_force() -> Trust:
    """Return what `trusting` set; without it, any file may be read."""
    return _in_force.get()


def _with_parents(path: str) -> tuple[pathlib.Path, ...]:
    folder = pathlib.Path(path)
    return (folder, *folder.parents)


def _link_target(path: str) -> str | None:
    """Return where a symbolic link leads; None for what is none, or is not there."""
    try:
        return os.readlink(path)  # noqa: PTH115 -- text, as it is
    except (OSError, ValueError):
        return None
