"""The journal of receipts in SQLite: what a node issued and what it was given. It never decides what is owed, and never signs.

What `commit` returned is on the disk: WAL with `synchronous=FULL`, so a kill or a power cut at any point loses nothing that was
returned and leaves no half of anything. One process at a time (file lock), one thread at a time (the one that opened it).
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from loguru import logger

from lloom.core.errors import ConfigError, RetryElsewhere
from lloom.core.identity import NodeId
from lloom.core.messages import SignedReceipt
from lloom.core.receipt import Draft, Lane, Receipt, read_receipt

T = TypeVar("T")
Work = Callable[["Journal"], T]
"""One caller's share of a commit."""

SCHEMA: Final = 1
_AMOUNT_BYTES: Final = 16
_APPLICATION_ID: Final = 0x4C6C6F6D
"""Marks the file as Lloom's (SQLite, PRAGMA application_id)."""
_PASSING: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY})
"""Errors that pass once somebody makes room or another program lets go of the file."""

# Amounts are 16-byte and lanes 48-byte blobs, as SQLite's integers have 63 bits and a sign.
_TABLES: Final = """
CREATE TABLE issued (
    request   BLOB NOT NULL UNIQUE,
    lane      BLOB NOT NULL,
    seq       INTEGER NOT NULL,
    charged   BLOB NOT NULL,
    receipt   BLOB NOT NULL,
    signature BLOB NOT NULL,
    UNIQUE (lane, seq)
) STRICT;
CREATE TABLE kept (
    executor  BLOB NOT NULL,
    request   BLOB NOT NULL,
    receipt   BLOB NOT NULL,
    signature BLOB NOT NULL,
    UNIQUE (request, executor)
) STRICT;
"""


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

    def issue(self, drafts: Iterable[Draft], sign: Callable[[Receipt], SignedReceipt]) -> list[SignedReceipt]:
        """The receipts of `drafts` in their order, numbered on their lanes; a request that has one already gets that very one."""
        return [self._issued(draft.request_digest) or self._number(draft, sign) for draft in drafts]

    def keep(self, items: Iterable[tuple[NodeId, SignedReceipt]]) -> None:
        """Stores receipts by their executor and request; the first one counts. PeerFault if one is malformed."""
        self._db.executemany(
            "INSERT OR IGNORE INTO kept (executor, request, receipt, signature) VALUES (?, ?, ?, ?)",
            [(who, read_receipt(item.receipt).request_digest, item.receipt, item.signature) for who, item in items],
        )

    def close(self) -> None:
        """Closes the file and lets another process have it."""
        self._db.close()
        os.close(self._lock)

    def _issued(self, request: bytes) -> SignedReceipt | None:
        row = self._db.execute("SELECT receipt, signature FROM issued WHERE request = ?", (request,)).fetchone()
        return SignedReceipt(*row) if row else None

    def _number(self, draft: Draft, sign: Callable[[Receipt], SignedReceipt]) -> SignedReceipt:
        lane = _lane_key(draft.lane)
        last = "SELECT seq, charged FROM issued WHERE lane = ? ORDER BY seq DESC LIMIT 1"
        seq, charged = self._db.execute(last, (lane,)).fetchone() or (0, b"")
        receipt = draft.numbered(seq + 1, int.from_bytes(charged, "big"))
        signed = sign(receipt)
        total = receipt.lane_charged.to_bytes(_AMOUNT_BYTES, "big")
        self._db.execute(
            "INSERT INTO issued (request, lane, seq, charged, receipt, signature) VALUES (?, ?, ?, ?, ?, ?)",
            (draft.request_digest, lane, receipt.lane_seq, total, signed.receipt, signed.signature),
        )
        return signed

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
            result = work(self)
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


def _lane_key(lane: Lane) -> bytes:
    return lane.client + lane.token + lane.number.to_bytes(8, "big")
