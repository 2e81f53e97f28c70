"""Finding files: names, folders, and what a listing costs."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

import pytest
import structlog.testing
from watchfiles import Change

from dcnumd.config.values import OutputSettings, ResourceSettings, Settings, WatchSettings
from dcnumd.daemon.folders.listing import CandidateFilter, list_folder
from dcnumd.daemon.folders.reader import FolderReader
from dcnumd.daemon.folders.watch import FolderWatch
from dcnumd.read.trust import Trust
from tests.support.loop import in_real_time

TOP = pathlib.Path(__file__).parents[3]


def accepting(**keywords):
    return CandidateFilter.of(Settings(output=OutputSettings(**keywords)))


REFUSALS = {
    "": "M001_data.rtdc/Größe 1 (x).rtdc/dcn.rtdc/M_dcn_2.rtdc/M_dcn.rtdc/M_mine.rtdc/M001.RTDC/M_Mine.Rtdc",
    "own_output": "M001_data_dce.rtdc/M001_data_DCE.RTDC",
    "hidden": ".M001.rtdc/._M001.rtdc",
    "temporary": "M001.rtdc~/M001.rtdc.part/M001.rtdc.tmp/M001.RTDC.PART",
    "pattern": "M001.h5",
}


@pytest.mark.parametrize(("refusal", "names"), REFUSALS.items())
def test_names_decide_what_may_be_a_measurement(refusal, names):
    """Hidden and temporary files are never inputs; what has the name of a result is known by what is in it."""
    accepts = accepting(suffix="_mine")
    assert {name: accepts.refusal(f"/in/{name}") for name in names.split("/")} == dict.fromkeys(
        names.split("/"), refusal
    )


@pytest.mark.parametrize("name", ["M_dcn.html", "M_dcn.json", "M_other.png", "index.html", "dcnumd-index.html"])
def test_reports_are_no_measurements(name):
    """Whatever the patterns are, and whatever the suffix was when they were made."""
    accepts = CandidateFilter.of(Settings(watch=WatchSettings(patterns=("*",))))
    assert accepts.refusal(f"/in/{name}") == "report"
    assert accepts.refusal("/in/M.h5") == ""


def test_pattern_in_capitals_fits():
    """Windows writes them as it likes."""
    accepts = CandidateFilter.of(Settings(watch=WatchSettings(patterns=("M*_Data.rtdc",))))
    assert accepts.refusal("/in/M001_data.RTDC") == ""
    assert accepts.refusal("/in/X001_data.rtdc") == "pattern"


def test_what_a_pattern_leaves_out_is_listed(tmp_path):
    """What looks like a measurement is told; other files and results are nobody's business."""
    results = ("M1_data_dcn.rtdc", "M1_data_Mine.RTDC", "M1_data_dce.rtdc")
    for name in ("M1_data.rtdc", "X1.RTDC", "notes.txt", ".X2.rtdc", *results):
        (tmp_path / name).touch()
    watch, output = WatchSettings(patterns=("M*_data.rtdc",)), OutputSettings(suffix="_mine")
    listing = list_folder(str(tmp_path), CandidateFilter.of(Settings(watch, output)), recursive=True)
    assert listing.left_out == [str(tmp_path / "X1.RTDC")]
    assert [path for path, _ in listing.found] == [str(tmp_path / "M1_data.rtdc")]


def test_without_a_suffix_any_name_may_be_that_of_a_measurement(tmp_path):
    """Results of this kind lie in a folder of their own."""
    (tmp_path / "X1.rtdc").touch()
    output = OutputSettings(folder=pathlib.Path("/out"), suffix="")
    settings = Settings(WatchSettings(patterns=("M*.rtdc",)), output)
    listing = list_folder(str(tmp_path), CandidateFilter.of(settings), recursive=True)
    assert listing.left_out == [str(tmp_path / "X1.rtdc")]


def test_what_lies_in_the_output_folder_is_no_input():
    """A folder of results inside a watched one is passed over as a whole."""
    accepts = accepting(folder=pathlib.Path("/in/out"))
    assert accepts.refusal("/in/out/M.rtdc") == "output_folder"
    assert accepts.refusal("/in/out/deep/M.rtdc") == "output_folder"
    assert accepts.refusal("/in/outer/M.rtdc") == ""


