"""A client's lanes: how far it may sign, what it accepted and what not. What may be promised, core/payment/promises.py says."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from lloom.adapters.journal import receipts
from lloom.adapters.journal.words import amount, number, signed
from lloom.core.billing.receipt import Receipt, Status
from lloom.core.messages import Usage
from lloom.core.payment.payable import Judged, LaneEntry, plus
from lloom.core.payment.promises import Ask, Raised, Totals, allow
from lloom.core.settings import AccountingSettings

TABLES: Final = """
CREATE TABLE payable (
    id       INTEGER PRIMARY KEY,
    executor BLOB NOT NULL,
    token    BLOB NOT NULL,
    number   INTEGER NOT NULL,
    ceiling  BLOB NOT NULL,
    accepted BLOB NOT NULL,
    claimed  BLOB NOT NULL,
    seq      INTEGER NOT NULL,
    charged  BLOB NOT NULL,
    left_out BLOB NOT NULL,
    raised   INTEGER NOT NULL,
    UNIQUE (executor, token, number)
) STRICT;
CREATE TABLE accepted_usage (
    lane     INTEGER NOT NULL REFERENCES payable,
    model    BLOB NOT NULL,
    input    INTEGER NOT NULL,
    output   INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    PRIMARY KEY (lane, model)
) STRICT;
CREATE TABLE promised (
    token  BLOB NOT NULL,
    hour   INTEGER NOT NULL,
    amount BLOB NOT NULL,
    PRIMARY KEY (token, hour)
) STRICT;
CREATE TABLE owing (
    token  BLOB PRIMARY KEY,
    amount BLOB NOT NULL
) STRICT;
CREATE TABLE disputed (
    executor  BLOB NOT NULL,
    token     BLOB NOT NULL,
    number    INTEGER NOT NULL,
    receipt   BLOB NOT NULL,
    signature BLOB NOT NULL,
    problem   TEXT NOT NULL,
    at        INTEGER NOT NULL,
    UNIQUE (receipt, executor)
) STRICT;
"""
HOUR: Final = 3600
DAY: Final = 24 * HOUR
_NOTHING: Final = amount(0)


def lane(db: sqlite3.Connection, executor: bytes, token: bytes) -> LaneEntry | None:
    """The latest lane to `executor`; None if there is none yet."""
    row = db.execute(
        "SELECT id, number, ceiling, accepted, seq, charged, left_out FROM payable"
        " WHERE executor = ? AND token = ? ORDER BY id DESC LIMIT 1",
        (executor, token),
    ).fetchone()
    if row is None:
        return None
    key, lane_number, ceiling, accepted, seq, charged, left_out = row
    usages = db.execute("SELECT model, input, output, requests FROM accepted_usage WHERE lane = ?", (key,))
    return LaneEntry(
        number=lane_number,
        ceiling=number(ceiling),
        accepted=number(accepted),
        usages=tuple(Usage(*usage) for usage in usages),
        seq=seq,
        charged=number(charged),
        left_out=tuple(msgspec.msgpack.decode(left_out)),
    )


def adopt(db: sqlite3.Connection, executor: bytes, token: bytes, entry: LaneEntry, now: int) -> LaneEntry:
    """Begins a lane at `entry`; one that is there already stays as it is, and is returned."""
    if _key(db, executor, token, entry.number) is None:
        cursor = db.execute(
            "INSERT INTO payable (executor, token, number, ceiling, accepted, claimed, seq, charged, left_out, raised)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                executor,
                token,
                entry.number,
                amount(entry.ceiling),
                amount(entry.accepted),
                _NOTHING,
                entry.seq,
                amount(entry.charged),
                msgspec.msgpack.encode(entry.left_out),
                now,
            ),
        )
        _save_usages(db, int(cursor.lastrowid or 0), entry.usages)
        _owe(db, token, entry.ceiling)
    found = lane(db, executor, token)
    assert found is not None
    return found


def raise_ceiling(
    db: sqlite3.Connection, token: bytes, ask: Ask, available: int | None, settings: AccountingSettings, now: int
) -> Raised:
    """The ceiling that is good from now on; as much of what is asked for as all limits allow."""
    key = _key(db, ask.executor, token, ask.number)
    if key is None:
        adopt(db, ask.executor, token, LaneEntry(ask.number), now)
        key = _key(db, ask.executor, token, ask.number)
    row = db.execute("SELECT ceiling, accepted, claimed FROM payable WHERE id = ?", (key,)).fetchone()
    ceiling, accepted, paid = map(number, row)
    raised = allow(ask, ceiling, accepted == 0, totals(db, token, now, key), available, settings)
    if raised.ceiling > ceiling:
        db.execute("UPDATE payable SET ceiling = ?, raised = ? WHERE id = ?", (amount(raised.ceiling), now, key))
        _promise(db, token, raised.ceiling - ceiling, now)
        _owe(db, token, max(0, raised.ceiling - paid) - max(0, ceiling - paid))
    return raised


def totals(db: sqlite3.Connection, token: bytes, now: int, key: int | None = None) -> Totals:
    """What is promised in `token` over all lanes. `key`: one that is about to be raised, so that all of it is of today."""
    newcomers = db.execute(
        "SELECT ceiling FROM payable WHERE token = ? AND accepted = ? AND (raised > ? OR id = ?)",
        (token, _NOTHING, now - DAY, key),
    )
    recent = db.execute("SELECT amount FROM promised WHERE token = ? AND hour > ?", (token, (now - DAY) // HOUR - 1))
    return Totals(_sum(newcomers), _sum(recent), _owing(db, token))


def keep(db: sqlite3.Connection, token: bytes, items: Iterable[Judged], now: int) -> None:
    """Stores receipts and what became of them, each once, however often it is told. PeerFault if one is malformed."""
    by_lane: dict[tuple[bytes, int], list[Judged]] = defaultdict(list)
    for item in items:
        by_lane[item.executor, item.number].append(item)
    for (executor, lane_number), judged in by_lane.items():
        _dispute(db, token, (item for item in judged if item.problem), now)
        accepted = receipts.keep(db, ((executor, item.signed) for item in judged if not item.problem))
        key = _key(db, executor, token, lane_number)
        if key is not None:  # else the file was lost: the executor's account is taken over when it is asked next
            _move(db, key, judged, sum(receipt.cost for receipt in accepted))
            _use(db, key, accepted)


def claimed(db: sqlite3.Connection, executor: bytes, token: bytes, lane_number: int, paid: int) -> None:
    """The contract has paid so much on a lane: that is owed no more."""
    # Another program with our key may have lanes of any 64 bits: those are none of ours.
    row = db.execute(
        "SELECT id, ceiling, claimed FROM payable WHERE executor = ? AND token = ? AND number = ?",
        (executor, token, signed(lane_number)),
    ).fetchone()
    if row is None:
        return
    key, ceiling, before = row[0], number(row[1]), number(row[2])
    db.execute("UPDATE payable SET claimed = ? WHERE id = ?", (amount(paid), key))
    _owe(db, token, max(0, ceiling - paid) - max(0, ceiling - before))


def _move(db: sqlite3.Connection, key: int, judged: Sequence[Judged], owed: int) -> None:
    """Notes how far a lane's receipts have come, and that so much more is owed."""
    (before,) = db.execute("SELECT accepted FROM payable WHERE id = ?", (key,)).fetchone()
    db.execute(
        "UPDATE payable SET accepted = ?, left_out = ?, seq = max(seq, ?), charged = max(charged, ?) WHERE id = ?",
        (
            amount(number(before) + owed),
            msgspec.msgpack.encode(judged[-1].left_out),
            max(item.seq for item in judged),
            amount(max(item.charged for item in judged)),
            key,
        ),
    )


