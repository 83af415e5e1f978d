"""Drafts, settings and readers for tests of what is journaled."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from lloom.actors.place import Place
from lloom.core.billing.lane import Lane
from lloom.core.billing.receipt import Draft, Receipt, Status, read_receipt, sign_receipt
from lloom.core.eip712 import Domain
from lloom.core.identity import Identity
from lloom.core.messages import SignedReceipt
from lloom.core.settings import Settings
from tests.money_support import accounting

EXECUTOR = Identity(bytes(31) + b"\x02")
CLIENT = Identity(bytes(31) + b"\x01").address
COST = 3


def draft(number: int, lane: int = 0) -> Draft:
    """The draft of request `number` (and of no other) on a lane."""
    return Draft(
        lane=Lane(CLIENT, bytes(20), lane),
        request_digest=hashlib.sha256(b"%d" % number).digest(),
        model=bytes(32),
        response_hash=bytes(32),
        response_bytes=1000,
        input_tokens=20,
        cached_tokens=0,
        output_tokens=100,
        cost=COST,
        started_at=1,
        finished_at=2,
        status=Status.COMPLETE,
    )


def sign(receipt: Receipt) -> SignedReceipt:
    return sign_receipt(receipt, EXECUTOR, Domain())


def settings(home: Path, backlog: int = 10_000, ready_seconds: float = 30.0, batch_seconds: float = 0.003) -> Settings:
    """As much of the tree as accounting reads."""
    limits = accounting(
        batch=32, batch_seconds=batch_seconds, report_seconds=0.05, ready_seconds=ready_seconds, backlog=backlog
    )
    tree = SimpleNamespace(home=str(home), role="executor", accounting=limits, chain={})
    return cast(Settings, tree)


def place(home: Path, identity: Identity = EXECUTOR, **limits: Any) -> Place:
    """As much of an actor's place as accounting needs."""
    found = SimpleNamespace(
        name="accounting",
        settings=settings(home, **limits),
        identity=lambda: identity,
        open_log=lambda: None,
        restarted=lambda: False,
    )
    return cast(Place, found)


def numbers(path: Path) -> list[int]:
    """The numbers on the disk, over all lanes, as another program reads them while the journal is open."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
        found = [seq for (seq,) in db.execute("SELECT seq FROM issued ORDER BY lane, seq")]
    db.close()
    return found


def read(signed: list[SignedReceipt]) -> list[tuple[int, int]]:
    """Number and total charge of each receipt."""
    receipts = [read_receipt(item.receipt) for item in signed]
    return [(receipt.lane_seq, receipt.lane_charged) for receipt in receipts]
