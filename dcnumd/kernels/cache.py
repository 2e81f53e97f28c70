"""Cache of compiled kernels on disk, which is filled before any measurement has to wait for it.

A folder of the cache is named after everything that compiled code depends on; see `dcnumd.kernels.key`. After any
change all kernels are compiled again, and several versions can be used side by side. Compiled code is used only from a
complete folder: a marker in it contains the checksum of every file, so that files damaged by a power failure are
detected at the start. A complete folder is never written to. Why not numba's own cache? It does not guarantee this; see
`dcnumd.kernels.decorator`, which also gives measured times.

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
"""Time limit for compiling the kernels on the slowest computers [s]."""
MOST_PROCESSES = 3
"""Largest number of compiling processes; more are no faster, since the largest kernel takes a third of the time."""
DAY = 24 * 3600.0
UNUSED_DAYS = 30
"""Time without use after which a folder is removed [d]; until then another version may use it."""

Announce = Callable[[str], object]


@dataclasses.dataclass(frozen=True)
class KernelFolder:
    """Folder with compiled kernels.

    Attributes
    ----------
    path
        Path of the folder.
    checksums
        Size [bytes] and CRC-32 of each file by its name; empty while the folder is being filled.
    filling
        Whether this process writes the code that it compiles to the folder.
    strict
        Whether missing or damaged code is an error.
    """

    path: pathlib.Path
    checksums: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    filling: bool = False
    strict: bool = False

    def load(self, name: str) -> bytes | None:
        """Return the compiled code with this name; None if it is missing or damaged.

        Raises
        ------
        LookupError
            If it is missing or damaged, and the folder is `strict`.
        """
        with contextlib.suppress(OSError):
            content = (self.path / (name + SUFFIX)).read_bytes()
            if self.checksums.get(name + SUFFIX) == _checksum(content):
                return content
        if self.strict:
            raise LookupError(f"{self.path}: {name} is missing or damaged")
        return None

    def save(self, name: str, content: bytes) -> None:
        """Write compiled code to the folder."""
        _write(self.path / (name + SUFFIX), content)


def _checksum(content: bytes) -> tuple[int, int]:
    return len(content), zlib.crc32(content)


def _write(path: pathlib.Path, content: bytes) -> None:
    """Write a file atomically: it gets its name only when its content is complete and on disk."""
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
    """Yield the folders that may contain compiled code, the preferred one first; they need not exist."""
    name = PREFIX + cache_key()
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        yield pathlib.Path(given) / name
        return
    with contextlib.suppress(RuntimeError):
        # RuntimeError: there is no home folder; the user of a service may have none.
        yield pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "dcnumd" / name
    if not os.path.lexists(_last_resort()) or _is_trusted(_last_resort()):
        yield _last_resort() / name


def _last_resort() -> pathlib.Path:
    """Return the folder for users without a home folder; not in $TMPDIR, which the daemon empties at each start."""
    return pathlib.Path(f"/var/tmp/dcnumd-{os.getuid()}")  # noqa: S108 -- others are rejected, see `_is_trusted`


def _is_trusted(folder: pathlib.Path) -> bool:
    """Return whether only this user or root can have written to a folder, since compiled code in it is executed."""
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
    """Return whether a folder contains all kernels, undamaged and written by nobody but this user or root."""
    return _read_complete(folder) is not None


def is_compiled() -> bool:
    """Return whether there is a complete folder for this process."""
    return any(is_complete(folder) for folder in candidates())


def _read_complete(folder: pathlib.Path) -> KernelFolder | None:
    """Return a folder if it is complete (see `is_complete`), and None otherwise."""
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
    """Make this process write the code that it compiles to a folder; call this before the first kernel is called."""
    _chosen[:] = [KernelFolder(path, filling=True)]


def check(path: pathlib.Path) -> None:
    """Make this process load all kernels from a folder, or fail; call this before the first kernel is called."""
    _chosen[:] = [KernelFolder(path, _checksums(path), strict=True)]


def _checksums(path: pathlib.Path) -> dict[str, tuple[int, int]]:
    return {file.name: _checksum(file.read_bytes()) for file in sorted(path.glob("*" + SUFFIX))}


def open_folder() -> KernelFolder | None:
    """Return the folder that this process uses for compiled code; None if none is complete."""
    return _chosen[0] if _chosen else _find_complete()


@functools.cache
def _find_complete() -> KernelFolder | None:
    return next((found for folder in candidates() if (found := _read_complete(folder))), None)


def ensure_compiled(announce: Announce) -> pathlib.Path | None:
    """Compile all kernels and store them in a folder, unless one is complete already.

    Call this before any process calls a kernel. It returns at once if the kernels are compiled. If several processes
    call it at the same time, one of them compiles and the others wait.

    Parameters
    ----------
    announce
        Function that is called with a sentence for the operator if something takes time or fails.

    Returns
    -------
    folder
        Folder of the compiled kernels; None if they cannot be stored, so that each process compiles for itself.
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
    """Return whether compiled code can be written to a folder; create the folder if it is missing."""
    try:
        if folder.parent == _last_resort():
            # Everybody can create folders in /var/tmp, so the parent folder must be trusted as well.
            folder.parent.mkdir(mode=0o700, exist_ok=True)
            if not _is_trusted(folder.parent):
                return False
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        return folder.stat().st_uid == os.getuid() and _is_trusted(folder) and os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        return False


@contextlib.contextmanager
def _locked(folder: pathlib.Path, on_wait: Callable[[], object]) -> Iterator[int]:
    """Hold the lock of a folder in this block; the system releases it when no process has its descriptor any more."""
    with (folder / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def _compile_locked(folder: pathlib.Path, announce: Announce) -> None:
    """Fill a folder, unless another process has done so while this one waited for the lock."""

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
    """Remove all files of a folder except the lock, beginning with the marker."""
    (folder / MARKER).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.name != LOCK:
            path.unlink()


def _sync(folder: pathlib.Path) -> None:
    """Flush the entries of a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _run(action: str, folder: pathlib.Path, count: int, lock: int) -> None:
    """Run processes that call all kernels to fill or check a folder; they hold its lock until they end.

    Raises
    ------
    SubprocessError
        If one of them fails; the error contains its last message.
    """
    # The pipe is a queue: an idle process reads the next number, and calls the group of kernels with this number.
    numbers, writer = os.pipe()
    processes: list[subprocess.Popen[str]] = []
    try:
        with open(writer, "wb") as file:  # noqa: PTH123 -- of a descriptor
            file.write(bytes(range(256)))
        for _ in range(count):
            process = subprocess.Popen(  # noqa: S603 -- our own module
                # -P: modules in the current folder must not replace those that this process has loaded.
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
    """Record the time of use as that of the marker in the folder that this process uses, at most once a day."""
    found = _find_complete()
    if found is not None:
        with contextlib.suppress(OSError):
            if time.time() - (found.path / MARKER).stat().st_mtime > DAY:
                os.utime(found.path / MARKER)


def _remove_unused(folder: pathlib.Path) -> None:
    """Remove the folders of other versions beside `folder` that have not been used for `UNUSED_DAYS`."""
    for other in folder.parent.glob(PREFIX + "*"):
        with contextlib.suppress(OSError):
            if other == folder or other.is_symlink() or other.stat().st_uid != os.getuid():
                continue
            used = max(path.stat().st_mtime for path in (other, *other.iterdir()))
            if time.time() - used > UNUSED_DAYS * DAY:
                shutil.rmtree(other)
