"""What the keys of a gateway have used, by the day: a restart gives nobody a fresh budget. It knows no key, only names."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from lloom.adapters.journal import words
from lloom.core.allowance import MONTH

TABLES: Final = """
CREATE TABLE allowance (
    name TEXT NOT NULL,
    unit TEXT NOT NULL,
    day INTEGER NOT NULL,
    amount BLOB NOT NULL,
    PRIMARY KEY (name, unit, day)
) STRICT, WITHOUT ROWID;
"""
TOKENS: Final = "tokens"
"""The unit of what models read and write."""

Row = tuple[str, str, int, int]
"""A key's name, TOKENS or the unit of a coin (core/pocket), a day (since 1970, UTC), and all that the key has used of it then."""


def note(db: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """These are the newest totals; lower ones than are known came late. Days that no budget looks at any more are forgotten."""
    db.executemany(
        "INSERT INTO allowance (name, unit, day, amount) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (name, unit, day) DO UPDATE SET amount = max(amount, excluded.amount)",
        [(name, unit, day, words.amount(amount)) for name, unit, day, amount in rows],
    )
    db.execute("DELETE FROM allowance WHERE day <= ?", (max(day for _, _, day, _ in rows) - MONTH,))


def known(db: sqlite3.Connection) -> list[Row]:
    """All totals."""
    rows = db.execute("SELECT name, unit, day, amount FROM allowance")
    return [(name, unit, day, words.number(amount)) for name, unit, day, amount in rows]
