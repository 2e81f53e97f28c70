"""The tables of the ledger, and the migration of older ledgers."""

from __future__ import annotations

import pathlib
import sqlite3

from dcnumd.errors import DcnumdError

# Item n migrates schema version n to n + 1; released items are never edited. A column that an item adds to the
# table of measurements is a field of `Entry` with the same default.
MIGRATIONS = (
    """
    -- AUTOINCREMENT: the number of a forgotten row must not come to mean another one to a running daemon.
    CREATE TABLE measurements (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        path TEXT NOT NULL,
        state TEXT NOT NULL,
        size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, inode INTEGER,
        settings_key TEXT,
        content_size INTEGER, md5_5m TEXT, identifier TEXT,
        ppid TEXT, pphash TEXT,
        job_id TEXT NOT NULL,
        reason TEXT NOT NULL DEFAULT '', error TEXT NOT NULL DEFAULT '',
        attempts INTEGER NOT NULL DEFAULT 0,
        replace_output INTEGER NOT NULL DEFAULT 0,
        output TEXT,
        frames INTEGER, frames_done INTEGER, events INTEGER, seconds REAL,
        seen_at TEXT NOT NULL, settled_at TEXT, started_at TEXT, finished_at TEXT,
        changed_at TEXT NOT NULL, revision INTEGER NOT NULL DEFAULT 0
    );
    CREATE UNIQUE INDEX by_content ON measurements (path, content_size, md5_5m, identifier, pphash)
        WHERE md5_5m IS NOT NULL;
    CREATE UNIQUE INDEX by_path_unknown ON measurements (path) WHERE md5_5m IS NULL;
    CREATE INDEX by_path ON measurements (path, revision);
    CREATE INDEX by_state ON measurements (state, revision);
    CREATE INDEX by_revision ON measurements (revision);
    CREATE INDEX by_output ON measurements (output);
    CREATE TABLE transitions (
        id INTEGER PRIMARY KEY,
        measurement INTEGER NOT NULL REFERENCES measurements (id) ON DELETE CASCADE,
        time TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, error TEXT NOT NULL
    );
    CREATE INDEX by_measurement ON transitions (measurement);
    """,
    """
    -- Where a folder was mounted when it was last seen: an empty mount point is not an empty folder.
    CREATE TABLE places (path TEXT PRIMARY KEY, place TEXT NOT NULL);
    -- Folders in which a killed process may have left something of its own.
    CREATE TABLE untidy (folder TEXT PRIMARY KEY);
    """,
    """
    -- What people see: the sample, and the report with its traffic light.
    ALTER TABLE measurements ADD COLUMN sample TEXT NOT NULL DEFAULT '';
    ALTER TABLE measurements ADD COLUMN light TEXT NOT NULL DEFAULT '';
    ALTER TABLE measurements ADD COLUMN warnings TEXT NOT NULL DEFAULT '';
    ALTER TABLE measurements ADD COLUMN report TEXT;
    ALTER TABLE measurements ADD COLUMN report_state TEXT NOT NULL DEFAULT '';
    CREATE INDEX by_wanted_report ON measurements (finished_at) WHERE report_state = 'wanted';
    CREATE INDEX by_end ON measurements (finished_at, revision) WHERE finished_at IS NOT NULL;
    """,
    """
    -- A content is more than the first bytes of a file.
    ALTER TABLE measurements ADD COLUMN digest TEXT NOT NULL DEFAULT '';
    DROP INDEX by_content;
    CREATE UNIQUE INDEX by_content ON measurements (path, content_size, md5_5m, identifier, digest, pphash)
        WHERE md5_5m IS NOT NULL;
    """,
    """
    -- What somebody has seen: earlier failures and red lights are not shown in the headline any more.
    CREATE TABLE acknowledged (time TEXT NOT NULL);
    INSERT INTO acknowledged (time) VALUES (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'));
    CREATE INDEX by_red ON measurements (finished_at) WHERE light = 'red';
    """,
    """
    -- Whether the recording was interrupted, so that only the frames that all features have are processed.
    ALTER TABLE measurements ADD COLUMN interrupted INTEGER NOT NULL DEFAULT 0;
    """,
)


def migrate(connection: sqlite3.Connection, path: pathlib.Path) -> None:
    """Migrate the tables to the current version, with a separate transaction for each step.

    Raises
    ------
    DcnumdError
        If the ledger was written by a newer dcnumd.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        raise DcnumdError(
            f"{path}: the ledger has version {version}, this dcnumd knows up to {len(MIGRATIONS)}; update dcnumd",
            "ledger",
        )
    for number in range(version, len(MIGRATIONS)):
        connection.executescript(f"BEGIN IMMEDIATE; {MIGRATIONS[number]} PRAGMA user_version = {number + 1}; COMMIT;")
