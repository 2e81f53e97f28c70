"""The command line: imports the command, and converts errors to a message of one line and an exit code."""

from __future__ import annotations

import difflib
import importlib
import io
import sys
from collections.abc import Sequence
from typing import cast

import click
from click.shell_completion import CompletionItem

from dcnumd import __version__
from dcnumd.errors import ConfigError, DcnumdError
from dcnumd.reasons import codes_of

COMMANDS = {
    "run": ("dcnumd.commands.run:run", "Watch folders and process what is recorded: the daemon."),
    "process": ("dcnumd.commands.process:process", "Process files now, without daemon or ledger."),
    "report": ("dcnumd.commands.report:report", "Make the report of any processed file."),
    "check": ("dcnumd.commands.check:check", "Say whether the config is sound, and which pipeline it makes."),
    "models": ("dcnumd.commands.models:models", "List models for segmentation."),
    "status": ("dcnumd.commands.status:status", "Show what the daemon is doing."),
    "history": ("dcnumd.commands.history:history", "List what became of the last measurements."),
    "why": ("dcnumd.commands.ledger:why", "Tell the way of one file, and why it is where it is."),
    "retry": ("dcnumd.commands.ledger:retry", "Have files processed again."),
    "forget": ("dcnumd.commands.ledger:forget", "Remove files from the ledger."),
    "acknowledge": ("dcnumd.commands.ledger:acknowledge", "Say that failures and red lights have been seen."),
    "worker": ("dcnumd.commands.worker:worker", "Process the jobs of daemons, as a worker of a Dask cluster."),
    "install-service": (
        "dcnumd.commands.install_service:install_service",
        "Write a systemd service and its config for chosen folders.",
    ),
    "simulate": ("dcnumd.simulate.commands:simulate", "Write measurements as an instrument would."),
    "demo": ("dcnumd.simulate.commands:demo", "Show all of it in a temporary folder."),
    "completion": ("dcnumd.commands.completion:completion", "Print the script for completion in a shell."),
}
"""Import path of each command, and its description in the overview."""

ENVIRONMENT_FAULTS = codes_of("ledger")
"""Reason codes of errors in the environment rather than in a measurement; they give exit code 2."""


class LazyGroup(click.Group):
    """Group that imports a command only when it is called, which keeps the overview and small commands fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's signature
        """Return the names of the commands in the order of the overview."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 -- likewise
        """Import and return a command; return None if there is no command of this name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        return cast("click.Command", getattr(importlib.import_module(module), name))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name; suggest similar ones if there is none."""
        similar = difflib.get_close_matches(args[0].lower(), COMMANDS)
        if args[0] not in COMMANDS and similar:
            ctx.fail(f"No such command {args[0]!r}; did you mean {' or '.join(similar)}?")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Return completions of a command or an option; commands come from the table, without importing anything."""
        names = [CompletionItem(name, help=text) for name, (_, text) in COMMANDS.items() if name.startswith(incomplete)]
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 -- likewise
        """Write the overview from the table, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: dcnumd demo. Then: dcnumd process M001_data.rtdc, and dcnumd run -c config.toml. "
    "Exit codes: 0 done, 1 a measurement failed, 2 wrong usage or config.",
)
@click.version_option(__version__, "--version", prog_name="dcnumd")
def cli() -> None:
    """Process deformability-cytometry measurements beside the instrument, as dcnum would."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Parameters
    ----------
    arguments
        Arguments after ``dcnumd``; by default those of this process (``sys.argv[1:]``).

    Returns
    -------
    code
        0 done, 1 a measurement failed, 2 wrong usage or config.
    """
    # File names are bytes, and some cannot be encoded for this terminal; these characters are printed as escapes.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = cli.main(args=arguments, prog_name="dcnumd", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 1
    except DcnumdError as error:
        mistakes: list[str] = getattr(error, "__notes__", [])
        lines = [f"{len(mistakes)} mistakes in the config:", *mistakes] if mistakes else [error.message]
        click.echo("Error: " + "\n  ".join(lines), err=True)
        return 2 if isinstance(error, ConfigError) or error.reason in ENVIRONMENT_FAULTS else 1
    return code if isinstance(code, int) else 0
