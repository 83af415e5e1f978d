"""What gas costs now, and transactions signed with that. It sends nothing."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from lloom.adapters.chain.answers import count, header, history
from lloom.adapters.chain.contract import text
from lloom.adapters.chain.rpc import Rpc
from lloom.core.identity import Identity, NodeId, checksum
from lloom.core.payment.fees import Fees, estimate

BLOCKS: Final = 10
"""Whose tips are looked at."""
_MEDIAN: Final = 50
_MARGIN: Final = (6, 5)
"""Gas beyond the estimate: the state may change until the transaction runs."""


class Market(Struct, frozen=True):
    """Smallest units of the coin for one unit of gas: what the next block takes at least, and what is offered."""

    base_fee: int
    fees: Fees


class Transaction(Struct, frozen=True):
    """What a transaction does."""

    to: bytes
    data: bytes
    value: int = 0


class Signed(Struct, frozen=True):
    """The exact bytes that are broadcast, and the hash that names them."""

    raw: bytes
    hash: bytes


async def market(rpc: Rpc) -> Market:
    """What the last blocks say of the next one (eth_feeHistory)."""
    past = await rpc.ask(history, "eth_feeHistory", hex(BLOCKS), "latest", [_MEDIAN])
    newest = await rpc.ask(header, "eth_getBlockByNumber", "latest", False)
    # Some servers' history ends before their newest block; and what is offered too much is not paid.
    base_fee = max(past.base_fee, newest.base_fee or 0)
    return Market(base_fee, estimate(base_fee, [tip for tip in past.tips if tip]))


async def needed(rpc: Rpc, sender: bytes, what: Transaction) -> int:
    """The limit of gas for a transaction; Refused if it would fail."""
    call = {"from": text(sender), "to": text(what.to), "data": text(what.data), "value": hex(what.value)}
    estimated = await rpc.ask(count, "eth_estimateGas", call)
    up, down = _MARGIN
    return estimated * up // down


def signed(identity: Identity, chain_id: int, what: Transaction, nonce: int, gas: int, fees: Fees) -> Signed:
    """A transaction of type 2 (EIP-1559)."""
    from eth_account import Account

    fields: dict[str, Any] = {
        "type": 2,
        "chainId": chain_id,
        "nonce": nonce,
        "to": checksum(NodeId(what.to)),
        "value": what.value,
        "data": what.data,
        "gas": gas,
        "maxFeePerGas": fees.most,
        "maxPriorityFeePerGas": fees.tip,
    }
    made = Account.sign_transaction(fields, identity.secret)
    return Signed(bytes(made.raw_transaction), bytes(made.hash))
