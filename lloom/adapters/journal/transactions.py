"""What is sent to a chain: jobs, and every transaction that was signed for them. It decides nothing.

A job is one call of the contract that has to arrive once. Its transactions all have its nonce and differ in fees; each is on the
disk before it is broadcast.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from enum import IntEnum
from typing import Final

from msgspec import Struct

from lloom.adapters.journal.words import amount, number, signed, unsigned
from lloom.core.billing.lane import Lane
from lloom.core.payment.fees import Fees

TABLES: Final = """
CREATE TABLE txjob (
    job       INTEGER PRIMARY KEY AUTOINCREMENT,
    contract  BLOB NOT NULL,
    data      BLOB NOT NULL,
    state     INTEGER NOT NULL,
    nonce     INTEGER,
    gas       INTEGER NOT NULL,
    worth     BLOB NOT NULL,
    failures  INTEGER NOT NULL,
    note      TEXT NOT NULL
) STRICT;
CREATE INDEX txjob_state ON txjob (state);
CREATE TABLE batch (
    job        INTEGER NOT NULL,
    client     BLOB NOT NULL,
    token      BLOB NOT NULL,
    lane       INTEGER NOT NULL,
    cumulative BLOB NOT NULL
) STRICT;
CREATE INDEX batch_job ON batch (job);
CREATE TABLE txhash (
    hash   BLOB PRIMARY KEY,
    job    INTEGER NOT NULL,
    nonce  INTEGER NOT NULL,
    raw    BLOB NOT NULL,
    most   BLOB NOT NULL,
    tip    BLOB NOT NULL,
    height INTEGER NOT NULL,
    at     REAL NOT NULL
) STRICT;
CREATE INDEX txhash_job ON txhash (job);
"""


class State(IntEnum):
    """Where a job stands."""

    WAITING = 0
    """It has no nonce yet, or not any more."""
    SENT = 1
    """Signed, on the disk, and perhaps broadcast, perhaps mined; not final."""
    DONE = 2
    """Its transaction is final."""
    DROPPED = 3
    """It was not worth sending, or failed again and again."""


_OPEN: Final = (State.WAITING, State.SENT)


class Job(Struct, frozen=True):
    """`worth`: what it brings beyond the fee for its bytes, in smallest units of the coin, as far as that was looked up."""

    number: int
    contract: bytes
    data: bytes
    state: State
    nonce: int | None
    gas: int
    worth: int
    failures: int


class Attempt(Struct, frozen=True):
    """One signed transaction of a job. `height` and `at`: the newest block and Unix seconds when it was signed."""

    hash: bytes
    nonce: int
    raw: bytes
    fees: Fees
    height: int
    at: float


Claim = tuple[Lane, int]
"""A lane and what is claimed on it in all."""


def add(db: sqlite3.Connection, contract: bytes, data: bytes, claims: Iterable[Claim]) -> int:
    """A new job, by its number."""
    row = db.execute(
        "INSERT INTO txjob (contract, data, state, nonce, gas, worth, failures, note) VALUES (?, ?, ?, NULL, 0, ?, 0, '')",
        (contract, data, State.WAITING, amount(0)),
    )
    assert row.lastrowid is not None
    db.executemany(
        "INSERT INTO batch (job, client, token, lane, cumulative) VALUES (?, ?, ?, ?, ?)",
        [(row.lastrowid, lane.client, lane.token, signed(lane.number), amount(total)) for lane, total in claims],
    )
    return row.lastrowid


def unfinished(db: sqlite3.Connection) -> list[Job]:
    """The jobs that are neither done nor dropped, oldest first."""
    rows = db.execute(
        "SELECT job, contract, data, state, nonce, gas, worth, failures FROM txjob WHERE state IN (?, ?) ORDER BY job",
        _OPEN,
    )
    return [Job(row[0], row[1], row[2], State(row[3]), row[4], row[5], number(row[6]), row[7]) for row in rows]


def claims(db: sqlite3.Connection) -> list[Claim]:
    """What the unfinished jobs claim."""
    rows = db.execute(
        "SELECT client, token, lane, cumulative FROM batch NATURAL JOIN txjob WHERE state IN (?, ?)",
        _OPEN,
    )
    return [(Lane(client, token, unsigned(lane)), number(total)) for client, token, lane, total in rows]


def attempts(db: sqlite3.Connection, job: int) -> list[Attempt]:
    """Every transaction that was signed for a job, oldest first."""
    rows = db.execute("SELECT hash, nonce, raw, most, tip, height, at FROM txhash WHERE job = ? ORDER BY rowid", (job,))
    return [
        Attempt(hash_, nonce, raw, Fees(number(most), number(tip)), height, at)
        for hash_, nonce, raw, most, tip, height, at in rows
    ]


def nonces(db: sqlite3.Connection) -> tuple[set[int], int]:
    """The nonces of jobs that were sent and are not final, and the one after the last that is."""
    held = {nonce for (nonce,) in db.execute("SELECT nonce FROM txjob WHERE state = ?", (State.SENT,))}
    (last,) = db.execute("SELECT max(nonce) FROM txjob WHERE state = ?", (State.DONE,)).fetchone()
    return held, 0 if last is None else last + 1


def sign(db: sqlite3.Connection, job: Job, attempt: Attempt) -> None:
    """Keeps a signed transaction and all that its job needs from now on: before it is broadcast."""
    db.execute(
        "UPDATE txjob SET state = ?, nonce = ?, gas = ?, worth = ? WHERE job = ?",
        (State.SENT, attempt.nonce, job.gas, amount(job.worth), job.number),
    )
    db.execute(
        "INSERT OR IGNORE INTO txhash (hash, job, nonce, raw, most, tip, height, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            attempt.hash,
            job.number,
            attempt.nonce,
            attempt.raw,
            amount(attempt.fees.most),
            amount(attempt.fees.tip),
            attempt.height,
            attempt.at,
        ),
    )


def again(db: sqlite3.Connection, job: int, note: str, *, failed: bool) -> None:
    """Has a job sent anew, with another nonce; its old transactions are still watched."""
    db.execute(
        "UPDATE txjob SET state = ?, nonce = NULL, failures = failures + ?, note = ? WHERE job = ?",
        (State.WAITING, int(failed), note, job),
    )


def finish(db: sqlite3.Connection, job: int, state: State, note: str) -> None:
    """Ends a job. What was only needed to send it again is given up; hashes stay."""
    db.execute("UPDATE txjob SET state = ?, note = ?, data = x'' WHERE job = ?", (state, note, job))
    db.execute("UPDATE txhash SET raw = x'' WHERE job = ?", (job,))


def ended(db: sqlite3.Connection, job: int) -> tuple[State, str]:
    """State and note of a job."""
    state, note = db.execute("SELECT state, note FROM txjob WHERE job = ?", (job,)).fetchone()
    return State(state), note


def forget(db: sqlite3.Connection) -> None:
    """Drops everything: another chain has taken the place of the one it was meant for."""
    db.execute("UPDATE txjob SET state = ?, note = 'another chain' WHERE state IN (?, ?)", (State.DROPPED, *_OPEN))
    db.execute("UPDATE txjob SET nonce = NULL")
    db.execute("DELETE FROM txhash")
