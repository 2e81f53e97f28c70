"""What the command `check` finds, one line each."""

from __future__ import annotations

import dataclasses
from typing import Literal

import click

from dcnumd.errors import printable

Level = Literal["ok", "note", "warning", "problem"]
COLOURS: dict[Level, str] = {"ok": "green", "note": "cyan", "warning": "yellow", "problem": "red"}


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """The result of checking one setting, one folder or one file."""

    level: Level
    subject: str
    text: str

    @property
    def line(self) -> str:
        """The finding as a line of text, coloured."""
        return f"{click.style(f'{self.level:8}', fg=COLOURS[self.level])} {self.subject:16} {printable(self.text)}"
