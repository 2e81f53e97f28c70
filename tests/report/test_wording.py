"""What people are told of a reason."""

from __future__ import annotations

from dcnumd.report import wording


def test_unknown_codes_speak_for_themselves():
    assert wording.cause_of("flux_capacitor").what == "Flux capacitor"
