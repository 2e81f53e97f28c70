"""Results that were made here are told from measurements, and from results of others, by what is in them."""

from __future__ import annotations

import json
import shutil

import h5py
import pytest

from dcnumd.logic.job import Job, PipelineSettings
from dcnumd.logic.own_output import is_own_output
from dcnumd.logic.process import engine, process_measurement
from tests.support.daemon import draw_measurement
from tests.support.oracle import Oracle


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Return a folder with a measurement, our results of it, and dcnum's."""
    folder = tmp_path_factory.mktemp("origin") / "acquisition"
    folder.mkdir()
    draw_measurement(folder / "M.rtdc")
    for strategy in ("tap", "drain"):
        job = Job(folder / "M.rtdc", folder / f"{strategy}.rtdc", PipelineSettings(), strategy, num_workers=1)
        process_measurement(job)
    engine.close()
    oracle = Oracle(folder.parent)
    oracle.process(folder / "M.rtdc", folder / "dcnum.rtdc")
    oracle.close()
    return folder


def own(path, *folders, recorded=False):
    job = Job(path, path.with_name("new_dcn.rtdc"), PipelineSettings(), trusted_folders=folders)
    return is_own_output(job, recorded=recorded)


@pytest.mark.parametrize("name", ["tap", "drain", "dcnum"])
def test_result_made_here_is_known_under_any_name(tree, tmp_path, name):
    """Neither its name nor its place in the tree matters, nor whether the measurement is still there."""
    moved = tree / "elsewhere" / f"{name} renamed.rtdc"
    moved.parent.mkdir(exist_ok=True)
    shutil.copy(tree / f"{name}.rtdc", moved)
    assert own(tree / f"{name}.rtdc", tree)
    assert own(moved, tree)
    assert not own(tree / "M.rtdc", tree)


@pytest.mark.parametrize("name", ["tap", "drain", "dcnum"])
def test_result_from_elsewhere_is_an_input(tree, tmp_path, name):
    """Who puts a result of others into a watched folder wants it processed, unless the ledger says it is ours."""
    path = tmp_path / f"{name}.rtdc"
    shutil.copy(tree / f"{name}.rtdc", path)
    assert not own(path, tmp_path)
    assert own(path, tmp_path, recorded=True)
    assert own(path, tmp_path, tree)


def test_result_that_was_moved_with_its_measurement_is_known(tree, tmp_path):
    """What refers to the measurement beside it was made of it, also after the whole tree was moved."""
    moved = tmp_path / "moved"
    shutil.copytree(tree, moved)
    assert own(moved / "tap.rtdc", moved)
    (moved / "M.rtdc").unlink()
    assert not own(moved / "tap.rtdc", moved)


@pytest.mark.parametrize("broken", ["hash", "gate", "generation"])
def test_attributes_that_do_not_fit_make_no_result(tree, tmp_path, broken):
    """A file whose pipeline attributes contradict each other is no result, whatever else it names."""
    path = tmp_path / "M.rtdc"
    shutil.copy(tree / "tap.rtdc", path)
    with h5py.File(path, "a") as h5:
        h5.attrs[f"pipeline:dcnum {broken}"] = "other"
    assert not own(path, tree)
    with h5py.File(path, "a") as h5:
        del h5.attrs[f"pipeline:dcnum {broken}"]
    assert not own(path, tree, recorded=True)


@pytest.mark.parametrize("log", ["", "no JSON", "[]", "{}", '{"job": {"path_in": 3}}', "[" * 9999])
def test_log_that_says_nothing_is_passed_over(tree, tmp_path, log):
    """Whatever a log holds, the look goes on; results of dcnum and of earlier versions have nothing else."""
    path = tmp_path / "M.rtdc"
    shutil.copy(tree / "drain.rtdc", path)
    with h5py.File(path, "a") as h5:
        h5["events"].attrs.clear()
        for name in list(h5["logs"]):
            del h5["logs"][name]
        h5["logs/dcnumd-job-1"] = [log]
    assert not own(path, tree)
    with h5py.File(path, "a") as h5:
        h5["logs/dcnumd-job-2"] = [json.dumps({"job": {"path_in": str(tree / "M.rtdc"), "path_out": "relative"}})]
    assert own(path, tree)
