"""The command `dcnumd report`."""

from __future__ import annotations

import json
import pathlib
import xml.dom.minidom

import click
import numpy as np
import PIL.Image
import pytest
from click.testing import CliRunner

from dcnumd.commands.report import report
from tests.support.reports import write_result


def run(*arguments, folder):
    """Run the command in this process, without the config of whoever runs the tests."""
    runner = CliRunner()
    config = folder / "config.toml"
    if not config.exists():
        config.write_text("")
    return runner.invoke(report, [*map(str, arguments), "-c", str(config)], standalone_mode=False)


def test_reports_are_made_and_named(tmp_path):
    """Beside each file."""
    paths = [write_result(tmp_path / f"M00{number}\t_dcn.rtdc", 30) for number in (1, 2)]
    done = run(*paths, folder=tmp_path)
    assert done.return_value == 0
    for path in paths:
        assert path.with_suffix(".html").exists()
        assert path.with_suffix(".json").exists()
        assert str(path.with_suffix(".html")).replace("\t", "\\t") in done.output
    assert "\t" not in done.output
    assert "30 events" in done.output


def test_json_for_programs(tmp_path):
    """A line for each file, without pictures; one bad file keeps no other, and the exit code tells of it."""
    bad = tmp_path / "bad_dcn.rtdc"
    bad.write_text("nothing")
    good = write_result(tmp_path / "M001_dcn.rtdc", 30)
    done = run(bad, good, tmp_path / "M002_dcn.rtdc", "--json", folder=tmp_path)
    assert done.return_value == 1
    assert not bad.with_suffix(".html").exists()
    first, second, third = map(json.loads, done.stdout.splitlines())
    assert second["outcome"] == "done"
    assert second["paths"] == [str(good.with_suffix(ending)) for ending in (".html", ".json")]
    assert second["events"] == 30
    assert {"plot", "thumbnail"}.isdisjoint(second)
    for failed, name in ((first, bad.name), (third, "M002_dcn.rtdc")):
        assert failed["outcome"] == "failed"
        assert failed["reason"]
        assert name in failed["error"]
    assert done.stderr.startswith("Error: ")


def test_folder_and_plots_of_choice(tmp_path):
    """The config says the rest."""
    (tmp_path / "config.toml").write_text("[report]\ngallery = 3\npairs = ['area_um:volume']\nformats = ['html']\n")
    result = write_result(tmp_path / "M001_dcn.rtdc", 30)
    assert run(result, "-o", tmp_path / "out", "--pair", "area_um:bright_avg", folder=tmp_path).return_value == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["M001_dcn.html"]
    page = (tmp_path / "out" / "M001_dcn.html").read_text("utf-8")
    assert page.count('type="radio"') == 3
    assert page.count('class="cell ') == 3


@pytest.mark.parametrize("pair", ["area_um", "area_um:", ":deform", "a:b:c", "a b:c"])
def test_pairs_are_two_features(tmp_path, pair):
    """Anything else is wrong usage."""
    with pytest.raises(click.BadParameter, match="two features"):
        raise run(tmp_path / "x.rtdc", "--pair", pair, folder=tmp_path).exception


def test_two_reports_of_one_name(tmp_path):
    """The second would replace the first."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    paths = [write_result(tmp_path / name / "M001_dcn.rtdc", 10) for name in "ab"]
    with pytest.raises(click.UsageError, match="would both become"):
        raise run(*paths, "-o", tmp_path / "out", folder=tmp_path).exception


@pytest.mark.slow
def test_plots_as_files_for_documents(tmp_path):
    """Each is there as PNG and SVG, in black on white, and needs nothing of the page; that without events, too."""
    paths = [write_result(tmp_path / f"M{events}_dcn.rtdc", events) for events in (150, 0)]
    done = run(*paths, "-o", tmp_path, "--plots", tmp_path / "plots", "--json", folder=tmp_path)
    assert done.return_value == 0
    told = [pathlib.Path(path) for line in done.stdout.splitlines() for path in json.loads(line)["plots"]]
    assert sorted(told) == sorted((tmp_path / "plots").iterdir())
    names = {path.stem.removeprefix("M150_dcn_") for path in told if path.name.startswith("M150_dcn_")}
    assert {"area_um-deform", "area_um", "deform", "bright_avg", "event_rate"} <= names
    for path in told:
        if path.suffix == ".png":
            with PIL.Image.open(path) as picture:
                pixels = np.array(picture.convert("RGB"))
            assert pixels[0, 0].min() >= 254
            assert pixels.min() < 80
        else:
            text = path.read_text("utf-8")
            root = xml.dom.minidom.parseString(text).documentElement  # noqa: S318 -- it was written here
            assert (root.tagName, root.namespaceURI) == ("svg", "http://www.w3.org/2000/svg")
            assert "var(" not in text
            assert "#0a0b0" not in text
