"""What a journal tells of the past: every receipt as an entry of the account. It judges none."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Final

from lloom.core.identity import ADDRESS_BYTES, NodeId, checksum
from lloom.core.payment.usage import Entry, day
from lloom.core.receipt import Status, read_receipt

_GIVEN: Final = "SELECT substr(lane, 1, ?), receipt FROM issued"
_TAKEN: Final = "SELECT executor, receipt FROM kept WHERE length(executor) = ?"


def entries(db: sqlite3.Connection, chain: str, name: Callable[[bytes], str], *, gave: bool) -> Iterator[Entry]:
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
