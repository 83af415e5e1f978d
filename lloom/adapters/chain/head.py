"""Where a chain's end is now, and up to which block it is final. It follows nothing."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from lloom.adapters.chain.answers import header, optional
from lloom.adapters.chain.rpc import Refused, Rpc
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
    found = await rpc.ask(header, "eth_getBlockByNumber", "latest", False)
    return Head(found.block, found.parent, await _final(rpc, settings, found.block))


async def block_at(rpc: Rpc, number: int) -> Block | None:
    """The block of that number now; None if there is none."""
    return await rpc.ask(optional(lambda found: _numbered(found, number)), "eth_getBlockByNumber", hex(number), False)


def _numbered(found: Any, number: int) -> Block:
    """A server that answers with another block than it was asked for would have its events read for ever."""
    block = header(found).block
    if block.number != number:
        raise ValueError("another block")
    return block


async def _final(rpc: Rpc, settings: Chain, newest_block: Block) -> int:
    if settings.finality == "latest":
        return newest_block.number
    try:
        found = await rpc.ask(optional(header), "eth_getBlockByNumber", settings.finality, False)
    except Refused:
        found = None
    if found is None:
        return max(newest_block.number - int(FINAL_SECONDS / settings.block_seconds), 0)
    return min(found.block.number, newest_block.number)
