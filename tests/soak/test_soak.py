"""The short versions of the soak tests; `python -m tests.soak.kills` and its like are the long ones."""

from __future__ import annotations

import pathlib

import pytest

from tests.soak import cluster, growth, kills, many, model
from tests.support.hosts import network

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_killed_processes_cost_no_result(tmp_path: pathlib.Path) -> None:
    """Whoever is killed whenever, results are those of an undisturbed run, each made once, and nothing is left over."""
    assert kills.run(tmp_path, files=6, kills=6, seed=5) == []


def test_random_actions_agree_with_the_model(tmp_path: pathlib.Path) -> None:
    """Whatever is done to files, folders and the daemon, in the end each measurement has its result."""
    _, fault = model.run(tmp_path, steps=30, seed=1)
    assert not fault, fault


def test_many_files_leave_nothing_in_memory(tmp_path: pathlib.Path) -> None:
    """Processes hold no more after 60 files than after 30."""
    held, faults = many.run(tmp_path, files=60, first=30, tolerance=0.05)
    assert faults == [], held


def test_growing_files_get_the_result_of_all_their_frames(tmp_path: pathlib.Path) -> None:
    """Before, during and after their job, around publication, and while the daemon is stopped or killed."""
    assert growth.run(tmp_path, files=6, seed=2) == []


def test_faults_of_a_cluster_cost_no_result(tmp_path: pathlib.Path) -> None:
    """Whatever happens to computers, programs and shares, results are those of this computer, each made once."""
    with network():
        _, wrong = cluster.run(tmp_path, files=3, faults=3, seed=2)
    assert wrong == []
