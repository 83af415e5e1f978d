"""What a contract's events tell of one node: served, and paid. It follows nothing: it reads what there is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Final

from msgspec.structs import replace

from lloom.adapters.chain.contract import text
from lloom.adapters.chain.head import newest
from lloom.adapters.chain.logs import Logs, seen
from lloom.adapters.chain.rpc import Refused, Rpc
from lloom.core.errors import LloomError
from lloom.core.identity import NodeId, checksum
from lloom.core.payment.events import ModelUsed, Seen, Settled
from lloom.core.payment.usage import Entry, day
from lloom.core.settings import Chain

_NOTHING: Final = (0, 0, 0)


async def events(rpc: Rpc, settings: Chain, contract: bytes) -> AsyncIterator[Seen]:
    """All events there are, oldest first. ChainAway if nobody answers; LloomError if no server has all of them."""
    try:
        end = await newest(rpc, settings)
        start = await _begin(rpc, contract, end.block.number)
        async for logs in Logs(rpc, contract).all(start, end.block):
            for each in seen(logs, end.final):
                yield each
    except Refused as error:
        raise LloomError(
            f"chain.{rpc.name}: no server has the events of the past ({error.reason}); name one with an archive in "
            f"chain.{rpc.name}.rpc"
        ) from error


def entries(
    found: Iterable[Seen], own: NodeId, chain: str, name: Callable[[bytes], str], *, gave: bool
) -> Iterator[Entry]:
    """What executor `own` gave (`gave`), or client `own` took. `name`: of a model's hash. Usage is told in totals of a lane."""
    last: dict[tuple[bytes, bytes, bytes, int, bytes], tuple[int, int, int]] = {}
    for each in found:
        event = each.event
        if not isinstance(event, ModelUsed | Settled) or (event.executor if gave else event.client) != own:
            continue
        peer = checksum(NodeId(event.client if gave else event.executor))
        base = Entry(peer=peer, model="", day=day(each.block.time), chain=chain)
        if isinstance(event, Settled):
            yield replace(base, paid=event.paid)
            continue
        key = (event.client, event.executor, event.token, event.lane, event.model)
        before, now = last.get(key, _NOTHING), (event.requests, event.input_tokens, event.output_tokens)
        last[key] = (max(before[0], now[0]), max(before[1], now[1]), max(before[2], now[2]))
        grown = [after - earlier for after, earlier in zip(last[key], before, strict=True)]
        yield replace(base, model=name(event.model), requests=grown[0], input_tokens=grown[1], output_tokens=grown[2])


async def _begin(rpc: Rpc, contract: bytes, newest_block: int) -> int:
    """The block that the contract was made in, by bisection: nothing happened before."""
    low, high = 0, newest_block
    while low < high:
        middle = (low + high) // 2
        if await rpc.call("eth_getCode", text(contract), hex(middle)) in ("0x", None):
            low = middle + 1
        else:
            high = middle
    return low
