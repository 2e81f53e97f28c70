"""Opening the ledger in the daemon, with recovery from damage."""

from __future__ import annotations

import pathlib
import sqlite3

import structlog

from dcnumd.daemon.ledger.store import Ledger, ledger_path
from dcnumd.errors import DcnumdError

log = structlog.get_logger()


def open_ledger(folder: pathlib.Path) -> Ledger:
    """Open the ledger in a folder and check that it is writable; set a damaged ledger aside and begin a new one.

    Only the daemon that owns the folder may call this.

    Raises
    ------
    DcnumdError
        If the ledger cannot be used.
    """
    try:
        ledger = Ledger.open(folder)
    except DcnumdError as error:
        if error.reason != "ledger_damaged":
            raise
        ledger, aside = Ledger.repaired(folder)
        log.warning("ledger.damaged", path=str(ledger_path(folder)), set_aside=str(aside), error=error.message)
    try:
        ledger.touch()
    except sqlite3.Error as error:
        ledger.close()
        raise DcnumdError(f"{ledger_path(folder)}: the ledger cannot be written: {error}", "ledger") from error
    return ledger
