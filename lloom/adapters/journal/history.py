"""What a journal tells of the past, as entries of an account: every receipt, and what was paid. It judges nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Final

from lloom.adapters.journal.words import number
from lloom.core.billing.receipt import Status, read_receipt
from lloom.core.identity import ADDRESS_BYTES, NodeId, checksum
from lloom.core.payment.usage import Entry, day

_GIVEN: Final = "SELECT substr(lane, 1, ?), receipt FROM issued"
_TAKEN: Final = "SELECT executor, receipt FROM kept WHERE length(executor) = ?"
_EARNED: Final = "SELECT substr(lane, 1, ?), claimed FROM lane"
_SPENT: Final = "SELECT executor, claimed FROM payable WHERE length(executor) = ?"


def receipts(db: sqlite3.Connection, chain: str, name: Callable[[bytes], str], *, gave: bool) -> Iterator[Entry]:
    """Every receipt that the node gave to clients (`gave`), or accepted from executors. `name`: of a model's hash."""
    for peer, raw in db.execute(_GIVEN if gave else _TAKEN, (ADDRESS_BYTES,)):
        receipt = read_receipt(raw)
        if receipt.status == Status.FAILED:
            continue
        yield Entry(
            peer=checksum(NodeId(peer)),
            model=name(receipt.model),
            day=day(receipt.finished_at / 1000),
            chain=chain,
            requests=1,
            input_tokens=receipt.input_tokens + receipt.cached_tokens,
            output_tokens=receipt.output_tokens,
            cost=receipt.cost,
        )


def payments(db: sqlite3.Connection, chain: str, *, gave: bool) -> Iterator[Entry]:
    """What the contract has paid on each lane, as far as the journal has heard of it."""
    for peer, paid in db.execute(_EARNED if gave else _SPENT, (ADDRESS_BYTES,)):
        yield Entry(peer=checksum(NodeId(peer)), model="", day="", chain=chain, paid=number(paid))