@pytest.mark.parametrize("output", ["/in", "/in/deep", "/", "/in/deep/er"])
def test_output_folder_that_holds_a_watched_one_is_looked_into(output):
    """Where results lie says nothing about the measurements beside them."""
    folders = (pathlib.Path("/in/deep/er"), pathlib.Path("/in"))
    settings = Settings(WatchSettings(folders=folders), OutputSettings(folder=pathlib.Path(output)))
    accepts = CandidateFilter.of(settings)
    assert accepts.refusal("/in/M.rtdc") == accepts.refusal("/in/deep/er/M.rtdc") == ""
    assert accepts.refusal("/in/deep/er/M_dcn.rtdc") == ""


def test_listing_finds_files_in_folders_but_not_through_links(tmp_path):
    """Folders are followed, links to folders are not, so that a loop is harmless; links to files are."""
    for name in ("a.rtdc", "x/b.rtdc", "x/y/c.rtdc", ".trash/d.rtdc", "x/e.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "x" / "loop").symlink_to(tmp_path)
    (tmp_path / "linked.rtdc").symlink_to(tmp_path / "a.rtdc")
    (tmp_path / "dangling.rtdc").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.rtdc").mkdir()
    os.mkfifo(tmp_path / "pipe.rtdc")
    listing = list_folder(str(tmp_path), accepting(), recursive=True)
    found = sorted(os.path.relpath(path, tmp_path) for path, _ in listing.found)
    assert found == ["a.rtdc", "linked.rtdc", "x/b.rtdc", "x/y/c.rtdc"]
    assert sorted(listing.not_files) == [str(tmp_path / "folder.rtdc"), str(tmp_path / "pipe.rtdc")]
    assert {path: fault.reason for path, fault in listing.links.items()} == {
        str(tmp_path / "dangling.rtdc"): "broken_link"
    }
    flat = list_folder(str(tmp_path), accepting(), recursive=False)
    assert sorted(os.path.relpath(path, tmp_path) for path, _ in flat.found) == ["a.rtdc", "linked.rtdc"]


@pytest.fixture
def linked(tmp_path):
    """Return a watched folder with links of all kinds, one of results and one that is nobody's business."""
    folders = [tmp_path / name for name in ("in", "results", "outside")]
    for folder in folders:
        made(folder / "M.rtdc")
    inside = folders[0]
    (inside / "within.rtdc").symlink_to("M.rtdc")
    (inside / "result.rtdc").symlink_to(folders[1] / "M.rtdc")
    (inside / "absolute.rtdc").symlink_to(folders[2] / "M.rtdc")
    (inside / "relative.rtdc").symlink_to("../outside/M.rtdc")
    (inside / "chain.rtdc").symlink_to("absolute.rtdc")
    (inside / "missing.rtdc").symlink_to(folders[2] / "missing.rtdc")
    (inside / "folder.rtdc").symlink_to(folders[2])
    (inside / "folder").symlink_to(folders[2])
    (inside / "notes.txt").symlink_to(folders[2] / "M.rtdc")
    (inside / "loop.rtdc").symlink_to("loop.rtdc")
    return folders


def test_links_lead_to_watched_folders_and_results_only(linked):
    """What lies elsewhere is named with the cure, without a look at whether it is there."""
    listing = list_folder(str(linked[0]), accepting(), recursive=True, trust=Trust(tuple(linked[:2])))
    assert {pathlib.Path(path).name for path, _ in listing.found} == {"M.rtdc", "within.rtdc", "result.rtdc"}
    reasons = {pathlib.Path(path).name: fault.reason for path, fault in listing.links.items()}
    outside = ("absolute.rtdc", "relative.rtdc", "chain.rtdc", "missing.rtdc", "folder.rtdc")
    assert reasons == {"loop.rtdc": "broken_link"} | dict.fromkeys(outside, "outside")
    text = listing.links[str(linked[0] / "chain.rtdc")].text
    assert f"leads to {linked[2]}/M.rtdc, which is outside" in text
    assert "move or copy" in text


def test_events_and_scans_judge_links_alike(linked):
    """What a scan leaves out is not taken because an event names it."""
    settings = Settings(watch=WatchSettings(folders=(linked[0],)))
    reader = FolderReader(linked[0], settings, trusted=tuple(linked[:2]))
    found = reader.read_named({str(path) for path in linked[0].iterdir()}, list).found
    assert {pathlib.Path(path).name for path, _ in found} == {"M.rtdc", "within.rtdc", "result.rtdc"}


def test_listing_of_a_missing_folder_is_an_error_of_the_root_only(tmp_path):
    """The root must be there; what vanishes inside is no trouble."""
    with pytest.raises(FileNotFoundError):
        list_folder(str(tmp_path / "missing"), accepting(), recursive=True)


def test_events_follow_the_same_rules_as_a_scan(tmp_path):
    """What a file event names is taken up only where a scan would find it, too."""
    settings = Settings(watch=dataclasses.replace(WatchSettings(), folders=(tmp_path,)))
    for name in ("a.rtdc", "x/b.rtdc", ".trash/c.rtdc", "a_dce.rtdc"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "link").symlink_to(tmp_path / "x")
    reader = FolderReader(tmp_path, settings)
    names = {"a.rtdc", "x", ".trash/c.rtdc", ".trash", "link", "link/b.rtdc", "a_dce.rtdc", "gone.rtdc"}
    found = reader.read_named({str(tmp_path / name) for name in names}, list).found
    assert sorted(os.path.relpath(path, tmp_path) for path, _ in found) == ["a.rtdc", "x/b.rtdc"]


class Finds:
    """Collects what a watch offers."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self._changed = asyncio.Event()
        self.slices: list[int] = []

    def offer(self, found) -> None:
        self.names.update(path for path, _ in found)
        self.slices.append(len(found))
        self._changed.set()

    async def until(self, expected) -> None:
        """Wait until all the expected paths were offered."""
        missing = {os.fspath(path) for path in expected}
        async with asyncio.timeout(60):
            while missing := missing - self.names:
                self._changed.clear()
                await self._changed.wait()


@contextlib.asynccontextmanager
async def watched(folder: pathlib.Path, **keywords):
    """Watch a folder by events only, and wait until it is armed."""
    finds = Finds()
    settings = Settings(watch=WatchSettings(**{"folders": (folder,), "rescan_seconds": 3600.0, **keywords}))
    finds.watch = FolderWatch(folder, settings, finds.offer)
    async with running(finds.watch):
        yield finds


@contextlib.asynccontextmanager
async def running(watch: FolderWatch):
    """Have a watch keep watching, once it is armed."""
    task = asyncio.create_task(watch.keep_watching())
    await asyncio.wait_for(watch.ready.wait(), 60)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def made(*paths: pathlib.Path) -> list[pathlib.Path]:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return list(paths)


@pytest.fixture
def roomy(tmp_path):
    """Return a folder in memory, if there is such a place, because many files on a disk take long."""
    memory = pathlib.Path("/dev/shm")  # noqa: S108 -- a new folder in it has a name that nobody can guess
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as folder:
        yield pathlib.Path(folder)


def touch_many(folder: pathlib.Path, count: int) -> list[str]:
    """Make many files in a folder quickly, and return their paths."""
    folder.mkdir(exist_ok=True)
    paths = [f"{folder}/{number}.rtdc" for number in range(count)]
    for path in paths:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    return paths


@in_real_time
async def test_new_folders_with_a_file_at_once(tmp_path):
    """Files that come together with their folders are found although no event names them, four folders deep too."""
    async with watched(tmp_path) as finds:
        files = [tmp_path / f"f{number}" / "M.rtdc" for number in range(200)]
        files += [tmp_path / f"g{number}" / "a" / "b" / "c" / "M.rtdc" for number in range(200)]
        await finds.until(made(*files))


@in_real_time
async def test_folder_that_is_moved_in_is_found_with_its_files(tmp_path):
    """A tree that was filled elsewhere is found, and what comes into it afterwards as well."""
    inside = tmp_path / "in"
    inside.mkdir()
    made(tmp_path / "day" / "x" / "a.rtdc", tmp_path / "day" / "b.rtdc")
    async with watched(inside) as finds:
        (tmp_path / "day").rename(inside / "day")
        await finds.until([inside / "day" / "x" / "a.rtdc", inside / "day" / "b.rtdc"])
        await finds.until(made(inside / "day" / "x" / "c.rtdc"))
        # renamed inside: everything has another name
        (inside / "day").rename(inside / "night")
        await finds.until([inside / "night" / "x" / "c.rtdc"])
        await finds.until(made(inside / "night" / "x" / "d.rtdc"))


@pytest.mark.parametrize("which", ["in", "in/day"])
@in_real_time
async def test_folder_that_is_deleted_and_made_again_is_followed(tmp_path, which):
    """The watched folder itself or one inside: its successor of the same name is watched like it."""
    inside = tmp_path / "in"
    (inside / "day").mkdir(parents=True)
    async with watched(inside, rescan_seconds=0.5) as finds:
        for number in range(3):
            shutil.rmtree(tmp_path / which)
            await finds.until(made(tmp_path / "in" / "day" / f"{number}.rtdc"))


@in_real_time
async def test_root_that_is_renamed_or_replaced_by_a_link(tmp_path):
    """What has the configured name counts: a renamed root is gone, a link in its place is followed."""
    inside, other = tmp_path / "in", tmp_path / "other"
    made(inside / "a.rtdc", other / "b.rtdc")
    async with watched(inside, rescan_seconds=0.5) as finds:
        assert finds.watch.reachable
        inside.rename(tmp_path / "away")
        inside.symlink_to(other)
        await finds.until([inside / "b.rtdc"])
        await finds.until(made(other / "c.rtdc") and [inside / "c.rtdc"])
        made(tmp_path / "away" / "d.rtdc")
        inside.unlink()
        (tmp_path / "away").rename(inside)
        await finds.until([inside / "d.rtdc"])
        await finds.until(made(inside / "e.rtdc"))
    assert str(tmp_path / "away" / "d.rtdc") not in finds.names


@in_real_time
async def test_strange_names_are_found_by_scan_and_by_event(tmp_path):
    """Names of 255 bytes, with newlines, or that are no UTF-8 are names like others."""
    names = ["a\nb", "x" * 250, os.fsdecode(b"caf\xe9"), "; rm -rf", "\u00e9", "e\u0301"]
    names = [f"{name}.rtdc" for name in names]
    before = made(*(tmp_path / name for name in names))
    async with watched(tmp_path) as finds:
        await finds.until(before)
        await finds.until(made(*(tmp_path / os.fsdecode(b"\xff\n") / name for name in names)))


def test_tree_deeper_than_a_path_can_be_long_stops_nothing(tmp_path):
    """What cannot be named is reported once; all else is found."""
    expected = made(tmp_path / "a.rtdc")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=descriptor)
        inner = os.open("d" * 250, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    try:
        listing = list_folder(str(tmp_path), accepting(), recursive=True)
        assert [path for path, _ in listing.found] == [str(path) for path in expected]
        assert list(listing.unreadable.values()) == [os.strerror(errno.ENAMETOOLONG)]
    finally:
        subprocess.run(["rm", "-r", str(tmp_path / ("d" * 250))], check=True)


@in_real_time
async def test_ten_thousand_files_are_listed_and_offered_in_small_parts(roomy):
    """Every file is offered, scan after scan, a few at a time, and memory does not grow with the scans."""
    count = 10_000
    for number in range(10):
        touch_many(roomy / f"{number}", count // 10)
    seen = []
    watch = FolderWatch(roomy, Settings(), lambda found: seen.append(len(found)))
    used = []
    for _ in range(6):
        seen.clear()
        await watch.scan()
        assert sum(seen) == count
        assert max(seen) <= 100
        used.append(sys.getallocatedblocks())
    # less than one block for forty files of four scans: nothing is kept of a scan
    assert used[-1] - used[1] < count // 10


@pytest.mark.slow
@in_real_time
async def test_ten_thousand_folders_are_followed(roomy):
    """Each has its own watch, and they are all given back at the end."""
    folders = [roomy / f"{number // 100:03}" / f"{number % 100:03}" for number in range(10_000)]
    for folder in folders:
        folder.mkdir(parents=True)
    async with watched(roomy) as finds:
        await finds.until(made(*(folder / "M.rtdc" for folder in folders[::500])))
        # all of them get another name at once
        for number in range(100):
            (roomy / f"{number:03}").rename(roomy / f"n{number:03}")
        await finds.until([roomy / f"n{number:03}" / "000" / "M.rtdc" for number in range(0, 100, 5)])


@contextlib.contextmanager
def kernel_limit(name: str, value: int):
    """Lower a limit of inotify for the time of a test."""
    path = pathlib.Path("/proc/sys", name)
    before = path.read_text()
    try:
        path.write_text(str(value))
    except OSError as error:
        pytest.skip(f"{path} cannot be set here: {error.strerror}")
    try:
        yield
    finally:
        path.write_text(before)


def watch_beyond_the_limit(folder: pathlib.Path) -> None:
    """Watch more folders than the kernel allows, until the limit suffices; runs in a namespace."""
    for number in range(50):
        (folder / f"{number}").mkdir()

    async def body():
        low, high = (kernel_limit("user/max_inotify_watches", limit) for limit in (20, 1000))
        with structlog.testing.capture_logs() as entries, low:
            async with watched(folder, rescan_seconds=0.2) as finds:
                await finds.until(made(*(folder / f"{number}" / "M.rtdc" for number in range(50))))
                with high:
                    await until_logged(entries, "watch.recovered", 1)
                    await until_logged(entries, "watch.armed", 1)
        degraded = [entry for entry in entries if entry["event"] == "watch.degraded"]
        assert len(degraded) == 1
        assert "fs.inotify.max_user_watches" in degraded[0]["error"]
        assert [entry["event"] for entry in entries][-1] == "watch.armed"

    asyncio.run(body())


@pytest.mark.slow
def test_reached_watch_limit_is_reported_and_scans_go_on(tmp_path):
    """Without enough watches files are found by the scans, and the log names the limit; with enough, events return."""
    script = (
        "import pathlib, sys\n"
        "from tests.daemon.folders.test_watch import watch_beyond_the_limit\n"
        "watch_beyond_the_limit(pathlib.Path(sys.argv[1]))\n"
    )
    # in a namespace of its own, so that no other test meets the limit
    namespace = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespace can be made here")
    command = [*namespace, sys.executable, "-c", script, tmp_path]
    ended = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr


def test_overflow_while_stopped_loses_nothing(roomy):
    """Twenty thousand files that come while the watching process is stopped are all found, without the timer."""
    script = (
        "import asyncio, pathlib, sys, structlog\n"
        "structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))\n"
        "from dcnumd.config.values import Settings, WatchSettings\n"
        "from dcnumd.daemon.folders.watch import FolderWatch\n"
        "async def body():\n"
        "    names, done = set(), asyncio.Event()\n"
        "    def offer(found):\n"
        "        names.update(path for path, _ in found)\n"
        "        if len(names) == 20_000: done.set()\n"
        "    root = pathlib.Path(sys.argv[1])\n"
        "    settings = Settings(watch=WatchSettings(folders=(root,), rescan_seconds=3600.0))\n"
        "    watch = FolderWatch(root, settings, offer)\n"
        "    task = asyncio.create_task(watch.keep_watching())\n"
        "    await watch.ready.wait()\n"
        "    print('ready', flush=True)\n"
        "    await done.wait()\n"
        "    print('all', flush=True)\n"
        "    task.cancel()\n"
        "    await asyncio.wait([task])\n"
        "asyncio.run(body())\n"
    )
    # The limit holds for queues that are made under it.
    with contextlib.ExitStack() as stack:
        with kernel_limit("fs/inotify/max_queued_events", 512):
            process = subprocess.Popen(
                [sys.executable, "-c", script, str(roomy)], stdout=subprocess.PIPE, stderr=sys.stderr, text=True
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            assert process.stdout is not None
            stack.enter_context(process.stdout)
            assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGSTOP)
        touch_many(roomy, 20_000)
        process.send_signal(signal.SIGCONT)
        assert process.stdout.readline() == "all\n"


@pytest.mark.parametrize("courteous", [False, True])
@in_real_time
async def test_growing_file_is_offered_again_and_again(tmp_path, courteous):
    """Each time that it has grown, without any scan."""
    path = tmp_path / "M.rtdc"
    sizes = []
    heard = asyncio.Event()

    def offer(found):
        sizes.extend(stamp.size for _, stamp in found)
        heard.set()

    settings = Settings(
        watch=WatchSettings(folders=(tmp_path,), rescan_seconds=3600.0),
        resources=ResourceSettings(pause_while_acquiring=courteous),
    )
    async with running(FolderWatch(tmp_path, settings, offer)):
        for size in range(1, 6):
            with path.open("ab") as file:
                file.write(b"1")
            async with asyncio.timeout(60):
                while size not in sizes:
                    heard.clear()
                    await heard.wait()


@in_real_time
async def test_file_behind_a_hidden_one_is_found_by_its_event(tmp_path):
    """A program that writes under a hidden name first is heard of when it has given the final one."""
    async with watched(tmp_path) as finds:
        for number in range(5):
            hidden = tmp_path / ".writing"
            hidden.write_bytes(b"1" * 1000)
            await finds.until([hidden.rename(tmp_path / f"M{number}.rtdc")])
        assert str(hidden) not in finds.names


def test_what_is_of_no_interest_is_dropped_by_its_name(tmp_path):
    """In the watcher's thread: what grows under another name costs the event loop nothing."""
    watch = FolderWatch(tmp_path / "in", Settings(), list)
    watch.followed = dict.fromkeys([str(tmp_path / "in"), str(tmp_path / "in" / "day")], (1, 1))
    concerning = {
        (change, name)
        for change in Change
        for name in ("M.rtdc", ".M.rtdc", "M.rtdc.part", "notes.txt", ".day", "day", "day/M.rtdc", "other/M.rtdc")
        if watch.concerns(change, f"{tmp_path}/in/{name}")
    }
    new = {(Change.added, name) for name in ("M.rtdc", "M.rtdc.part", "notes.txt", "day/M.rtdc")}
    grown = {(Change.modified, name) for name in ("M.rtdc", "day/M.rtdc")}
    assert concerning == new | grown | {(change, "day") for change in Change}


@pytest.mark.slow
@in_real_time
async def test_twenty_thousand_files_while_the_loop_is_held(roomy):
    """However long nobody listens, events are kept, and none is lost."""
    async with watched(roomy) as finds:
        await finds.until(touch_many(roomy, 20_000))


@pytest.mark.slow
@in_real_time
async def test_name_that_is_not_utf8_stops_events_for_a_moment_only(tmp_path):
    """It is found all the same, also when it is deleted later nothing else is missed, and the log tells both times."""
    strange = tmp_path / os.fsdecode(b"caf\xe9.rtdc")
    with structlog.testing.capture_logs() as entries:
        async with watched(tmp_path) as finds:
            for number, happen in enumerate((strange.touch, strange.unlink)):
                happen()
                await until_logged(entries, "watch.degraded", number + 1)
                await finds.until([strange, *made(tmp_path / f"before {number}.rtdc")])
                await until_logged(entries, "watch.recovered", number + 1)
                await finds.until(made(tmp_path / f"after {number}.rtdc"))
    problems = [entry["error"] for entry in entries if entry["event"] == "watch.degraded"]
    assert all("caf" in problem and "not UTF-8" in problem for problem in problems)


async def until_logged(entries, event, count):
    async with asyncio.timeout(60):
        while sum(entry["event"] == event for entry in entries) < count:  # noqa: ASYNC110 -- the log tells nobody
            await asyncio.sleep(0.01)


@in_real_time
async def test_folder_whose_name_is_not_utf8_is_scanned_more_often(tmp_path):
    """Events from it and from the folder around it would stop all others, so both are polled; the rest has events."""
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    made(odd / "a.rtdc", tmp_path / "day" / "b.rtdc")
    with structlog.testing.capture_logs() as entries:
        async with watched(tmp_path, poll_seconds=0.2) as finds:
            await finds.until(made(odd / "c.rtdc", tmp_path / "d.rtdc", tmp_path / "day" / "e.rtdc"))
            await until_logged(entries, "watch.degraded", 1)
            odd.rename(tmp_path / "coffee")
            await until_logged(entries, "watch.armed", 1)
    assert [entry["event"] for entry in entries] == ["watch.degraded", "watch.recovered", "watch.armed"]
    assert repr(os.fsencode(odd)) in entries[0]["error"]
