"""Explanations of common mistakes in TOML, which the parser's own messages do not name."""

from __future__ import annotations

import re

SLIPS: tuple[tuple[str, str], ...] = (
    (r"=\s*(True|TRUE|False|FALSE|yes|Yes|no|No|on|off)\s*(#.*)?$", "write true or false, in lower case"),
    (r"=\s*[-+]?\d+,\d+\s*(#.*)?$", "write a decimal point instead of the comma, for example 0.5"),
    (r'=.*"[^"\']*\\', "in double quotes a backslash starts an escape; write the path with / or in single quotes"),
    (r"=\s*\[?\s*(/|~|[A-Za-z]:|[A-Za-z_])[^\"'{]*$", "put the text into quotes"),
    (r"[\"']\s+[\"']", "write a comma between two values"),
    (r"^[^=\[]*=\s*(#.*)?$", "a value is missing after the equals sign"),
    (r"^\s*[\w.]+\s*:", "write = between key and value instead of the colon"),
    (r"^\s*[\w.]+\s+[^=\s]", "write = between key and value"),
    (r'=\s*("[^"]*|\'[^\']*)$', "the closing quote is missing"),
    (r"^\s*\[[^\]]*$", "the closing bracket is missing"),
)
"""Regular expression for a line with a mistake, and its correction; the first one that matches applies."""


def explain(text: str, number: int, problem: str) -> str:
    """Return the line with a mistake and, if it is a common one, its correction; else the parser's message.

    Parameters
    ----------
    text
        The TOML text.
    number
        Number of the line at which the parser stopped, starting at 1.
    problem
        The parser's message.
    """
    lines = text.splitlines()
    line = lines[number - 1].strip() if 0 < number <= len(lines) else ""
    advice = next((advice for pattern, advice in SLIPS if re.search(pattern, line)), problem)
    return f"line {number}: {line}: {advice}" if line else f"line {number}: {problem}"
