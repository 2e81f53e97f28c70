"""`history --features`: the statistics of features of many measurements as one table."""

from __future__ import annotations

import csv
import io
import json
import pathlib
import statistics

import pytest

from dcnumd.cli import main
from dcnumd.report.make import make_report
from dcnumd.report.request import ReportRequest
from tests.support.reports import ATTRIBUTES, columns_of, write_result

GOOD = ("reported", "bare")
HASH = ATTRIBUTES["pipeline:dcnum hash"]


@pytest.fixture
def results(world):
    """Return a world with a result that has a report, one that has none, and one whose file is damaged."""
    for number, name in enumerate((*GOOD, "damaged")):
        entry = world.done(f"{name}.rtdc", pphash=HASH, finished_at=f"2026-11-2{3 - number}T10:00:00.000Z")
        path = pathlib.Path(entry.output)
        if name == "damaged":
            path.write_bytes(b"no result")
            continue
        write_result(path, 50, columns=columns_of(50, seed=number))
        if name == "reported":
            make_report(ReportRequest(path, path.with_suffix(""), formats=("json",)))
            world.ledger.amend(entry.id, report_state="written", light="yellow")
    world.failed("failed.rtdc")
    return world


def test_table_has_the_statistics_of_each_result(results, capsys):
    """From the figures of its report, or from itself; a result that cannot be read is told beside the table."""
    figures = results.folder / "reported_dcn.json"
    document = json.loads(figures.read_text())
    document["features"][0]["median"] = 1234.5
    figures.write_text(json.dumps(document))

    assert main(["history", "--features", "-c", str(results.config)]) == 1
    shown, complaints = capsys.readouterr()
    assert "damaged_dcn.rtdc" in complaints
    reported, bare = csv.DictReader(io.StringIO(shown, newline=""), strict=True)
    assert list(reported)[:9] == [
        "path", "sample", "recorded", "events", "light", "pphash", "area_um_median", "area_um_mean", "area_um_sd",
    ]  # fmt: skip
    assert [row["path"] for row in (reported, bare)] == [str(results.folder / f"{name}.rtdc") for name in GOOD]
    assert (bare["sample"], bare["recorded"], bare["events"]) == ("blood", "2026-11-21 10:00:00", "50")
    assert (bare["pphash"], bare["light"]) == (HASH, "yellow")
    assert float(reported["area_um_median"]) == 1234.5
    columns = columns_of(50, seed=1)
    for name in ("area_um", "deform", "bright_avg", "volume"):
        values = columns[name].tolist()
        assert float(bare[f"{name}_median"]) == pytest.approx(statistics.median(values))
        assert float(bare[f"{name}_mean"]) == pytest.approx(statistics.fmean(values))
        assert float(bare[f"{name}_sd"]) == pytest.approx(statistics.pstdev(values))


def test_figures_of_another_pipeline_are_not_taken(results, capsys):
    """Nor those of a report that is still to be made anew; --json has the same rows, and filters select."""
    figures = results.folder / "reported_dcn.json"
    document = json.loads(figures.read_text())
    document["features"][0]["median"] = 1234.5
    figures.write_text(json.dumps({**document, "pphash": "other"}))
    arguments = ["history", "--features", "--json", "--since", "2026-11-22", "-c", str(results.config)]
    assert main(arguments) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["path"].rpartition("/")[2] for row in rows] == ["reported.rtdc", "bare.rtdc"]
    assert rows[0]["area_um_median"] == pytest.approx(statistics.median(columns_of(50, seed=0)["area_um"].tolist()))


def test_results_that_were_replaced_have_no_row(results, capsys):
    """The history says what became of the result of a former content of a measurement."""
    (earlier,) = [entry for entry in results.ledger.history() if entry.path.endswith("bare.rtdc")]
    results.ledger.finish(results.running("bare2.rtdc").id, earlier.output)
    days = ("--since", "2026-11-22", "--until", "2026-11-24")
    assert main(["history", "--features", "--json", *days, "-c", str(results.config)]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["path"].endswith("/reported.rtdc")
    assert main(["history", "-c", str(results.config)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "bare.rtdc" in line]
    assert "-> replaced by the result of a later content" in line


@pytest.mark.parametrize("wrong", [["--failed"], ["--state", "skipped"]])
def test_only_results_have_features(results, capsys, wrong):
    assert main(["history", "--features", *wrong, "-c", str(results.config)]) == 2
    assert "leave --state and --failed out" in capsys.readouterr().err