def _use(db: sqlite3.Connection, key: int, accepted: Iterable[Receipt]) -> None:
    """Adds what was asked for with these."""
    usages: dict[bytes, Usage] = {}
    for receipt in accepted:
        if receipt.status != Status.FAILED:
            before = usages.get(receipt.model) or _used(db, key, receipt.model)
            usages[receipt.model] = plus(before, receipt)
    _save_usages(db, key, usages.values())


def _dispute(db: sqlite3.Connection, token: bytes, items: Iterable[Judged], now: int) -> None:
    db.executemany(
        "INSERT OR IGNORE INTO disputed (executor, token, number, receipt, signature, problem, at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (item.executor, token, item.number, item.signed.receipt, item.signed.signature, item.problem, now)
            for item in items
        ],
    )


def _key(db: sqlite3.Connection, executor: bytes, token: bytes, lane_number: int) -> int | None:
    row = db.execute(
        "SELECT id FROM payable WHERE executor = ? AND token = ? AND number = ?", (executor, token, lane_number)
    ).fetchone()
    return None if row is None else int(row[0])


def _used(db: sqlite3.Connection, key: int, model: bytes) -> Usage | None:
    row = db.execute(
        "SELECT model, input, output, requests FROM accepted_usage WHERE lane = ? AND model = ?", (key, model)
    ).fetchone()
    return None if row is None else Usage(*row)


def _save_usages(db: sqlite3.Connection, key: int, usages: Iterable[Usage]) -> None:
    db.executemany(
        "INSERT OR REPLACE INTO accepted_usage (lane, model, input, output, requests) VALUES (?, ?, ?, ?, ?)",
        [(key, usage.model, usage.input_tokens, usage.output_tokens, usage.requests) for usage in usages],
    )


def _promise(db: sqlite3.Connection, token: bytes, more: int, now: int) -> None:
    """Adds to what was promised within this hour; what is older than a day and an hour is forgotten."""
    hour = now // HOUR
    row = db.execute("SELECT amount FROM promised WHERE token = ? AND hour = ?", (token, hour)).fetchone()
    before = 0 if row is None else number(row[0])
    db.execute(
        "INSERT OR REPLACE INTO promised (token, hour, amount) VALUES (?, ?, ?)", (token, hour, amount(before + more))
    )
    db.execute("DELETE FROM promised WHERE hour < ?", ((now - DAY) // HOUR - 1,))


def _owing(db: sqlite3.Connection, token: bytes) -> int:
    row = db.execute("SELECT amount FROM owing WHERE token = ?", (token,)).fetchone()
    return 0 if row is None else number(row[0])


def _owe(db: sqlite3.Connection, token: bytes, more: int) -> None:
    owing = _owing(db, token) + more
    db.execute("INSERT OR REPLACE INTO owing (token, amount) VALUES (?, ?)", (token, amount(owing)))


def _sum(rows: Iterable[tuple[bytes]]) -> int:
    return sum(number(row[0]) for row in rows)
