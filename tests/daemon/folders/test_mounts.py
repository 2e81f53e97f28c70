"""Where folders lie: real mounts, which are gone again after each test."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import dataclasses
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest
import structlog.testing

from dcnumd.config.values import Settings, WatchSettings
from dcnumd.daemon.folders import hang_guard
from dcnumd.daemon.folders.locations import Location, LocationMemory, NotMountedError, locate
from dcnumd.daemon.folders.mounts import mount_numbered
from dcnumd.daemon.folders.watch import FolderWatch
from tests.support.loop import in_real_time


def mount_command(*arguments: object) -> None:
    # What is said of a folder has its name, which may be no text.
    command = ["mount", *map(os.fspath, arguments)]
    shown = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if shown.returncode:
        pytest.skip(f"mounting is not allowed here: {shown.stderr.strip()}")


def unmount(point: pathlib.Path) -> None:
    subprocess.run(["umount", "-l", os.fspath(point)], capture_output=True, check=False)


@pytest.fixture
def mount():
    """Return a function that mounts something on a folder; at the end, whatever is mounted there is unmounted."""
    with contextlib.ExitStack() as stack:

        def mount(point: pathlib.Path, kind: str = "tmpfs", source: object = "memory") -> pathlib.Path:
            point.mkdir(exist_ok=True)
            arguments = ("--bind", source) if kind == "bind" else ("-t", kind, source)
            mount_command(*arguments, point)
            stack.callback(unmount, point)
            return point

        yield mount


def location(**changes: str) -> Location:
    share = Location("/mnt/share", "server:/acq", "nfs4", "/acq/today")
    return dataclasses.replace(share, **changes)


def test_table_is_read_with_blanks_and_bytes(tmp_path):
    """Blanks, backslashes and bytes that are no UTF-8 in names come out as they are; optional fields do not matter."""
    table = tmp_path / "mountinfo"
    table.write_bytes(
        b"27 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw\n"
        b"31 27 0:40 /in\\040side /mnt/a\\040b\\134c\\012\xe9 rw - nfs4 server:/x\\040y rw,vers=4.2\n"
    )
    local, share = mount_numbered(27, table), mount_numbered(31, table)
    assert (local.point, local.kind, local.source) == ("/", "ext4", "/dev/vda")
    assert share.point == os.fsdecode(b"/mnt/a b\\c\n\xe9")
    assert (share.root, share.source) == ("/in side", "server:/x y")
    assert mount_numbered(2, table) is None


def test_network_file_systems_are_known():
    """Where others may change files, no events can be relied on; local disks raise them, whatever reads these."""
    network = ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "fuse.glusterfs", "ceph", "lustre"]
    local = ["ext4", "xfs", "btrfs", "overlay", "tmpfs", "zfs", "fuseblk", "vfat"]
    assert [kind for kind in network + local if location(kind=kind).is_network] == network


@pytest.mark.parametrize(
    ("now", "lacks"),
    [
        (location(), False),
        (location(mount_point="/", source="/dev/sda1", kind="ext4", inner="/mnt/share/today"), True),
        (location(mount_point="/mnt", source="/dev/sdb1", kind="ext4", inner="/share/today"), True),
        # the same folder of the same share, mounted further up
        (location(mount_point="/mnt"), False),
        # another disk at the same point, or further down: somebody put it there
        (location(source="/dev/sdc1", kind="ext4"), False),
        (location(mount_point="/mnt/share/today", source="/dev/sdc1", kind="ext4", inner="/"), False),
        # the automounter holds the place of what it could not mount
        (location(source="systemd-1", kind="autofs"), True),
        # a name that only begins alike
        (location(mount_point="/mnt/sh", source="/dev/sdc1", kind="ext4"), False),
    ],
)
def test_file_system_is_lacking_when_another_one_shows_through(now, lacks):
    """What was mounted is missing only if what is below of it is seen, and that is another folder."""
    assert now.lacks(location()) is lacks


def test_location_survives_as_text():
    """What was seen can be kept between runs, whatever the names; what cannot be read says nothing."""
    odd = location(source=os.fsdecode(b"\xe9\n \\"))
    assert Location.from_text(odd.to_text()) == odd
    assert [Location.from_text(text) for text in (None, "", "[", '{"a": 1}', "5")] == [None] * 5


def test_folder_belongs_to_the_uppermost_mount(mount, tmp_path):
    """Mounts over mounts, a mount in a mount, and one that hides another: what a program would see counts."""
    outer = mount(tmp_path / "outer", source="first")
    mount(outer / "inner", source="second")
    assert Location.of(str(outer / "inner" / "missing" / "deep")) == Location(
        str(outer / "inner"), "second", "tmpfs", "/missing/deep"
    )
    mount(outer, source="third")
    assert Location.of(str(outer / "inner")) == Location(str(outer), "third", "tmpfs", "/inner")
    unmount(outer)
    assert Location.of(str(outer / "inner")) == Location(str(outer / "inner"), "second", "tmpfs", "/")


def test_links_and_strange_names_lead_to_the_mount(mount, tmp_path):
    """A link to a mount point, with blanks and other bytes in its name, is that mount; also when it leads nowhere."""
    point = mount(tmp_path / os.fsdecode(b"a b\\\n\xe9"))
    (tmp_path / "link").symlink_to(point / "day")
    expected = Location(str(point), "memory", "tmpfs", "/day")
    assert Location.of(str(tmp_path / "link")) == expected
    (point / "day").mkdir()
    assert Location.of(str(tmp_path / "link")) == expected


def test_empty_mount_point_is_not_an_empty_folder(mount, tmp_path):
    """After the end of a mount the bare folder is refused, missing or empty, and the error names the cure."""
    point = mount(tmp_path / "share")
    (point / "acq").mkdir()
    seen = {folder: locate(str(folder), None) for folder in (point, point / "acq")}
    assert [locate(str(folder), before) for folder, before in seen.items()] == list(seen.values())
    unmount(point)
    for folder, before in seen.items():
        with pytest.raises(NotMountedError, match=r"not mounted: memory \(tmpfs\).*mount it, or put a file into"):
            locate(str(folder), before)
    # hidden marks of an administrator are no data
    (point / ".not_mounted").touch()
    with pytest.raises(NotMountedError):
        locate(str(point), seen[point])


def test_move_to_another_disk_is_accepted(mount, tmp_path):
    """Data in the folder, or another disk at the same point, are taken for what is meant."""
    point = mount(tmp_path / "share")
    before = locate(str(point), None)
    unmount(point)
    (point / "moved.rtdc").touch()
    after = locate(str(point), before)
    assert after is not None
    assert after.mount_point != str(point)
    # once it was seen there, it may be emptied
    (point / "moved.rtdc").unlink()
    assert locate(str(point), after) == after
    mount(point, source="another")
    assert locate(str(point), before) == Location(str(point), "another", "tmpfs", "/")


def test_bind_mount_of_a_service_manager_is_the_same_place(mount, tmp_path):
    """A folder that was bind-mounted onto itself, as a sandbox does, is the same folder without that."""
    point = tmp_path / "results"
    point.mkdir()
    mount(point, "bind", point)
    before = locate(str(point), None)
    assert before is not None
    assert before.mount_point == str(point)
    unmount(point)
    assert locate(str(point), before) is not None
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    mount(point, "bind", elsewhere)
    before = locate(str(point), None)
    unmount(point)
    with pytest.raises(NotMountedError):
        locate(str(point), before)


@dataclasses.dataclass
class Watched:
    """A folder that is being watched, and what was heard of it."""

    watch: FolderWatch
    found: set[str]
    heard: asyncio.Event
    entries: list[dict]

    async def until(self, condition) -> None:
        """Wait until what was heard fulfils a condition."""
        async with asyncio.timeout(60):
            while not condition():
                self.heard.clear()
                await self.heard.wait()

    async def event(self, name: str, count: int = 1) -> dict:
        """Wait for an event of the log."""

        def heard() -> list[dict]:
            return [entry for entry in self.entries if entry["event"] == name]

        await self.until(lambda: len(heard()) >= count)
        return heard()[-1]


class Memory:
    """Keeps what is remembered of folders, as the ledger does."""

    def __init__(self):
        self.texts: dict[str, str] = {}

    def location(self, folder):
        return self.texts.get(folder)

    def remember_location(self, folder, location):
        self.texts[folder] = location


@contextlib.asynccontextmanager
async def watching(folder: pathlib.Path, memory: Memory | None = None, **settings):
    """Watch a folder in a task."""
    found: set[str] = set()
    heard = asyncio.Event()

    def offer(files):
        found.update(pathlib.Path(path).name for path, _ in files)
        heard.set()

    class Entries(list):
        def append(self, entry):
            super().append(entry)
            heard.set()

    capture = structlog.testing.LogCapture()
    capture.entries = Entries()
    before = structlog.get_config()["processors"]
    structlog.configure(processors=[capture])
    options = Settings(watch=WatchSettings(**{"folders": (folder,), "rescan_seconds": 0.2, **settings}))
    watch = FolderWatch(folder, options, offer, LocationMemory(memory or Memory()))
    task = asyncio.create_task(watch.keep_watching())
    try:
        yield Watched(watch, found, heard, capture.entries)
    finally:
        structlog.configure(processors=before)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def test_unmounted_folder_is_unreachable_until_it_is_back(mount, tmp_path):
    """Nothing is found while the mount is missing, also at the next start; then files and events are noticed again."""
    point = mount(tmp_path / "share")
    (point / "a.rtdc").touch()
    memory = Memory()

    async def body():
        async with watching(point, memory) as seen:
            armed = await seen.event("watch.armed")
            assert (armed["mode"], armed["filesystem"]) == ("events", "tmpfs")
            unmount(point)
            assert "not mounted" in (await seen.event("watch.unreachable"))["error"]
            assert not seen.watch.reachable
        async with watching(point, memory, rescan_seconds=0.5) as seen:
            assert "not mounted" in (await seen.event("watch.unreachable"))["error"]
            assert not seen.found
            mount(point)
            (point / "b.rtdc").touch()
            await seen.event("watch.recovered")
            await seen.until(lambda: "b.rtdc" in seen.found)

    asyncio.run(body())
    assert LocationMemory(memory).before(str(point)) == Location(str(point), "memory", "tmpfs", "/")


@in_real_time
async def test_events_work_again_after_a_remount(mount, tmp_path):
    """A folder that was mounted anew is followed by events, not only by the next scan."""
    point = mount(tmp_path / "share")
    async with watching(point, rescan_seconds=3600.0) as seen:
        await seen.event("watch.armed")
        unmount(point)
        seen.watch.request_scan()
        await seen.event("watch.unreachable")
        mount(point)
        seen.watch.request_scan()
        await seen.event("watch.recovered")
        (point / "day").mkdir()
        (point / "day" / "a.rtdc").touch()
        await seen.until(lambda: seen.found == {"a.rtdc"})


@pytest.fixture
def silent_share(tmp_path):
    """Return a folder on which a file system is mounted whose server never answers."""
    point = tmp_path / "silent"
    point.mkdir()
    try:
        server = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"no FUSE here: {error}")
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
    if libc.mount(b"silent", os.fsencode(point), b"fuse.silent", 6, options):
        os.close(server)
        pytest.skip(f"mounting is not allowed here: {os.strerror(ctypes.get_errno())}")
    try:
        yield point, server
    finally:
        with contextlib.suppress(OSError):
            os.close(server)
        unmount(point)


@in_real_time
async def test_share_that_hangs_stops_neither_others_nor_the_end(silent_share, tmp_path, monkeypatch):
    """It is reported as unreachable while other folders are watched; when its server ends, so does the waiting."""
    monkeypatch.setattr(hang_guard, "ANSWER_SECONDS", 0.5)
    point, server = silent_share
    good = tmp_path / "good"
    good.mkdir()
    async with watching(good) as other, watching(point) as seen:
        # one log for both: the second watch is heard
        assert "no answer for" in (await seen.event("watch.unreachable"))["error"]
        (good / "a.rtdc").touch()
        await other.until(lambda: other.found == {"a.rtdc"})
        os.close(server)
        unmount(point)
        await seen.event("watch.recovered")


def test_process_ends_while_a_share_hangs(silent_share):
    """A call that never returns does not keep the process from ending."""
    script = """
        import asyncio, pathlib, sys
        from dcnumd.config.values import Settings
        from dcnumd.daemon.folders import hang_guard
        from dcnumd.daemon.folders.watch import FolderWatch
        hang_guard.ANSWER_SECONDS = 0.5
        async def body():
            watch = FolderWatch(pathlib.Path(sys.argv[1]), Settings(), list)
            task = asyncio.create_task(watch.keep_watching())
            await watch.ready.wait()
            task.cancel()
            await asyncio.wait([task])
            print("reachable", watch.reachable)
        asyncio.run(body())
    """
    shown = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), os.fspath(silent_share[0])],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "reachable False" in shown.stdout
