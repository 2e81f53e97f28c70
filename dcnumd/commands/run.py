"""The command `run`."""

from __future__ import annotations

import faulthandler

import click

from dcnumd.commands.options import with_settings
from dcnumd.config.values import Settings
from dcnumd.daemon import logs
from dcnumd.daemon.supervisor import run_daemon


@click.command(epilog="Example: dcnumd run -c config.toml --set watch.folders=\"['/srv/acquisition']\"")
@click.option("--once", is_flag=True, help="Deal with everything that is there now, then exit (1 if any failed).")
@with_settings(config_needed=True)
def run(settings: Settings, once: bool) -> int:
    """Watch folders and process what is recorded, until SIGTERM or Ctrl-C.

    The log goes to stderr: one line, one event; coloured text on a terminal, JSON elsewhere. A first signal asks
    for the end and puts the running measurement back; a second one forces it.
    """
    # A watchdog ends a process that hangs with SIGABRT; this says where it hung.
    faulthandler.enable()
    logs.configure(settings.log)
    try:
        return run_daemon(settings, once=once)
    finally:
        # What is said after this is to come after it.
        logs.flush()
