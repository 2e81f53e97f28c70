"""``dcnumd run --once``: one run deals with everything that is there, and the next one has nothing to do."""

from __future__ import annotations

import dataclasses
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import h5py
import pytest

from tests.support.daemon import Daemon
from tests.support.faults import JOB_SECONDS, published, result_of
from tests.support.usual import SETTINGS, table

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]


@dataclasses.dataclass
class Run:
    """A run that has ended, and the folder that it watched."""

    config: pathlib.Path
    watched: pathlib.Path
    daemon: Daemon

    def paths(self, name: str, part: str, **fields: object) -> set[str]:
        """Return the paths below a folder that the events with this name are about, relative to that folder."""
        folder = self.watched / part
        paths = [pathlib.Path(event["path"]) for event in self.daemon.matching(name, **fields)]
        return {str(path.relative_to(folder)) for path in paths if folder in path.parents}


def fill(watched: pathlib.Path, elsewhere: pathlib.Path) -> None:
    """Put into a watched folder what one run shall deal with, a folder for each test."""
    folders = {name: watched / name for name in ("names", "alike", "links", "mirror/a", "mirror/b", "urgent", "bad")}
    for folder in (*folders.values(), elsewhere):
        folder.mkdir(parents=True)
    for name in (".hidden.rtdc", "a.rtdc~", "b.rtdc.tmp", "c.rtdc.part", "e_dce.rtdc", "notes.txt", "real.rtdc"):
        published(folders["names"], name)
    (folders["names"] / "folder.rtdc").mkdir()
    for number, name in enumerate(("M001.RTDC", "M001.rtdc")):
        published(folders["alike"], name, seed=number)
    other, path = published(elsewhere, "other.rtdc", seed=1), published(folders["links"], "real.rtdc")
    (folders["links"] / "deep").mkdir()
    (folders["links"] / "deep" / "within.rtdc").symlink_to(path)
    (folders["links"] / "out.rtdc").symlink_to(other)
    (folders["links"] / "folder").symlink_to(elsewhere)
    for name in ("a", "b"):
        published(folders[f"mirror/{name}"], "M001_data.rtdc", seed=ord(name))
    published(folders["urgent"], "first.rtdc", seed=9)
    (folders["bad"] / "bad.rtdc").write_bytes(b"no")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Iterator[Run]:
    place = tmp_path_factory.mktemp("once")
    watched, config = place / "acquisition", place / "config.toml"
    fill(watched, place / "elsewhere")
    plain = "".join(table(watched / name) for name in ("names", "alike", "links", "bad"))
    mirror = table(watched / "mirror", more=f"output.folder = '{watched}/mirror/results'\n")
    urgent = f"priority = 1\noutput.folder = '{place}/results'\npipeline.segmenter.thresh = -8\n"
    state = f"[state]\nfolder = '{place}/state'\n"
    config.write_text(plain + mirror + table(watched / "urgent", more=urgent) + state + SETTINGS)
    daemon = Daemon.start(config, "--once")
    try:
        # one measurement failed
        assert daemon.wait(JOB_SECONDS) == 1
        yield Run(config, watched, daemon)
    finally:
        daemon.close()


def test_all_that_is_there_has_been_dealt_with(run):
    """The exit code says that not all of it worked, and the log says what did not."""
    (failed,) = run.daemon.matching("job.failed")
    assert failed["path"] == str(run.watched / "bad" / "bad.rtdc")
    finished = run.daemon.matching("job.finished")
    assert len(finished) == 7
    assert all(pathlib.Path(event["output"]).exists() for event in finished)


def test_results_hidden_and_temporary_files_are_no_inputs(run):
    """Only measurements are taken up; a folder with the name of one is reported."""
    assert run.paths("file.detected", "names") == {"real.rtdc"}
    assert run.paths("file.ignored", "names", reason="not_a_file") == {"folder.rtdc"}


def test_names_that_differ_in_the_ending_only_are_told(run):
    """Both would have one result: the second is left out with the name of the first, and what to do."""
    (skipped,) = run.daemon.matching("job.skipped", reason="output_differs")
    (done,) = run.paths("job.finished", "alike")
    assert {done, pathlib.Path(skipped["path"]).name} == {"M001.RTDC", "M001.rtdc"}
    assert f"is the result of another measurement, {run.watched}/alike/{done}" in skipped["error"]
    assert "rename one of them" in skipped["error"]


def test_links_out_of_the_watched_folders_are_told_and_left_out(run):
    """A link to a file elsewhere is no measurement here; one to a file in the folder is."""
    other = run.watched.parent / "elsewhere" / "other.rtdc"
    assert run.paths("job.started", "links") == {"real.rtdc", "deep/within.rtdc"}
    (told,) = run.daemon.matching("file.ignored", reason="outside")
    assert told["path"] == str(run.watched / "links" / "out.rtdc")
    assert f"leads to {other}, which is outside" in told["error"]
    assert [file.name for file in other.parent.iterdir()] == ["other.rtdc"]
    command = [sys.executable, "-m", "dcnumd", "why", told["path"], "-c", str(run.config)]
    why = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "ignored: a symbolic link leads to" in why.stdout + why.stderr


def test_output_folder_mirrors_the_tree(run):
    """With an output folder nothing is written beside the measurements, and equal names do not meet."""
    folder = run.watched / "mirror"
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.rtdc")) == [
        "a/M001_data.rtdc",
        "b/M001_data.rtdc",
        "results/a/M001_data_dcn.rtdc",
        "results/b/M001_data_dcn.rtdc",
    ]


def test_folders_with_settings_of_their_own(run):
    """Each [[watch]] table has its own pipeline and place of results."""
    (urgent,) = (event for event in run.daemon.matching("job.finished") if event["path"].endswith("first.rtdc"))
    assert urgent["output"] == str(run.watched.parent / "results" / "first_dcn.rtdc")
    usual = result_of(run.watched / "names" / "real.rtdc")
    for path, thresh in ((urgent["output"], "t=-8"), (usual, "t=-6")):
        with h5py.File(path) as h5:
            assert thresh in h5.attrs["pipeline:dcnum segmenter"]


def test_second_run_has_nothing_to_do(run):
    """Neither measurements nor results are found anew, and what has failed is not tried again."""
    again = Daemon.start(run.config, "--once")
    try:
        assert again.wait(JOB_SECONDS) == 0
    finally:
        again.close()
    assert not again.matching("file.detected") + again.matching("job.queued")
