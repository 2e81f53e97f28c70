"""The JSON report: valid by its schema, without NaN, whatever the result holds."""

from __future__ import annotations

import json

import jsonschema
import numpy as np
import pytest

from dcnumd.report.document import as_document, schema
from tests.support.reports import write_result

RESULTS = {
    "usual": {},
    "empty": {"events": 0},
    "one": {"events": 1},
    "nan": {"events": 30, "columns": dict.fromkeys(("area_um", "deform", "bg_med", "time"), np.full(30, np.nan))},
    "huge": {"events": 30, "columns": {"area_um": np.full(30, 1e308), "deform": np.full(30, np.inf)}},
    "bare": {"attributes": dict.fromkeys(("imaging:frame rate", "setup:flow rate", "experiment:sample"))},
    "strange": {"attributes": {"experiment:sample": "<script>\n'\"Ω", "setup:flow rate": np.nan}},
}


@pytest.mark.parametrize("name", RESULTS)
def test_document_is_valid(tmp_path, figures_of, name):
    document = as_document(figures_of(write_result(tmp_path / "M001_dcn.rtdc", **RESULTS[name])))
    text = json.dumps(document, allow_nan=False)
    jsonschema.validate(json.loads(text), schema(), format_checker=jsonschema.FormatChecker())
    assert document["format"] == "dcnumd-report"
    assert document["version"] == 1


def test_schema_describes_every_field(tmp_path, figures_of):
    columns = {"fl1_max": np.ones(300)}
    document = as_document(figures_of(write_result(tmp_path / "M001_dcn.rtdc", columns=columns)))
    jsonschema.Draft202012Validator.check_schema(schema())

    def compare(value, described, where):
        assert described.get("description"), where
        if isinstance(value, dict) and "properties" in described:
            assert value.keys() == described["properties"].keys(), where
            for key, item in value.items():
                compare(item, described["properties"][key], f"{where}.{key}")
        elif isinstance(value, list) and "properties" in described.get("items", {}):
            assert value, where
            compare(value[0], described["items"], where)

    compare(document, schema(), "report")
