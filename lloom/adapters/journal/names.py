"""The models whose hashes stand in receipts, by name. It holds no receipt."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final

from lloom.core.billing.quote import model_hash

TABLES: Final = """
CREATE TABLE model (
    hash BLOB PRIMARY KEY,
    name TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""


def learn(db: sqlite3.Connection, names: Iterable[str]) -> None:
    """From now on these canonical ids are known."""
    db.executemany(
        "INSERT OR IGNORE INTO model (hash, name) VALUES (?, ?)", [(model_hash(each), each) for each in names]
    )


def known(db: sqlite3.Connection) -> dict[bytes, str]:
    """Every known name by its hash."""
    return dict(db.execute("SELECT hash, name FROM model").fetchall())
