"""What the keys of a gateway have used, by the day: a restart gives nobody a fresh budget. It knows no key, only names."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from lloom.core.allowance import MONTH

TABLES: Final = """
CREATE TABLE allowance (
    name TEXT NOT NULL,
    day INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    PRIMARY KEY (name, day)
) STRICT, WITHOUT ROWID;
"""

Row = tuple[str, int, int]
"""A key's name, a day (since 1970, UTC), and all tokens that the key has used on it."""


def note(db: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """These are the newest totals; lower ones than are known came late. Days that no budget looks at any more are forgotten."""
    db.executemany(
        "INSERT INTO allowance (name, day, tokens) VALUES (?, ?, ?) "
        "ON CONFLICT (name, day) DO UPDATE SET tokens = max(tokens, excluded.tokens)",
        rows,
    )
    db.execute("DELETE FROM allowance WHERE day <= ?", (max(day for _, day, _ in rows) - MONTH,))


def known(db: sqlite3.Connection) -> list[Row]:
    """All totals."""
    return db.execute("SELECT name, day, tokens FROM allowance").fetchall()
