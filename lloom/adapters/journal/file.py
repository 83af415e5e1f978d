"""A journal: one SQLite file in which nothing is lost. What its tables mean, the modules beside this one know.

What `commit` returned is on the disk: WAL with `synchronous=FULL`, so a kill or a power cut at any point loses nothing that was
returned and leaves no half of anything. One process at a time (file lock), one thread at a time (the one that opened it).
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from loguru import logger

from lloom.adapters.journal import allowances, evidence, lanes, names, payables, receipts, sightings, transactions
from lloom.core.errors import ConfigError, RetryElsewhere

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
"""One caller's share of a commit."""

SCHEMA: Final = 5
_TABLES: Final = (
    receipts.TABLES
    + lanes.TABLES
    + payables.TABLES
    + transactions.TABLES
    + sightings.TABLES
    + names.TABLES
    + allowances.TABLES
    + evidence.TABLES
)
_APPLICATION_ID: Final = 0x4C6C6F6D
"""Marks the file as Lloom's (SQLite, PRAGMA application_id)."""
_PASSING: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY})
"""Errors that pass once somebody makes room or another program lets go of the file."""


class Journal:
    """An open journal. Every read and write happens within `commit`."""

    def __init__(self, path: Path) -> None:
        """Opens or creates the file (0600); ConfigError says why it cannot be used."""
        self.path = path
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _lock(path)
        except OSError as error:
            raise ConfigError(f"The journal {path} cannot be opened: {error.strerror}.") from error
        try:
            self._db = _connect(path)
        except BaseException:
            os.close(self._lock)
            raise

    def commit(self, works: Sequence[Work[Any]]) -> list[Any]:
        """Does all works in one transaction; what each returned or raised (an Exception), once it is all on the disk.

        A work that raises leaves no trace and does not disturb the others. RetryElsewhere if nothing can be written for now;
        sqlite3.Error if the journal itself failed: close it.
        """
        try:
            return self._transaction(works)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _PASSING:
                raise
            logger.error("{} cannot be written: {}. No receipt leaves until it can.", self.path, error)
            raise RetryElsewhere(
                f"The journal cannot be written: {error}.", status=503, code="journal_stuck", retry_after=1
            ) from error

    def close(self) -> None:
        """Closes the file and lets another process have it."""
        self._db.close()
        os.close(self._lock)

    def _transaction(self, works: Sequence[Work[Any]]) -> list[Any]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            results = [self._attempt(work) for work in works]
            self._db.execute("COMMIT")
        except BaseException:
            # After a full disk SQLite may have rolled back by itself.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return results

    def _attempt(self, work: Work[Any]) -> Any:
        self._db.execute("SAVEPOINT work")
        try:
            result = work(self._db)
        except sqlite3.Error:
            raise
        except Exception as error:  # noqa: BLE001 - it is handed to the caller whose work it was
            self._db.execute("ROLLBACK TO work")
            result = error
        self._db.execute("RELEASE work")
        return result


def _lock(path: Path) -> int:
    """The descriptor that holds the lock, on a file of its own: closing one of SQLite's descriptors would drop SQLite's locks."""
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace") or "(just starting)"
        os.close(descriptor)
        raise ConfigError(
            f"The journal {path} is in use by process {holder}: stop that node, or give this one another home."
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def _connect(path: Path) -> sqlite3.Connection:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # before SQLite makes it readable to others
        path.chmod(0o600)
        db = sqlite3.connect(path, isolation_level=None)
        try:
            _prepare(db, path)
        except BaseException:
            db.close()
            raise
    except OSError as error:
        raise ConfigError(f"The journal {path} cannot be opened: {error.strerror}.") from error
    except sqlite3.Error as error:
        raise ConfigError(f"The journal {path} cannot be used: {error}.") from error
    return db


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise ConfigError(f"The journal {path} lies on a file system that cannot hold it safely (no WAL): move it.")
    db.execute("PRAGMA synchronous = FULL")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version == 0:
        db.executescript(
            f"BEGIN IMMEDIATE; {_TABLES} PRAGMA application_id = {_APPLICATION_ID}; PRAGMA user_version = {SCHEMA}; COMMIT;"
        )
    elif version != SCHEMA or db.execute("PRAGMA application_id").fetchone() != (_APPLICATION_ID,):
        raise ConfigError(f"The journal {path} was written by another version of Lloom (form {version}, not {SCHEMA}).")
