"""Receipts are written in batches, each lane once: that leaves what they would leave one by one."""

from __future__ import annotations

import hashlib
import sqlite3
from functools import partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from lloom.adapters.journal import lanes, payables, receipts
from lloom.core.billing.lane import Lane
from lloom.core.billing.receipt import Draft, Receipt, Status, sign_receipt
from lloom.core.eip712 import Domain
from lloom.core.identity import Identity
from lloom.core.payment.payable import Judged, LaneEntry
from lloom.core.payment.receivable import Holder, Lease, Receivable

CLIENT, EXECUTOR, OTHER = (Identity(bytes(31) + bytes([number])) for number in (1, 2, 3))
TOKEN = bytes(20)
WORKER = Holder("executor-worker-0", b"a" * 16)
LANES = [Lane(CLIENT.address, TOKEN, number) for number in range(3)]
sign = partial(sign_receipt, identity=EXECUTOR, domain=Domain())


def digest(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def draft(request: int, served: int, cost: int, finished_at: int) -> Draft:
    """`served`: what tells two answers to one request apart."""
    return Draft(
        lane=LANES[request % 3],
        request_digest=digest(request),
        model=bytes(32),
        response_hash=digest(served),
        response_bytes=1,
        input_tokens=1,
        cached_tokens=0,
        output_tokens=1,
        cost=cost,
        started_at=1,
        finished_at=finished_at,
        status=Status.COMPLETE,
    )


def judged(executor: Identity, seq: int, model: int, problem: str, status: Status) -> Judged:
    """Number 5 is of a lane that the journal does not know."""
    made = Receipt(digest(seq), digest(model), bytes(32), 9, 3, 1, 2, 100, seq, 100 * seq, 1, 2, status)
    left_out = (seq,) if problem else ()
    return Judged(executor.address, seq // 5, sign_receipt(made, executor, Domain()), problem, seq, 100 * seq, left_out)


DRAFTS = st.lists(
    st.builds(draft, st.integers(0, 8), st.integers(0, 1), st.integers(0, 20), st.sampled_from([1_000, 2_000, 3_000])),
    max_size=15,
)
JUDGED = st.lists(
    st.builds(
        judged,
        st.sampled_from([EXECUTOR, OTHER]),
        st.integers(1, 5),
        st.integers(0, 1),
        st.sampled_from(["", "", "false"]),
        st.sampled_from([Status.COMPLETE, Status.FAILED]),
    ),
    max_size=15,
)


def journal() -> sqlite3.Connection:
    """Two lanes are known on either side; on one of them the chain has paid 15 already, more than is charged."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.executescript(receipts.TABLES + lanes.TABLES + payables.TABLES)
    lent = Receivable(lane=LANES[0], vouched=100, leases=(Lease(holder=WORKER, granted=50),))
    lanes.save(db, None, lent)
    lanes.save(db, None, replace(lent, lane=LANES[1], claimed=15, confirmed=15))
    for executor in (EXECUTOR, OTHER):
        payables.adopt(db, executor.address, TOKEN, LaneEntry(0, ceiling=1000), 1)
    return db


def content(db: sqlite3.Connection) -> dict[str, list[Any]]:
    tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    return {name: sorted(db.execute(f"SELECT * FROM {name}").fetchall()) for name in tables}


@settings(max_examples=150)
@given(DRAFTS)
def test_a_batch_is_charged_as_its_receipts_are_one_by_one(drafts: list[Draft]) -> None:
    whole, single = journal(), journal()
    signed = lanes.issue(whole, WORKER, drafts, sign)
    assert signed == [each for one in drafts for each in lanes.issue(single, WORKER, [one], sign)]
    assert content(whole) == content(single)
    assert lanes.issue(whole, WORKER, drafts, sign) == signed
    assert content(whole) == content(single)
    _close(whole, single)


@settings(max_examples=150)
@given(JUDGED)
def test_a_batch_is_judged_as_its_receipts_are_one_by_one(items: list[Judged]) -> None:
    whole, single = journal(), journal()
    payables.keep(whole, TOKEN, items, 7)
    for item in items:
        payables.keep(single, TOKEN, [item], 7)
    assert content(whole) == content(single)
    _close(whole, single)


def _close(*dbs: sqlite3.Connection) -> None:
    for db in dbs:
        db.close()
