"""The table of features."""

from __future__ import annotations

import subprocess
import sys

import dclab

from dcnumd.meta.features import TABLE

WITHOUT_ONE = """
from dcnumd.meta import features
features.TABLE = tuple(feature for feature in features.TABLE if feature.name != {name!r})
import dcnumd.feat.events
"""


def test_every_feature_is_known_to_the_format():
    """No name in the table is misspelt: each is a scalar feature of .rtdc files."""
    assert [feature.name for feature in TABLE if not dclab.dfn.scalar_feature_exists(feature.name)] == []


def test_reports_have_words_for_each():
    """A feature has a unit, even if it is a mere number, and a label."""
    assert [feature for feature in TABLE if not feature.unit or not feature.label] == []


def test_table_and_kernels_cannot_differ():
    """The features are not imported when the kernels write more columns of a group than are in the table."""
    for name in ("tilt", "volume", "bright_sd", "tex_asm_avg"):
        code = WITHOUT_ONE.format(name=name)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "AssertionError" in done.stderr
