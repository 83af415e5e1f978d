"""Lanes on which an executor is paid: best vouchers, charges, leases of Workers. It decides nothing (see core/payment)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from msgspec import Struct

from lloom.adapters.journal import receipts
from lloom.adapters.journal.words import amount, lane_key, number
from lloom.core import messages
from lloom.core.billing.lane import Lane
from lloom.core.billing.receipt import Draft, Receipt, read_receipt
from lloom.core.identity import ADDRESS_BYTES
from lloom.core.messages import SignedReceipt, SignedVoucher, Usage
from lloom.core.payment import receivable
from lloom.core.payment.receivable import Holder, Lease, Receivable
from lloom.core.payment.voucher import CheckedVoucher, Claim, read

TABLES: Final = """
CREATE TABLE lane (
    lane      BLOB PRIMARY KEY,
    vouched   BLOB NOT NULL,
    charged   BLOB NOT NULL,
    doubled   BLOB NOT NULL,
    claimed   BLOB NOT NULL,
    confirmed BLOB NOT NULL,
    reserved  BLOB NOT NULL,
    voucher   BLOB,
    requests  INTEGER NOT NULL DEFAULT 0,
    since     INTEGER NOT NULL DEFAULT 0,
    handed    BLOB NOT NULL DEFAULT x'',
    handed_at INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX owed ON lane (since) WHERE vouched > confirmed AND charged > confirmed;
CREATE TABLE lease (
    lane    BLOB NOT NULL,
    name    TEXT NOT NULL,
    life    BLOB NOT NULL,
    granted BLOB NOT NULL,
    spent   BLOB NOT NULL,
    number  INTEGER NOT NULL,
    PRIMARY KEY (lane, name, life)
) STRICT, WITHOUT ROWID;
CREATE TABLE doubled (
    request  BLOB NOT NULL,
    life     BLOB NOT NULL,
    response BLOB NOT NULL,
    cost     BLOB NOT NULL,
    PRIMARY KEY (request, life)
) STRICT, WITHOUT ROWID;
"""

MILLISECONDS: Final = 1000
_NUMBER_BYTES: Final = 8
_COLUMNS: Final = "lane, vouched, charged, doubled, claimed, confirmed, reserved"
_signed = messages.decoder(SignedVoucher)


class Owing(Struct, frozen=True):
    """A lane on which more was charged, and promised, than is paid for certain."""

    state: Receivable
    voucher: SignedVoucher
    usages: tuple[Usage, ...]
    """What of the voucher's usage is brought with it: all, or nothing where it names what was never served on the lane."""
    since: int
    """Unix seconds since when."""
    handed: int
    """What the last claim of the lane was up to that was given to the sender of transactions and not heard of; 0: none."""
    handed_at: int

    @property
    def claim(self) -> Claim:
        """The best voucher, as far as it is to be redeemed now."""
        checked = CheckedVoucher(read(self.voucher), self.usages, self.voucher)
        return Claim(checked, self.state.redeemable)


def load(db: sqlite3.Connection, lane: Lane) -> Receivable | None:
    """The lane; None if nothing is known of it."""
    row = db.execute(f"SELECT {_COLUMNS} FROM lane WHERE lane = ?", (lane_key(lane),)).fetchone()  # noqa: S608
    return _state(row, _leases(db, row[0])) if row else None


def known(db: sqlite3.Connection, lanes: Iterable[Lane]) -> set[Lane]:
    """Those of `lanes` that are kept."""
    query = "SELECT 1 FROM lane WHERE lane = ?"
    return {lane for lane in lanes if db.execute(query, (lane_key(lane),)).fetchone() is not None}


def count(db: sqlite3.Connection) -> int:
    """How many lanes are known."""
    (found,) = db.execute("SELECT count(*) FROM lane").fetchone()
    return int(found)


def leased(db: sqlite3.Connection, client: bytes) -> list[Receivable]:
    """The lanes of a client, in any token, of which Workers hold leases."""
    span = (client, client + b"\xff" * (ADDRESS_BYTES + _NUMBER_BYTES))
    leases = _leases_between(db, *span)
    rows = db.execute(f"SELECT {_COLUMNS} FROM lane WHERE lane BETWEEN ? AND ?", span).fetchall()  # noqa: S608
    return [_state(row, leases[row[0]]) for row in rows if row[0] in leases]


def siblings(db: sqlite3.Connection, lane: Lane) -> list[Receivable]:
    """The other lanes of its client in the same token."""
    stem, own = lane.client + lane.token, lane_key(lane)
    span = (stem + bytes(_NUMBER_BYTES), stem + b"\xff" * _NUMBER_BYTES)
    rows = db.execute(f"SELECT {_COLUMNS} FROM lane WHERE lane BETWEEN ? AND ?", span).fetchall()  # noqa: S608
    others = [row for row in rows if row[0] != own]
    leases = _leases_between(db, *span) if others else {}
    return [_state(row, leases.get(row[0], ())) for row in others]


def save(db: sqlite3.Connection, before: Receivable | None, after: Receivable) -> None:
    """Writes what of the lane has changed since it was loaded."""
    key = lane_key(after.lane)
    numbers = (after.vouched, after.charged, after.doubled, after.claimed, after.confirmed, after.reserved)
    if before is None:
        row = (key, *map(amount, numbers))
        db.execute(f"INSERT INTO lane ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)  # noqa: S608
    elif (before.vouched, before.charged, before.doubled, before.claimed, before.confirmed, before.reserved) != numbers:
        db.execute(
            "UPDATE lane SET vouched = ?, charged = ?, doubled = ?, claimed = ?, confirmed = ?, reserved = ? WHERE lane = ?",
            (*map(amount, numbers), key),
        )
    _save_leases(db, key, before.leases if before else (), after.leases)


def keep(db: sqlite3.Connection, checked: CheckedVoucher, now: float) -> None:
    """Stores a voucher of a known lane if it is the best one: the largest, and of equal ones that with the most usage."""
    key = lane_key(checked.lane)
    vouched, requests = db.execute("SELECT vouched, requests FROM lane WHERE lane = ?", (key,)).fetchone()
    cumulative, asked = amount(checked.voucher.cumulative), sum(usage.requests for usage in checked.usages)
    if (cumulative, asked) <= (vouched, requests):
        return
    db.execute(
        "UPDATE lane SET vouched = ?, voucher = ?, requests = ?, since = iif(vouched <= confirmed, ?, since) WHERE lane = ?",
        (cumulative, messages.encode(checked.signed), asked, int(now), key),
    )


def voucher(db: sqlite3.Connection, lane: Lane) -> SignedVoucher | None:
    """The best voucher, None if there is none."""
    row = db.execute("SELECT voucher FROM lane WHERE lane = ?", (lane_key(lane),)).fetchone()
    return messages.decode(row[0], _signed) if row and row[0] else None


def issue(
    db: sqlite3.Connection, holder: Holder, drafts: Iterable[Draft], sign: Callable[[Receipt], SignedReceipt]
) -> list[SignedReceipt]:
    """Receipts as by `receipts.issue`; each new one is charged to its lane and to the lease of `holder`.

    A request that another Worker served as well, or this one in another life, has its receipt already: what was delivered twice
    is owed all the same, and noted once.
    """
    roll, charges = receipts.Roll(db, sign), _Charges(db, holder)
    signed = []
    for draft in drafts:
        found = receipts.issued(db, draft.request_digest)
        if found is None:
            charges.add(draft, receivable.charged)
        elif not _is_of(found, draft) and _first(db, holder, draft):
            charges.add(draft, receivable.doubled)
        signed.append(found or roll.enter(draft))
    charges.save()
    return signed


def enlist(db: sqlite3.Connection, holder: Holder) -> None:
    """Frees what a Worker of this name had leased in earlier lives."""
    db.execute("DELETE FROM lease WHERE name = ? AND life <> ?", (holder.name, holder.life))


def dismiss(db: sqlite3.Connection, names: Iterable[str]) -> None:
    """Frees what Workers had leased that are not among `names`: they exist no more."""
    gone = {name for (name,) in db.execute("SELECT DISTINCT name FROM lease")} - set(names)
    db.executemany("DELETE FROM lease WHERE name = ?", [(name,) for name in gone])


def owing(db: sqlite3.Connection) -> list[Owing]:
    """All lanes of which something is to be redeemed, or is not for certain, without their leases."""
    rows = db.execute(
        f"SELECT {_COLUMNS}, voucher, since, handed, handed_at FROM lane"  # noqa: S608
        " WHERE vouched > confirmed AND charged > confirmed AND voucher IS NOT NULL"
    ).fetchall()
    return [_owed(db, row) for row in rows]


def hand(db: sqlite3.Connection, claims: Iterable[Claim], now: float) -> None:
    """Notes that these were given to the sender of transactions."""
    rows = [(amount(claim.up_to), int(now), lane_key(claim.checked.lane)) for claim in claims]
    db.executemany("UPDATE lane SET handed = ?, handed_at = ? WHERE lane = ?", rows)


def paid(
    db: sqlite3.Connection, lane: Lane, change: Callable[[Receivable], Receivable], redeemed: int | None = None
) -> None:
    """Applies what the chain says of a lane; `redeemed`: a claim up to so much arrived: it is not under way any more."""
    before = load(db, lane)
    if before is None:
        return
    save(db, before, change(before))
    if redeemed is not None:
        db.execute("UPDATE lane SET handed = x'' WHERE lane = ? AND handed <= ?", (lane_key(lane), amount(redeemed)))


def since(db: sqlite3.Connection, lane: Lane, seq: int, limit: int) -> tuple[int, int, list[SignedReceipt]]:
    """Number and total of the last receipt of a lane, and those after number `seq`, the first `limit` of them."""
    key = lane_key(lane)
    found, charged = receipts.last(db, key)
    rows = db.execute(
        "SELECT receipt, signature FROM issued WHERE lane = ? AND seq > ? ORDER BY seq LIMIT ?", (key, seq, limit)
    )
    return found, charged, [SignedReceipt(*row) for row in rows]


class _Charges:
    """What a batch of a Worker's receipts changes of their lanes: each is read once, and written once."""

    def __init__(self, db: sqlite3.Connection, holder: Holder) -> None:
        self._db = db
        self._holder = holder
        self._before: dict[Lane, Receivable | None] = {}
        self._after: dict[Lane, Receivable] = {}
        self._since: dict[Lane, int] = {}

    def add(self, draft: Draft, change: Callable[[Receivable, Holder, int], Receivable]) -> None:
        lane = draft.lane
        if lane not in self._after:
            self._before[lane] = before = load(self._db, lane)
            self._after[lane] = before or Receivable(lane=lane)
        state = self._after[lane]
        after = self._after[lane] = change(state, self._holder, draft.cost)
        if state.charged <= state.confirmed < after.charged:  # due since then, or since its voucher came (`keep`)
            self._since[lane] = draft.finished_at // MILLISECONDS

    def save(self) -> None:
        for lane, after in self._after.items():
            save(self._db, self._before[lane], after)
        due = [(since, lane_key(lane)) for lane, since in self._since.items()]
        self._db.executemany("UPDATE lane SET since = ? WHERE lane = ?", due)


def _is_of(signed: SignedReceipt, draft: Draft) -> bool:
    """Whether the draft is the very one that the receipt was made of: it was handed in twice."""
    found = read_receipt(signed.receipt)
    return draft.numbered(found.lane_seq, found.lane_charged - draft.cost) == found


def _owed(db: sqlite3.Connection, row: Sequence[Any]) -> Owing:
    """Models cost gas, and a client can name any: the contract would count for it what its executor never had."""
    voucher = messages.decode(row[7], _signed)
    honest = all(receipts.served(db, row[0], usage.model) for usage in voucher.usages)
    return Owing(_state(row), voucher, voucher.usages if honest else (), row[8], number(row[9]), row[10])


def _first(db: sqlite3.Connection, holder: Holder, draft: Draft) -> bool:
    row = (draft.request_digest, holder.life, draft.response_hash, amount(draft.cost))
    return db.execute("INSERT OR IGNORE INTO doubled VALUES (?, ?, ?, ?)", row).rowcount > 0


def _state(row: Sequence[bytes], leases: tuple[Lease, ...] = ()) -> Receivable:
    key, *numbers = row[:7]
    vouched, charged, doubled, claimed, confirmed, reserved = map(number, numbers)
    return Receivable(
        lane=_lane(key),
        vouched=vouched,
        charged=charged,
        doubled=doubled,
        leases=leases,
        claimed=claimed,
        confirmed=confirmed,
        reserved=reserved,
    )


def _lane(key: bytes) -> Lane:
    client, token = key[:ADDRESS_BYTES], key[ADDRESS_BYTES : 2 * ADDRESS_BYTES]
    return Lane(client, token, int.from_bytes(key[2 * ADDRESS_BYTES :], "big"))


def _leases(db: sqlite3.Connection, key: bytes) -> tuple[Lease, ...]:
    return _leases_between(db, key, key).get(key, ())


def _leases_between(db: sqlite3.Connection, first: bytes, last: bytes) -> dict[bytes, tuple[Lease, ...]]:
    """The leases of all lanes from `first` to `last`."""
    found: dict[bytes, tuple[Lease, ...]] = {}
    rows = db.execute(
        "SELECT lane, name, life, granted, spent, number FROM lease WHERE lane BETWEEN ? AND ?", (first, last)
    )
    for lane, name, life, granted, spent, last_ask in rows:
        lease = Lease(holder=Holder(name, life), granted=number(granted), spent=number(spent), number=last_ask)
        found[lane] = (*found.get(lane, ()), lease)
    return found


def _save_leases(db: sqlite3.Connection, key: bytes, before: Sequence[Lease], after: Sequence[Lease]) -> None:
    holders = {lease.holder for lease in after}
    for lease in before:
        if lease.holder not in holders:
            holder = lease.holder
            db.execute("DELETE FROM lease WHERE lane = ? AND name = ? AND life = ?", (key, holder.name, holder.life))
    for lease in after:
        if lease not in before:
            row = (key, lease.holder.name, lease.holder.life, amount(lease.granted), amount(lease.spent), lease.number)
            db.execute("INSERT OR REPLACE INTO lease VALUES (?, ?, ?, ?, ?, ?)", row)
