"""Models in folders: what they say of themselves, and whether this computer can run them.

This module imports no numerical code.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable

from dcnumd.errors import ModelError, printable
from dcnumd.segm.segm_torch.model_file import ModelFile, list_models, read_model
from dcnumd.segm.segm_torch.model_meta import Rule
from dcnumd.segm.segm_torch.ways import Way, ways_of


@dataclasses.dataclass(frozen=True, slots=True)
class KnownModel:
    """A file that has the suffix of models."""

    path: pathlib.Path
    file: ModelFile | None = None
    """None if it is not a model that can be used."""
    error: str = ""
    """What is wrong with the file."""
    ways: tuple[Way, ...] = ()
    """The ways to run the model, the best one first."""

    @property
    def usable(self) -> bool:
        """Whether this computer can run the model."""
        return any(not way.problem for way in self.ways)


def models_in(folders: Iterable[pathlib.Path]) -> list[KnownModel]:
    """Return the models in folders, each once.

    Raises
    ------
    OSError
        A folder cannot be listed.
    """
    paths = dict.fromkeys(path for folder in folders for path in list_models(folder))
    return [known_model(path) for path in paths]


def known_model(path: pathlib.Path) -> KnownModel:
    """Return what is known of a file that has the suffix of models."""
    try:
        model = read_model(path)
    except ModelError as error:
        return KnownModel(path, error=error.message)
    return KnownModel(path, model, ways=tuple(ways_of(model)))


def rule_in_words(rule: Rule) -> str:
    """Return the condition that measurements must meet for a model, in words, without its reason."""
    what = {"meta": rule.key, "logs": f"the log {rule.key}"}.get(
        rule.kind, f"{rule.key} of the unknown type {rule.kind}"
    )
    conditions = []
    if rule.pattern is not None:
        conditions.append(f"{'must not match' if rule.negated else 'must match'} '{rule.pattern}'")
    if rule.value is not None:
        conditions.append(f"must be {', '.join(f'{value:g}' for value in rule.value)} within 1 %")
    if not conditions:
        return printable(f"{what} {'may be missing' if rule.may_be_missing else 'must exist'}")
    return printable(f"{what}{', if it exists,' if rule.may_be_missing else ''} {' and '.join(conditions)}")
