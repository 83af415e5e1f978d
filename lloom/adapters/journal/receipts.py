"""Receipts: those a node issued, numbered on their lanes, and those it was given. It decides nothing and signs nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from typing import Final

from lloom.adapters.journal.words import amount, lane_key, number
from lloom.core.identity import NodeId
from lloom.core.messages import SignedReceipt
from lloom.core.receipt import Draft, Receipt, read_receipt

TABLES: Final = """
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


def issue(
    db: sqlite3.Connection, drafts: Iterable[Draft], sign: Callable[[Receipt], SignedReceipt]
) -> list[SignedReceipt]:
    """The receipts of `drafts` in their order, numbered on their lanes; a request that has one already gets that very one."""
    return [issued(db, draft.request_digest) or _number(db, draft, sign) for draft in drafts]


def issued(db: sqlite3.Connection, request: bytes) -> SignedReceipt | None:
    """The receipt of a request, None if it has none."""
    row = db.execute("SELECT receipt, signature FROM issued WHERE request = ?", (request,)).fetchone()
    return SignedReceipt(*row) if row else None


def keep(db: sqlite3.Connection, items: Iterable[tuple[NodeId, SignedReceipt]]) -> None:
    """Stores receipts by their executor and request; the first one counts. PeerFault if one is malformed."""
    db.executemany(
        "INSERT OR IGNORE INTO kept (executor, request, receipt, signature) VALUES (?, ?, ?, ?)",
        [(who, read_receipt(item.receipt).request_digest, item.receipt, item.signature) for who, item in items],
    )


def _number(db: sqlite3.Connection, draft: Draft, sign: Callable[[Receipt], SignedReceipt]) -> SignedReceipt:
    lane = lane_key(draft.lane)
    last = "SELECT seq, charged FROM issued WHERE lane = ? ORDER BY seq DESC LIMIT 1"
    seq, charged = db.execute(last, (lane,)).fetchone() or (0, b"")
    receipt = draft.numbered(seq + 1, number(charged))
    signed = sign(receipt)
    db.execute(
        "INSERT INTO issued (request, lane, seq, charged, receipt, signature) VALUES (?, ?, ?, ?, ?, ?)",
        (
            draft.request_digest,
            lane,
            receipt.lane_seq,
            amount(receipt.lane_charged),
            signed.receipt,
            signed.signature,
        ),
    )
    return signed
