"""What a client saw of executors: sums by executor and model, and no word of what was asked or answered. It judges nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

import msgspec

from lloom.core.identity import NodeId
from lloom.core.reputation.evidence import Evidence
from lloom.core.reputation.reputations import Row

MAX_ROWS: Final = 10_000
"""About 200 bytes each; those of which nothing was heard for longest make room."""
TABLES: Final = """
CREATE TABLE evidence (
    executor BLOB NOT NULL,
    model    TEXT NOT NULL,
    at       REAL NOT NULL,
    sums     BLOB NOT NULL,
    PRIMARY KEY (executor, model)
) STRICT, WITHOUT ROWID;
CREATE INDEX evidence_at ON evidence (at);
"""

_decoder = msgspec.msgpack.Decoder(Evidence)


def keep(db: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """These are the newest totals, at Unix times."""
    db.executemany(
        "INSERT OR REPLACE INTO evidence (executor, model, at, sums) VALUES (?, ?, ?, ?)",
        [(row.executor, row.model, row.known.at, msgspec.msgpack.encode(row.known)) for row in rows],
    )
    db.execute(
        "DELETE FROM evidence WHERE at <= (SELECT at FROM evidence ORDER BY at DESC LIMIT 1 OFFSET ?)", (MAX_ROWS,)
    )


def known(db: sqlite3.Connection) -> list[Row]:
    """All totals, the oldest first."""
    rows = db.execute("SELECT executor, model, sums FROM evidence ORDER BY at")
    return [Row(NodeId(executor), model, _decoder.decode(sums)) for executor, model, sums in rows]
