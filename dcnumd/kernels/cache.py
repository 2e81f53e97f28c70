"""Where compiled kernels are kept, and that they are there before anybody waits for them.

A folder is named after all that compiled code depends on, see `dcnumd.kernels.key`. Whatever changes, all is compiled
anew, and several versions are used side by side. Compiled code is used only from a folder that is complete, which a
marker says with the checksum of every file; files that a power failure has damaged are thus found at the start. A
complete folder is never written to. That numba's own cache does not keep these promises is told, with what was
measured, in `dcnumd.kernels.decorator`.

numba is not imported here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import json
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from dcnumd.kernels.key import cache_key

PREFIX = "kernels-"
MARKER = "complete.json"
LOCK = "lock"
SUFFIX = ".kernel"

COMPILE_CODE = "import sys; sys.path[:] = {path!r}; from dcnumd.logic.warm_up import main; main()"
COMPILE_SECONDS = 900.0
"""Time in which the kernels must be compiled, on the slowest of computers [s]."""
MOST_PROCESSES = 3
"""More compile no faster: the largest kernel takes a third of the time."""
DAY = 24 * 3600.0
UNUSED_DAYS = 30
"""Time without use after which a folder is removed [d]; another version may use it till then."""

Announce = Callable[[str], object]


@dataclasses.dataclass(frozen=True)
class KernelFolder:
    """A folder with compiled kernels.

    Attributes
    ----------
    path
        The folder.
    checksums
        Size and CRC-32 of each file, by its name; empty while the folder is being filled.
    filling
        Whether this process writes what it compiles to the folder.
    strict
        Whether nothing may be missing.
    """

    path: pathlib.Path
    checksums: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    filling: bool = False
    strict: bool = False

    def load(self, name: str) -> bytes | None:
        """Return compiled code; None if it is not there or damaged.

        Raises
        ------
        LookupError
            It is not there, and the folder is `strict`.
        """
        with contextlib.suppress(OSError):
            content = (self.path / (name + SUFFIX)).read_bytes()
            if self.checksums.get(name + SUFFIX) == _checksum(content):
                return content
        if self.strict:
            raise LookupError(f"{self.path}: {name} is missing or damaged")
        return None

    def save(self, name: str, content: bytes) -> None:
        """Keep compiled code."""
        _write(self.path / (name + SUFFIX), content)


def _checksum(content: bytes) -> tuple[int, int]:
    return len(content), zlib.crc32(content)


def _write(path: pathlib.Path, content: bytes) -> None:
    """Write a file so that it is either whole and on disk, or not there under its name."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 -- of a descriptor
            os.fchmod(descriptor, 0o644)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        pathlib.Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            pathlib.Path(temporary).unlink()
        raise


def candidates() -> Iterator[pathlib.Path]:
    """Yield the folders that may hold compiled code, the preferred one first; they need not exist."""
    name = PREFIX + cache_key()
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        yield pathlib.Path(given) / name
        return
    with contextlib.suppress(RuntimeError):
        # no home folder: a service user may have none
        yield pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "dcnumd" / name
    if not os.path.lexists(_last_resort()) or _is_trusted(_last_resort()):
        yield _last_resort() / name


def _last_resort() -> pathlib.Path:
    """Return the folder for users without a home; not in $TMPDIR, which the daemon empties at each start."""
    return pathlib.Path(f"/var/tmp/dcnumd-{os.getuid()}")  # noqa: S108 -- it must be ours, see `_is_usable`


