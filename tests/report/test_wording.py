"""Each reason and each warning has words."""

from __future__ import annotations

import pathlib
import re

from dcnumd.report import wording

OPERATIONS = pathlib.Path(__file__).parents[2] / "docs" / "operations.md"


def test_every_reason_has_a_cure():
    """What the engineer's guide knows, the operator's page knows, too."""
    text = OPERATIONS.read_text("utf-8").partition("## Reason codes")[2].partition("### Without an event")[0]
    rows = re.findall(r"^\| (`.+?) \|", text, re.MULTILINE)
    codes = {code for row in rows for code in re.findall(r"`(\w+)`", row)}
    assert len(codes) > 40
    assert codes - set(wording.CAUSES) - {"not_watched", "not_a_file"} == set()
    for cause in wording.CAUSES.values():
        assert not cause.what.endswith(".")
        assert cause.cure.endswith(".")


def test_unknown_codes_speak_for_themselves():
    assert wording.cause_of("flux_capacitor").what == "Flux capacitor"
