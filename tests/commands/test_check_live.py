"""Settings for the processing of recordings, and what `check` says about them."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from dcnumd import routing
from dcnumd.cli import main
from dcnumd.config.file import load_settings
from dcnumd.errors import ConfigError
from dcnumd.logic import memory


@pytest.fixture
def config(tmp_path):
    """Return a function that writes a config with a section ``[live]`` and others, and returns its path."""
    (tmp_path / "in").mkdir()

    def write(live="enabled = true", others=""):
        path = tmp_path / "config.toml"
        path.write_text(
            f"[watch]\nfolders = ['{tmp_path}/in']\n[state]\nfolder = '{tmp_path}/state'\n[live]\n{live}\n{others}"
        )
        return path

    return write


@pytest.mark.parametrize(
    ("live", "others", "complaint"),
    [
        ("view_seconds = 0", "", "live.view_seconds: got 0.0; more than 0 is allowed"),
        ("spool_mb = 0", "", "live.spool_mb: got 0; 1 or more is allowed"),
        ("enabled = true", "[resources]\npause_while_acquiring = true", "excludes resources.pause_while_acquiring"),
        (
            "enabled = true",
            "[executor]\nkind = 'dask'\nscheduler = 'tcp://127.0.0.1:1'",
            'excludes executor.kind = "dask"',
        ),
    ],
)
def test_wrong_settings_are_named(config, live, others, complaint):
    """Also settings that exclude each other, with the reason."""
    path = config(live, others)
    with pytest.raises(ConfigError) as failure:
        load_settings(path)
    assert complaint in failure.value.message
    load_settings(path, ["live={}"])


def findings(path, capsys, *options):
    """Return level and text of what `check` says about live."""
    assert main(["check", "--json", "--quick", "-c", str(path), *options]) == 0
    document = json.loads(capsys.readouterr().out)
    return [(one["level"], one["text"]) for one in document["findings"] if one["subject"] == "live"]


def test_check_says_what_live_takes(config, capsys):
    """Memory of the workers, which the sum for all processes contains; nothing if it is off."""
    assert findings(config("enabled = false"), capsys) == []
    path = config()
    for number, words in ((1, "1 further worker"), (3, "3 further workers")):
        options = ("--set", f"resources.num_workers={number}", "--set", "resources.cpus=[0, 1]")
        (level, text), *_ = findings(path, capsys, *options)
        assert level == "ok"
        assert f"by {words}, with at most {memory.in_mb(memory.for_live(number))} MB" in text
    with_live, without = (
        routing.memory_beside_pipeline(load_settings(path, ["resources.num_workers=3", f"live.enabled={enabled}"]))
        for enabled in ("true", "false")
    )
    assert with_live - without == memory.for_live(3)


def test_check_warns_of_too_few_processors(config, capsys):
    """One processor cannot keep up with a camera; the daemon starts nevertheless."""
    (_, (level, text), *_) = findings(config(), capsys, "--set", f"resources.cpus=[{min(os.sched_getaffinity(0))}]")
    assert (level, text.partition(" is")[0]) == ("warning", "1 processor")


def test_check_notes_a_disk_without_room_for_the_events(config, capsys, monkeypatch):
    """It is only a note, because what has no room is computed again."""
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2 * 10**9))
    told = findings(config("enabled = true\nspool_mb = 3000"), capsys)
    assert [level for level, text in told if "2.0 GB free" in text] == ["note"]
    assert not [text for _, text in findings(config("enabled = true\nspool_mb = 2000"), capsys) if "GB free" in text]
