"""The command `models`: lists models for segmentation."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import click

from dcnumd.commands.options import json_option, with_settings
from dcnumd.commands.shown import print_json
from dcnumd.config.values import Settings
from dcnumd.errors import printable
from dcnumd.logic.models import KnownModel, models_in, rule_in_words

LABEL_WIDTH = 12
"""Width of the column of labels [characters]."""


@click.command(epilog="Example: dcnumd models /srv/models")
@click.argument("folder", required=False, type=click.Path(path_type=pathlib.Path))
@json_option
@with_settings(config_needed=False)
def models(settings: Settings, folder: pathlib.Path | None, as_json: bool) -> int:
    """List the models for segmentation in FOLDER, or in the folders of the config (models.folders).

    For each file: what the model is, for which measurements it is made, and whether this computer can run it. Exit code
    1 if a file is damaged, or is not a model.
    """
    folders = [folder] if folder is not None else list(settings.models.folders)
    if not folders:
        raise click.UsageError("name a folder, or set models.folders in the config")
    try:
        found = models_in(folders)
    except OSError as error:
        raise click.UsageError(f"{error.filename}: cannot be listed: {error.strerror}") from error
    if as_json:
        print_json([as_dict(model) for model in found])
    elif not found:
        click.echo(f"no file with the suffix .dcnm in {', '.join(map(str, folders))}", err=True)
    else:
        click.echo("\n\n".join("\n".join(lines_of(model)) for model in found))
    return 1 if any(model.file is None for model in found) else 0


def as_dict(model: KnownModel) -> dict[str, Any]:
    """Return a model for other programs."""
    told: dict[str, Any] = {"path": str(model.path), "usable": model.usable, "error": model.error}
    if model.file is None:
        return told
    meta = model.file.meta
    return told | {
        "name": meta.name,
        "identifier": meta.identifier,
        "date": meta.date,
        "description": meta.description,
        "version": model.file.version,
        "size": model.file.size,
        "md5": model.file.md5,
        "frame_shape": meta.image_shape,
        "batch_size": meta.batch_size,
        "ways": [way._asdict() for way in model.ways],
        "rules": [dataclasses.asdict(rule) | {"words": rule_in_words(rule)} for rule in meta.rules],
    }


def lines_of(model: KnownModel) -> list[str]:
    """Return what is known of a model, as lines of text."""
    first = click.style(printable(str(model.path)), bold=True)
    if model.file is None:
        return [first, _line("error", click.style(printable(model.error), fg="red"))]
    meta = model.file.meta
    here = "yes" if model.usable else click.style("no", fg="yellow")
    return [
        first,
        *(_line(label, printable(text)) for label, text in (("name", meta.name), ("description", meta.description))),
        _line("date", printable(meta.date)),
        _line("version", str(model.file.version)),
        _line("MD5", model.file.md5),
        _line("frames", "of {}x{} pixels".format(*meta.image_shape) if meta.image_shape else "of any size"),
        *_column("run by", [printable(way.words) for way in model.ways]),
        _line("runs here", here),
        *_column("rules", [f"{rule_in_words(rule)} ({printable(rule.refusal)})" for rule in meta.rules]),
    ]


def _column(label: str, texts: list[str]) -> list[str]:
    return [_line(label if not number else "", text) for number, text in enumerate(texts or ["none"])]


def _line(label: str, text: str) -> str:
    return f"    {label:{LABEL_WIDTH}}{text}".rstrip()