def _is_trusted(folder: pathlib.Path) -> bool:
    """Return whether only we or root can have put something into a folder: compiled code is trusted."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid in {0, os.getuid()}
        and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )


def is_complete(folder: pathlib.Path) -> bool:
    """Return whether a folder has all kernels, undamaged, from nobody but us or root."""
    return _read_complete(folder) is not None


def is_compiled() -> bool:
    """Return whether all kernels are there for this process."""
    return any(is_complete(folder) for folder in candidates())


def _read_complete(folder: pathlib.Path) -> KernelFolder | None:
    """Return a folder if it is complete, see `is_complete`."""
    if not _is_trusted(folder):
        return None
    try:
        marker: Any = json.loads((folder / MARKER).read_bytes())
        checksums = {str(name): (int(size), int(crc)) for name, (size, crc) in marker["files"].items()}
        if marker["key"] != cache_key() or not checksums:
            return None
        for name, checksum in checksums.items():
            if _checksum((folder / name).read_bytes()) != checksum:
                return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return KernelFolder(folder, checksums)


_chosen: list[KernelFolder] = []


def fill(path: pathlib.Path) -> None:
    """Have this process write what it compiles to a folder; to be called before the first kernel is."""
    _chosen[:] = [KernelFolder(path, filling=True)]


def check(path: pathlib.Path) -> None:
    """Have this process load all kernels from a folder, or fail; to be called before the first kernel is."""
    _chosen[:] = [KernelFolder(path, _checksums(path), strict=True)]


def _checksums(path: pathlib.Path) -> dict[str, tuple[int, int]]:
    return {file.name: _checksum(file.read_bytes()) for file in sorted(path.glob("*" + SUFFIX))}


def open_folder() -> KernelFolder | None:
    """Return the folder from which this process takes compiled code, None if none is complete."""
    return _chosen[0] if _chosen else _find_complete()


@functools.cache
def _find_complete() -> KernelFolder | None:
    return next((found for folder in candidates() if (found := _read_complete(folder))), None)


def ensure_compiled(announce: Announce) -> pathlib.Path | None:
    """Make sure that all kernels are compiled and kept.

    To be called before any process calls a kernel. It returns at once when nothing is to be done. Of several
    processes that call it at the same time one compiles, and the others wait.

    Parameters
    ----------
    announce
        Called with a sentence for the operator, when something is done that takes time or does not work.

    Returns
    -------
    folder
        Where compiled kernels are kept; None if they cannot be, and each process compiles for itself.
    """
    _find_complete.cache_clear()
    found = _find_complete()
    if found is None:
        path = next(filter(_is_usable, candidates()), None)
        if path is None:
            places = ", ".join(str(folder.parent) for folder in candidates()) or f"{_last_resort()}"
            announce(
                f"Compiled kernels cannot be kept: {places} cannot be written, or belongs to somebody else. "
                "They are compiled at each start, which takes half a minute; set NUMBA_CACHE_DIR to a folder of yours."
            )
            return None
        try:
            _compile_locked(path, announce)
        except (OSError, subprocess.SubprocessError) as error:
            announce(f"Kernels could not be compiled ahead ({error}); they are compiled when they are needed.")
            return None
        _find_complete.cache_clear()
        found = _find_complete()
        if found is None:
            return None
    note_use()
    return found.path


def _is_usable(folder: pathlib.Path) -> bool:
    """Return whether compiled code can be written to a folder, which is made if it is missing."""
    try:
        if folder.parent == _last_resort():
            # where everybody may create folders, the one above ours must be ours, too
            folder.parent.mkdir(mode=0o700, exist_ok=True)
            if not _is_trusted(folder.parent):
                return False
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        return folder.stat().st_uid == os.getuid() and _is_trusted(folder) and os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        return False


@contextlib.contextmanager
def _locked(folder: pathlib.Path, on_wait: Callable[[], object]) -> Iterator[int]:
    """Hold the lock of a folder, which the system frees when all that have its descriptor are dead."""
    with (folder / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def _compile_locked(folder: pathlib.Path, announce: Announce) -> None:
    """Fill a folder, unless somebody else does so meanwhile."""

    def tell_waiting() -> None:
        announce(f"Waiting for another dcnumd that compiles the kernels to {folder}.")

    with _locked(folder, tell_waiting) as lock:
        if is_complete(folder):
            return
        begin = time.monotonic()
        damaged = (folder / MARKER).exists()
        reason = "the ones in the cache are damaged" if damaged else "once for each version of dcnumd and numba"
        announce(f"Compiling the numerical kernels ({reason}); this takes about 15 s. They are kept in {folder}.")
        _empty(folder)
        _run("fill", folder, min(len(os.sched_getaffinity(0)), MOST_PROCESSES), lock)
        _run("check", folder, 1, lock)
        _write(folder / MARKER, json.dumps({"key": cache_key(), "files": _checksums(folder)}).encode())
        _sync(folder)
        announce(f"The kernels are compiled, after {time.monotonic() - begin:.0f} s.")
    _remove_unused(folder)


def _empty(folder: pathlib.Path) -> None:
    """Remove all but the lock, the marker first."""
    (folder / MARKER).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.name != LOCK:
            path.unlink()


def _sync(folder: pathlib.Path) -> None:
    """Have the names in a folder on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _run(action: str, folder: pathlib.Path, count: int, lock: int) -> None:
    """Have all kernels called by some processes, which fill a folder or check it, and hold its lock as long.

    Raises
    ------
    SubprocessError
        One of them failed; the error has what it said last.
    """
    # Whoever is free draws the next number, and calls the group of kernels that has it.
    numbers, writer = os.pipe()
    processes: list[subprocess.Popen[str]] = []
    try:
        with open(writer, "wb") as file:  # noqa: PTH123 -- of a descriptor
            file.write(bytes(range(256)))
        for _ in range(count):
            process = subprocess.Popen(  # noqa: S603 -- our own module
                # what lies in the current folder must not take the place of what this process has loaded
                [sys.executable, "-P", "-c", COMPILE_CODE.format(path=sys.path), action, folder, str(os.getpid())],
                stdin=numbers,
                pass_fds=(lock,),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
            processes.append(process)
        outputs = [process.communicate(timeout=COMPILE_SECONDS)[1] for process in processes]
    finally:
        os.close(numbers)
        for process in processes:
            process.kill()
            process.wait()
    for process, output in zip(processes, outputs, strict=True):
        if process.returncode:
            lines = [line for line in output.splitlines() if "Error" in line] or output.split("\n")
            raise subprocess.SubprocessError(lines[-1] or f"the compiler ended with exit code {process.returncode}")


def note_use() -> None:
    """Leave the time of use at the marker of the folder that this process uses, at most once a day."""
    found = _find_complete()
    if found is not None:
        with contextlib.suppress(OSError):
            if time.time() - (found.path / MARKER).stat().st_mtime > DAY:
                os.utime(found.path / MARKER)


def _remove_unused(folder: pathlib.Path) -> None:
    """Remove folders of other versions beside `folder` that nobody has used for long."""
    for other in folder.parent.glob(PREFIX + "*"):
        with contextlib.suppress(OSError):
            if other == folder or other.is_symlink() or other.stat().st_uid != os.getuid():
                continue
            used = max(path.stat().st_mtime for path in (other, *other.iterdir()))
            if time.time() - used > UNUSED_DAYS * DAY:
                shutil.rmtree(other)
