"""Receipts: those a node issued, numbered on their lanes, and those it was given. It decides nothing and signs nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from typing import Final

from lloom.adapters.journal.words import amount, lane_key, number
from lloom.core.billing.receipt import RECEIPT, Draft, Receipt, read_receipt
from lloom.core.eip712 import WORD
from lloom.core.messages import SignedReceipt

_MODEL: Final = f"substr(receipt, {RECEIPT.members.index('model') * WORD + 1}, {WORD})"
"""Where a receipt's bytes name its model."""
TABLES: Final = f"""
CREATE TABLE issued (
    request   BLOB NOT NULL UNIQUE,
    lane      BLOB NOT NULL,
    seq       INTEGER NOT NULL,
    charged   BLOB NOT NULL,
    receipt   BLOB NOT NULL,
    signature BLOB NOT NULL,
    UNIQUE (lane, seq)
) STRICT;
CREATE INDEX issued_models ON issued (lane, {_MODEL});
CREATE TABLE kept (
    executor  BLOB NOT NULL,
    request   BLOB NOT NULL,
    receipt   BLOB NOT NULL,
    signature BLOB NOT NULL,
    UNIQUE (request, executor)
) STRICT;
"""


class Roll:
    """Numbers receipts on their lanes. It is good within one work only: where a lane stands is read once."""

    def __init__(self, db: sqlite3.Connection, sign: Callable[[Receipt], SignedReceipt]) -> None:
        self._db = db
        self._sign = sign
        self._last: dict[bytes, tuple[int, int]] = {}

    def enter(self, draft: Draft) -> SignedReceipt:
        """The receipt of a request that has none: the next one of its lane."""
        lane = lane_key(draft.lane)
        seq, charged = self._last.get(lane) or last(self._db, lane)
        receipt = draft.numbered(seq + 1, charged)
        signed = self._sign(receipt)
        self._db.execute(
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
        self._last[lane] = receipt.lane_seq, receipt.lane_charged
        return signed


def issue(
    db: sqlite3.Connection, drafts: Iterable[Draft], sign: Callable[[Receipt], SignedReceipt]
) -> list[SignedReceipt]:
    """The receipts of `drafts` in their order, numbered on their lanes; a request that has one already gets that very one."""
    roll = Roll(db, sign)
    return [issued(db, draft.request_digest) or roll.enter(draft) for draft in drafts]


def last(db: sqlite3.Connection, lane: bytes) -> tuple[int, int]:
    """Number and total of the last receipt of the lane with this key; zeros if it has none."""
    row = db.execute("SELECT seq, charged FROM issued WHERE lane = ? ORDER BY seq DESC LIMIT 1", (lane,)).fetchone()
    return (row[0], number(row[1])) if row else (0, 0)


def issued(db: sqlite3.Connection, request: bytes) -> SignedReceipt | None:
    """The receipt of a request, None if it has none."""
    row = db.execute("SELECT receipt, signature FROM issued WHERE request = ?", (request,)).fetchone()
    return SignedReceipt(*row) if row else None


def served(db: sqlite3.Connection, lane: bytes, model: bytes) -> bool:
    """Whether a receipt of the lane is of this model (its hash)."""
    query = f"SELECT 1 FROM issued WHERE lane = ? AND {_MODEL} = ? LIMIT 1"  # noqa: S608
    return db.execute(query, (lane, model)).fetchone() is not None


def keep(db: sqlite3.Connection, items: Iterable[tuple[bytes, SignedReceipt]]) -> list[Receipt]:
    """Stores receipts by their executor and request, the first one of each; returns those. PeerFault if one is malformed."""
    store = "INSERT OR IGNORE INTO kept (executor, request, receipt, signature) VALUES (?, ?, ?, ?)"
    stored = []
    for executor, signed in items:
        receipt = read_receipt(signed.receipt)
        row = (executor, receipt.request_digest, signed.receipt, signed.signature)
        if db.execute(store, row).rowcount:
            stored.append(receipt)
    return stored
