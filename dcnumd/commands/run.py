"""The command `run`: the daemon."""

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
    # A watchdog ends a hanging process with SIGABRT; the traceback then shows where it hung.
    faulthandler.enable()
    logs.configure(settings.log)
    try:
        return run_daemon(settings, once=once)
    finally:
        # Whatever is printed after this must come after the last log line.
        logs.flush()
