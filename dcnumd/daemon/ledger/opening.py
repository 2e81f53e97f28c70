"""How the daemon opens its ledger, whatever has become of it."""

from __future__ import annotations

import pathlib
import sqlite3

import structlog

from dcnumd.daemon.ledger.store import Ledger, ledger_path
from dcnumd.errors import DcnumdError

log = structlog.get_logger()


def open_ledger(folder: pathlib.Path) -> Ledger:
    """Open the ledger in a folder, and make sure that it can be written; a damaged one is set aside first.

    Only the daemon that owns the folder may do so.

    Raises
    ------
    DcnumdError
        It cannot be used.
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
