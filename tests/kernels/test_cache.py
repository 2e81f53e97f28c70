"""Compiled kernels: kept, found, waited for, and thrown away when they are damaged."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time

import pytest

import dcnumd
from dcnumd.kernels import cache as kernel_cache
from dcnumd.kernels.cache import LOCK, MARKER, is_complete

PACKAGE = pathlib.Path(dcnumd.__file__).parent
ENSURE = """
import sys
from dcnumd.kernels.cache import ensure_compiled
print(ensure_compiled(lambda text: print(text, flush=True)), "numba" in sys.modules)
"""
CALL = """
import numpy, dcnumd.kernels.cache
from dcnumd.read.kernels_checksum import fletcher32
print(dcnumd.kernels.cache.open_folder() is not None, fletcher32(numpy.arange(4, dtype=numpy.uint8)))
"""
CALL_PRINTS = "0x2050204"
"""Sums of the words 0x0001 and 0x0203."""
FEW = """
def groups():
    return lambda: fletcher32(np.zeros(8, np.uint8)), lambda: wall_brightness(np.zeros(SHAPE, np.uint8))
"""
DAY = 24 * 3600


@pytest.fixture
def folder(tmp_path):
    """Return a copy of compiled kernels, the only folder in `tmp_path`/cache."""
    compiled = kernel_cache.ensure_compiled(print)
    assert compiled is not None
    return shutil.copytree(compiled, tmp_path / "cache" / compiled.name)


@pytest.fixture(scope="module")
def few_kernels(tmp_path_factory):
    """Return a folder with a dcnumd of which only some of the kernels are compiled ahead, which is much quicker."""
    place = tmp_path_factory.mktemp("few kernels")
    copy = shutil.copytree(PACKAGE, place / "dcnumd", ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / "logic" / "warm_up.py").open("a") as file:
        file.write(FEW)
    others_beside(place / "beside")
    return place


def others_beside(folder):
    """Write modules of the same names as ours, for processes whose current folder it is."""
    for name in ("dcnumd", "numba"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise SystemExit('not the one that was installed')")


def start(code, cache, package=None):
    """Start a process that keeps kernels below a folder, with a dcnumd of another folder beside modules of its name."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    if package is not None:
        code = f"import sys; sys.path.pop(0)\n{code}"
        environment["PYTHONPATH"] = os.pathsep.join([str(package), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=package and package / "beside",
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """Wait for a process and return its lines; it must not have complained."""
    output = process.stdout.read()
    _, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    return output.splitlines()


def compilers(folder):
    """Return the processes that fill a folder or check it."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if b"warm_up" in (command := path.read_bytes()) and os.fsencode(folder) in command.split(b"\0"):
                found.append(int(path.parent.name))
    return found


def wait_until_left(folder):
    """Wait until nobody holds the lock of a folder: those who compile have it until they are gone."""
    with (folder / LOCK).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def entries(folder):
    """Return the files with compiled code."""
    return sorted(folder.glob("*.kernel"))


def spoil(path, how):
    """Damage a file as a power failure would, or a failing disk."""
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        middle = len(content) // 2
        path.write_bytes(
            {
                "empty": b"",
                "truncated": content[:middle],
                "zeros": bytes(len(content)),
                "one byte": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            }[how]
        )


def test_compiling_is_killed_then_done_by_one_of_two_then_repaired(tmp_path, few_kernels):
    """A killed process leaves nothing in the way; of two that start at once one waits; damage is repaired, once."""
    cache = tmp_path / "cache"
    killed = start(ENSURE, cache, few_kernels)
    assert killed.stdout.readline().startswith("Compiling the numerical kernels (once for each version")
    killed.kill()
    killed.communicate()
    (folder,) = cache.iterdir()
    wait_until_left(folder)
    assert not (folder / MARKER).exists()
    for name, days in (("kernels-old", 31), ("kernels-recent", 29), ("other", 31)):
        (cache / name / "inside").mkdir(parents=True)
        then = time.time() - days * DAY
        for path in (cache / name / "inside", cache / name):
            os.utime(path, (then, then))

    pair = [start(ENSURE, cache, few_kernels) for _ in range(2)]
    said = [pair[0].stdout.readline()]
    if said[0].startswith("Compiling"):
        # it does not end before the other one has come across it
        pair[0].send_signal(signal.SIGSTOP)
    said.append(pair[1].stdout.readline())
    pair[0].send_signal(signal.SIGCONT)
    first, second = [[line, *finish(process)] for line, process in zip(said, pair, strict=True)]
    assert first[-1] == second[-1] == f"{folder} False"
    assert sorted(line.split()[0] for line in first[:-1] + second[:-1]) == ["Compiling", "The", "Waiting"]
    assert sorted(path.name for path in cache.iterdir()) == sorted([folder.name, "kernels-recent", "other"])
    complete = {path.name for path in folder.iterdir()}
    assert complete == {MARKER, LOCK, *(path.name for path in entries(folder))}

    spoil(entries(folder)[0], "truncated")
    lines = finish(start(ENSURE, cache, few_kernels))
    assert lines[0].startswith("Compiling the numerical kernels (the ones in the cache are damaged)")
    assert lines[-1] == f"{folder} False"
    assert {path.name for path in folder.iterdir()} == complete
    assert finish(start(ENSURE, cache, few_kernels)) == [f"{folder} False"]


def test_who_compiles_ends_with_its_parent(tmp_path, few_kernels):
    """Nobody writes to a folder any more when the next one can lock it, though its owner was killed."""
    cache = tmp_path / "cache"
    owner = start(ENSURE, cache, few_kernels)
    owner.stdout.readline()
    (folder,) = cache.iterdir()
    while not (left_alone := compilers(folder)):
        assert owner.poll() is None
    for pid in left_alone:
        os.kill(pid, signal.SIGSTOP)
    owner.kill()
    owner.wait()
    for pid in left_alone:
        # gone already if it had got as far as to end with its parent
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    wait_until_left(folder)
    assert compilers(folder) == []
    owner.communicate()


@pytest.mark.parametrize("how", ["missing", "empty", "truncated", "zeros", "one byte"])
def test_damage_is_seen(folder, how):
    """A folder is not complete any more when one of its files is damaged, or the marker."""
    assert is_complete(folder)
    whole = {path: path.read_bytes() for path in [*entries(folder), folder / MARKER]}
    for path, content in whole.items():
        spoil(path, how)
        assert not is_complete(folder)
        path.write_bytes(content)
    assert is_complete(folder)


@pytest.mark.slow
def test_kernels_run_despite_damage(folder):
    """Damaged code is never loaded; who calls a kernel then compiles it for itself."""
    (path,) = folder.glob("*fletcher32*")
    assert finish(start(CALL, folder.parent))[0].split()[0] == "True"
    spoil(path, "one byte")
    marker = json.loads((folder / MARKER).read_bytes())
    seen, checksum = finish(start(CALL, folder.parent))[0].split()
    assert (seen, hex(int(checksum))) == ("False", CALL_PRINTS)
    # damaged after a process has looked: that file alone is passed over
    intact = kernel_cache.KernelFolder(folder, marker["files"])
    assert intact.load(path.name.removesuffix(".kernel")) is None


def test_foreign_folders_are_not_trusted(folder):
    """Code from a folder that others can write to, or that belongs to another user, is not used."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    for others in (0o020, 0o002):
        folder.chmod(mode | others)
        assert not is_complete(folder)
        assert finish(start(ENSURE, folder.parent))[-1] == "None False"
    folder.chmod(mode)
    assert is_complete(folder)
    if os.getuid() == 0:
        os.chown(folder, 65534, -1)
        assert not is_complete(folder)


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_service_user_takes_what_root_has_compiled(folder):
    """A complete folder of root's is used by a user who cannot write to it; nothing is compiled."""
    code = f"""
import os, numba.core.event, numba.core.registry
import dcnumd.logic.warm_up
numba.core.registry.cpu_target.target_context.refresh()
numba.core.registry.cpu_target.typing_context.refresh()
dcnumd.logic.warm_up.cache_key()
# nothing can be imported any more where Python is in a folder of root's
os.setgroups([]), os.setgid(65534), os.setuid(65534)
with numba.core.event.install_recorder("numba:compile") as compiled:
    {ENSURE.replace(chr(10), chr(10) + "    ").strip()}
    dcnumd.logic.warm_up.load_kernels()
print(len(compiled.buffer), os.access(sys.argv[0], os.W_OK))
"""
    with tempfile.TemporaryDirectory() as name:
        # other users may not enter the test's own folder
        pathlib.Path(name).chmod(0o711)
        shared = shutil.copytree(folder, pathlib.Path(name) / folder.name)
        before = {path: path.stat() for path in shared.iterdir()}
        lines = finish(start(code, name))
        assert {path: path.stat().st_mtime_ns for path in shared.iterdir()} == {
            path: status.st_mtime_ns for path, status in before.items()
        }
    assert lines == [f"{shared} True", "0 False"]


@pytest.mark.slow
def test_nowhere_to_keep_kernels():
    """Without a folder that can be written that is said once, and kernels are compiled in memory."""
    lines = finish(start(ENSURE + CALL, "/proc/none"))
    assert lines[0].startswith("Compiled kernels cannot be kept: /proc/none cannot be written")
    assert lines[1] == "None False"
    assert hex(int(lines[2].removeprefix("False "))) == CALL_PRINTS
    assert len(lines) == 3


def test_use_is_noted_once_a_day(folder):
    """The time of use, for which old folders are kept, is renewed."""
    for days, renewed in ((0.5, False), (2, True)):
        then = time.time() - days * DAY
        os.utime(folder / MARKER, (then, then))
        finish(start(ENSURE, folder.parent))
        assert ((folder / MARKER).stat().st_mtime > then + 1) == renewed


@pytest.mark.slow
def test_current_folder_has_no_part_in_what_is_loaded(tmp_path, folder):
    """Started beside modules of the same names, dcnumd forks and runs its own; the tests above have it compile them."""
    others_beside(tmp_path)
    (tmp_path / "start.py").write_text(
        "import sys; sys.path.pop(0)\n"
        "from dcnumd.logic.process import engine\n"
        "if __name__ == '__main__':\n"
        "    engine.start(1); print(engine.pipeline(1).worker_pids != ()); engine.close()\n"
    )
    paths = os.pathsep.join([str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder.parent), "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "start.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["True"], done.stderr
