"""Where a chain's end is now, and up to which block it is final. It follows nothing."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from lloom.adapters.chain.rpc import ChainAway, Refused, Rpc
from lloom.core.payment.events import Block
from lloom.core.settings import Chain

FINAL_SECONDS: Final = 900.0
"""Age at which a block is taken for final where servers do not say which are: about two epochs of Ethereum."""


class Head(Struct, frozen=True):
    """The newest block, its parent's hash, and the number of the newest final block."""

    block: Block
    parent: bytes
    final: int


async def newest(rpc: Rpc, settings: Chain) -> Head:
    """As the first server that answers sees it."""
    found = await _header(rpc, "latest")
    if found is None:
        raise ChainAway(f"A server of the chain {rpc.name} does not say which block is the newest.")
    block = _block(found)
    return Head(block, bytes.fromhex(found["parentHash"][2:]), await _final(rpc, settings, block))


async def block_at(rpc: Rpc, number: int) -> Block | None:
    """The block of that number now; None if there is none."""
    found = await _header(rpc, hex(number))
    return None if found is None else _block(found)


async def _final(rpc: Rpc, settings: Chain, newest_block: Block) -> int:
    if settings.finality == "latest":
        return newest_block.number
    try:
        found = await _header(rpc, settings.finality)
    except Refused:
        found = None
    if found is None:
        return max(newest_block.number - int(FINAL_SECONDS / settings.block_seconds), 0)
    return min(_block(found).number, newest_block.number)


async def _header(rpc: Rpc, which: str) -> dict[str, Any] | None:
    found = await rpc.call("eth_getBlockByNumber", which, False)
    if found is not None and not isinstance(found, dict):
        raise ChainAway(f"A server of the chain {rpc.name} answers with what is no block.")
    return found


def _block(header: dict[str, Any]) -> Block:
    try:
        return Block(int(header["number"], 16), bytes.fromhex(header["hash"][2:]), int(header["timestamp"], 16))
    except (KeyError, TypeError, ValueError) as error:
        raise ChainAway("A server answers with what is no block.") from error
