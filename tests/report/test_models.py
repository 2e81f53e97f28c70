"""What a report tells of the model with which a result was segmented."""

from __future__ import annotations

import pytest

from dcnumd.report.make import make_report
from dcnumd.report.processing import MAX_WARNING, read_run
from dcnumd.report.request import ReportRequest
from dcnumd.write.log_lines import json_lines
from tests.support.models import G1, needs_torch


def test_facts_are_read_from_the_log_of_the_job():
    """Texts of authors may be long, or contain what no page may show; what is no text is left out."""
    model = {"name": "a\x1b[31m", "description": "word " * 500, "date": None, "md5": 3, "device": "cpu"}
    found = read_run({"dcnumd-job-1": json_lines({"model": model})}).model
    assert found == {"name": "a\\x1b[31m", "description": f"{'word ' * 100} …", "device": "cpu"}
    assert len(found["description"]) == MAX_WARNING + 2
    assert read_run({"dcnumd-job-1": json_lines({"model": [1]})}).model == {}


@needs_torch
@pytest.mark.slow
def test_report_tells_which_model_it_was_and_how_it_was_run(simulate, figures_of, shared_model, tmp_path):
    """The pipeline ID has only the name of its file; all else that identifies the result is beside it."""
    settings = {"segmenter_code": "torchmpo", "segmenter_kwargs": {"model_file": str(shared_model(G1))}}
    path = simulate("model", settings=settings, frames=60, size=(64, 256))
    figures = figures_of(path)
    (part,) = [part for part in figures.parts if part.name == "segmenter"]
    assert part.code == f"torchmpo:m={G1}.dcnm:cle=1^f=1^clo=0"
    told = {name: value for _, name, value, _ in part.parameters}
    assert told["model name"] == "Test model for dcnum"
    assert told["model date"] == "2024-06-07"
    assert told["model md5"] == "910c259ecc1bc4aa491d42cf502b7883"
    assert (told["backend"], told["device"]) == ("torch.jit", "cpu")
    assert figures.software["torch"]
    assert "openvino" not in figures.software
    (page,) = make_report(ReportRequest(path, tmp_path / "M", formats=("html",))).paths
    text = page.read_text("utf-8")
    assert told["model md5"] in text
    assert "This is a small test model for testing" in text
