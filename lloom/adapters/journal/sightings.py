"""What was seen of a chain: facts, blocks, and the contract's logs, as long as they may be taken back. It decides nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Struct

from lloom.core.payment.events import Block

TABLES: Final = """
CREATE TABLE block (
    number INTEGER PRIMARY KEY,
    hash   BLOB NOT NULL,
    time   INTEGER NOT NULL
) STRICT;
CREATE TABLE log (
    number INTEGER NOT NULL,
    hash   BLOB NOT NULL,
    time   INTEGER NOT NULL,
    place  INTEGER NOT NULL,
    tx     BLOB NOT NULL,
    topics BLOB NOT NULL,
    data   BLOB NOT NULL,
    PRIMARY KEY (hash, place)
) STRICT;
CREATE TABLE fact (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;
"""


class Log(Struct, frozen=True):
    """A log of the contract, as it was fetched."""

    block: Block
    index: int
    transaction: bytes
    topics: bytes
    """32 bytes each."""
    data: bytes


def facts(db: sqlite3.Connection) -> dict[str, bytes]:
    """What was noted of the chain."""
    return dict(db.execute("SELECT name, value FROM fact"))


def note(db: sqlite3.Connection, name: str, value: bytes) -> None:
    """Notes a fact, in place of an earlier one."""
    db.execute("INSERT OR REPLACE INTO fact (name, value) VALUES (?, ?)", (name, value))


def blocks(db: sqlite3.Connection) -> list[Block]:
    """The blocks that were looked at and may still be needed, lowest first."""
    return [Block(*row) for row in db.execute("SELECT number, hash, time FROM block ORDER BY number")]


def logs(db: sqlite3.Connection) -> list[Log]:
    """The logs that are kept, in the chain's order."""
    rows = db.execute("SELECT number, hash, time, place, tx, topics, data FROM log ORDER BY number, place")
    return [Log(Block(row[0], row[1], row[2]), *row[3:]) for row in rows]


def keep(db: sqlite3.Connection, block: Block, found: Sequence[Log]) -> None:
    """Goes on to `block`, with the logs up to it."""
    db.execute(
        "INSERT OR REPLACE INTO block (number, hash, time) VALUES (?, ?, ?)", (block.number, block.hash, block.time)
    )
    db.executemany(
        "INSERT OR REPLACE INTO log (number, hash, time, place, tx, topics, data) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (log.block.number, log.block.hash, log.block.time, log.index, log.transaction, log.topics, log.data)
            for log in found
        ],
    )


def take_back(db: sqlite3.Connection, above: int) -> None:
    """Forgets blocks and logs with a larger number."""
    db.execute("DELETE FROM block WHERE number > ?", (above,))
    db.execute("DELETE FROM log WHERE number > ?", (above,))


def remove(db: sqlite3.Connection, found: Iterable[Log]) -> None:
    """Forgets these logs."""
    db.executemany("DELETE FROM log WHERE hash = ? AND place = ?", [(log.block.hash, log.index) for log in found])


def prune(db: sqlite3.Connection, lowest_block: int, lowest_log: int) -> None:
    """Forgets blocks and logs with smaller numbers."""
    db.execute("DELETE FROM block WHERE number < ?", (lowest_block,))
    db.execute("DELETE FROM log WHERE number < ?", (lowest_log,))


def forget(db: sqlite3.Connection) -> None:
    """Forgets everything: it was another chain, or another contract."""
    for table in ("block", "log", "fact"):
        db.execute(f"DELETE FROM {table}")  # noqa: S608 (a name of ours)
