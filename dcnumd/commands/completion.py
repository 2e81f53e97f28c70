"""The command `completion`: the script that lets a shell complete commands, options and files."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_DCNUMD_COMPLETE"
"""Environment variable by which the shell asks the program for completions."""


@click.command(epilog='Example: eval "$(dcnumd completion bash)"')
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script by which a SHELL completes commands, options, values and files.

    To have it in each new shell, for yourself:

    \b
    bash  dcnumd completion bash > ~/.local/share/bash-completion/completions/dcnumd
    zsh   dcnumd completion zsh > "${fpath[1]}/_dcnumd"
    fish  dcnumd completion fish > ~/.config/fish/completions/dcnumd.fish

    The folder must exist. bash needs its package bash-completion for that; without it, add the example below to
    ~/.bashrc.
    """  # noqa: D301 -- \b is click's marker for lines that are not rewrapped
    kind = get_completion_class(shell)
    if kind is None:
        raise AssertionError("click knows the shells above")
    click.echo(kind(context.find_root().command, {}, "dcnumd", VARIABLE).source(), nl=False)
