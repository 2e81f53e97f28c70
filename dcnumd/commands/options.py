"""Options that several commands share."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable
from typing import Any, TypeVar

import click

from dcnumd.config.file import SYSTEM_CONFIG, find_config, load_settings
from dcnumd.errors import ConfigError

R = TypeVar("R")


def with_settings(*, config_needed: bool) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Return a decorator that adds ``-c`` and ``--set`` to a command and passes it the settings as first argument.

    Parameters
    ----------
    config_needed
        Whether to raise `ConfigError` if there is no config file.
    """

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        @functools.wraps(command)
        def call(*, config: pathlib.Path | None, overrides: tuple[str, ...], **values: Any) -> R:
            path = find_config(config)
            if path is None and config_needed:
                raise ConfigError(
                    f"no config file: looked for -c FILE, $DCNUMD_CONFIG, ./config.toml and {SYSTEM_CONFIG}; "
                    "begin with a copy of the sample config.toml that comes with dcnumd"
                )
            return command(load_settings(path, overrides), **values)

        config_option = click.option(
            "-c",
            "--config",
            metavar="FILE",
            type=click.Path(path_type=pathlib.Path, dir_okay=False),
            help="Config file; else $DCNUMD_CONFIG, ./config.toml, /etc/dcnumd/config.toml.",
        )
        set_option = click.option(
            "--set",
            "overrides",
            metavar="KEY=VALUE",
            multiple=True,
            help="Override a setting, for example pipeline.segmenter.thresh=-8. Can be repeated.",
        )
        return config_option(set_option(call))

    return decorate


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
"""The option ``--json`` of commands whose output other programs may read."""
