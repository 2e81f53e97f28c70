"""Finding files: names, folders, and what a listing costs."""

from __future__ import annotations

import dataclasses
import os
import pathlib

import pytest

from dcnumd.config import OutputSettings, Settings, WatchSettings
from dcnumd.daemon.watch import CandidateFilter, FolderWatch, list_folder


def accepting(**keywords):
    return CandidateFilter.of(Settings(output=OutputSettings(**keywords)))


@pytest.mark.parametrize(
    ("name", "refusal"),
    [
        ("M001_data.rtdc", ""),
        ("Größe 1 (x).rtdc", ""),
        ("dcn.rtdc", ""),
        ("M_dcn_2.rtdc", ""),
        ("M001_data_dcn.rtdc", "own_output"),
        ("M001_data_dce.rtdc", "own_output"),
        ("M001_data_mine.rtdc", "own_output"),
        (".M001.rtdc", "hidden"),
        ("._M001.rtdc", "hidden"),
        ("M001.rtdc~", "temporary"),
        ("M001.rtdc.part", "temporary"),
        ("M001.rtdc.tmp", "temporary"),
        ("M001.RTDC", "pattern"),
        ("M001.h5", "pattern"),
    ],
)
def test_names_decide_what_may_be_a_measurement(name, refusal):
    """Results, hidden and temporary files are never inputs."""
    assert accepting(suffix="_mine").refusal(f"/in/{name}") == refusal


def test_what_lies_in_the_output_folder_is_no_input():
    """Results are never inputs, wherever the output folder is."""
    accepts = accepting(folder=pathlib.Path("/in/out"))
    assert accepts.refusal("/in/out/M.rtdc") == "output_folder"
    assert accepts.refusal("/in/out/deep/M.rtdc") == "output_folder"
    assert accepts.refusal("/in/outer/M.rtdc") == ""


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
    flat = list_folder(str(tmp_path), accepting(), recursive=False)
    assert sorted(os.path.relpath(path, tmp_path) for path, _ in flat.found) == ["a.rtdc", "linked.rtdc"]


def test_listing_of_a_missing_folder_is_an_error_of_the_root_only(tmp_path):
    """The root must be there; what vanishes inside is no trouble."""
    with pytest.raises(FileNotFoundError):
        list_folder(str(tmp_path / "missing"), accepting(), recursive=True)


def test_events_follow_the_same_rules_as_a_scan(tmp_path):
    """What a file event names is taken up only where a scan would find it, too."""
    settings = Settings(watch=dataclasses.replace(WatchSettings(), folders=(tmp_path,)))
    for name in ("a.rtdc", "x/b.rtdc", ".trash/c.rtdc", "a_dcn.rtdc"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "link").symlink_to(tmp_path / "x")
    watch = FolderWatch(tmp_path, settings, list)
    names = {"a.rtdc", "x", ".trash/c.rtdc", ".trash", "link", "link/b.rtdc", "a_dcn.rtdc", "gone.rtdc"}
    found = watch._named_by({str(tmp_path / name) for name in names})
    assert sorted(os.path.relpath(path, tmp_path) for path, _ in found) == ["a.rtdc", "x/b.rtdc"]
