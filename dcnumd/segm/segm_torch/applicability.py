"""Whether a model is made for a measurement: its rules, compared with attributes and logs.

Regular expressions come from model files. Some take longer than the universe lasts, so they run in a process that is
ended after a while. This module imports only the standard library.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from dcnumd.errors import printable
from dcnumd.segm.segm_torch.model_file import ModelFile
from dcnumd.segm.segm_torch.model_meta import Rule

REGEXP_SECONDS = 2
"""Processor time for all regular expressions of a model [s]; usual ones take milliseconds."""
REGEXP_WALL_SECONDS = 50.0
"""Time after which they are given up on a busy computer [s]."""
REGEXP_BYTES = 2**29
"""Address space of the process that evaluates them [bytes]."""
TOLERANCE = 0.01
"""Largest relative difference between a value and that of the measurement."""
PLAIN = set("\\.^$*+?{}[]|()")
"""Characters with a meaning in regular expressions."""

# One answer for each pair of pattern and text, or the error in the pattern, is written at once, so that those
# before a pattern that takes too long are known.
_SEARCH = f"""
import json, re, resource, sys, warnings
resource.setrlimit(resource.RLIMIT_AS, ({REGEXP_BYTES}, {REGEXP_BYTES}))
resource.setrlimit(resource.RLIMIT_CPU, ({REGEXP_SECONDS}, {REGEXP_SECONDS}))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
warnings.simplefilter("ignore")
for pattern, text in json.load(sys.stdin):
    try:
        answer = bool(re.search(pattern, text, re.MULTILINE))
    except (re.error, OverflowError, MemoryError, RecursionError) as error:
        answer = f"{{type(error).__name__}}: {{error}}"
    print(json.dumps(answer), flush=True)
"""


def refusals(
    model: ModelFile, version: int, attributes: Mapping[str, Any], logs: Mapping[str, Sequence[str]]
) -> list[str]:
    """Return all reasons for which a model must not be used for a measurement; none if it is made for it.

    Parameters
    ----------
    model
        The model.
    version
        Version of the file format that the segmenter needs.
    attributes
        Attributes of the measurement by their names, such as ``setup:chip region``.
    logs
        Lines of each log of the measurement.
    """
    texts = {name: "\n".join(lines) for name, lines in logs.items()}
    given = {"meta": attributes, "logs": texts}
    searches = {}
    for number, rule in enumerate(model.meta.rules):
        text = given.get(rule.kind, {}).get(rule.key)
        if rule.pattern is not None and isinstance(text, str):
            searches[number] = rule.pattern, text
    found = dict(zip(searches, search_all(list(searches.values())), strict=True))
    reasons = [] if model.version == version else [wrong_version(model, version)]
    for number, rule in enumerate(model.meta.rules):
        reason = _refusal(model, rule, given.get(rule.kind), found.get(number))
        if reason:
            reasons.append(printable(reason))
    return reasons


def wrong_version(model: ModelFile, version: int) -> str:
    """Return why a model of one version is not for a segmenter that needs another."""
    return f"{model.file_name} is a model of version {model.version}, and the segmenter needs version {version}"


def _refusal(model: ModelFile, rule: Rule, given: Mapping[str, Any] | None, found: bool | str | None) -> str:
    """Return why a measurement does not meet a rule, or an empty text; `found` is the outcome of the search."""
    if given is None:
        return f"{model.file_name} has a rule of the unknown type {rule.kind!r}"
    if rule.key not in given:
        return "" if rule.may_be_missing else f"{rule.key!r} is missing in {rule.kind}"
    if isinstance(found, str):
        return f"the rule for {rule.key!r} cannot be evaluated: {found}"
    if rule.pattern is not None and (found is None or found == rule.negated):
        return rule.refusal
    if rule.value is not None and not _is_near(rule.value, given[rule.key]):
        return rule.refusal
    return ""


def _is_near(wanted: Sequence[float], value: object) -> bool:
    """Return whether each of the wanted numbers is that of a measurement, within 1 % of the latter."""
    listed = value.tolist() if hasattr(value, "tolist") else value
    numbers = listed if isinstance(listed, list | tuple) else [listed]
    if not numbers or not all(isinstance(number, int | float) for number in numbers):
        return False
    if len(wanted) == 1:
        wanted = [wanted[0]] * len(numbers)
    elif len(numbers) == 1:
        numbers = [numbers[0]] * len(wanted)
    return len(wanted) == len(numbers) and all(
        a == b or (math.isfinite(b) and abs(a - b) <= TOLERANCE * abs(b)) for a, b in zip(wanted, numbers, strict=True)
    )


def search_all(searches: Sequence[tuple[str, str]]) -> list[bool | str]:
    """Return for each pattern whether it is found in its text; or in words why that is not known.

    Parameters
    ----------
    searches
        Pairs of a regular expression and a text of lines; ``^`` and ``$`` match at each of them.
    """
    if all(not PLAIN.intersection(pattern) for pattern, _ in searches):
        return [pattern in text for pattern, text in searches]
    command = [sys.executable, "-I", "-S", "-c", _SEARCH]
    try:
        output = subprocess.run(  # noqa: S603 -- our own program
            command,
            input=json.dumps(searches),
            capture_output=True,
            text=True,
            check=False,
            timeout=REGEXP_WALL_SECONDS,
        ).stdout
    except subprocess.TimeoutExpired as error:
        partial = error.stdout or b""
        output = partial.decode() if isinstance(partial, bytes) else partial
    answers: list[bool | str] = [json.loads(line) for line in output.splitlines()]
    failure = f"its regular expression takes more than {REGEXP_SECONDS} s"
    return answers + [failure] * (len(searches) - len(answers))
