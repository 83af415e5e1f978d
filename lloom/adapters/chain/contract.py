"""The accounting contract at one address: its views, its calldata, its logs, its refusals in words. It sends nothing."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, Final

from lloom.adapters.chain.answers import data as bytes_of
from lloom.adapters.chain.artifact import SELECTOR, artifact
from lloom.adapters.chain.rpc import Refused, Rpc
from lloom.core.payment.funds import Funds, LaneFunds
from lloom.core.payment.voucher import Claim, compact

LATEST: Final = "latest"


class Contract:
    """What is read is as of `at`: a block's tag (latest, safe, finalized) or number in hexadecimal."""

    def __init__(self, rpc: Rpc, address: bytes) -> None:
        self.address = address
        self._rpc = rpc

    async def funds(self, client: bytes, token: bytes, at: str = LATEST) -> Funds:
        """A client's account."""
        return Funds(*await self.view("account", client, token, at=at))

    async def lane(self, client: bytes, executor: bytes, token: bytes, number: int, at: str = LATEST) -> LaneFunds:
        """A lane's money."""
        return LaneFunds(*await self.view("laneState", client, executor, token, number, at=at))

    async def earned(self, executor: bytes, token: bytes) -> int:
        """What an executor can take out."""
        (amount,) = await self.view("earned", executor, token)
        return int(amount)

    async def brings(self, sender: bytes, data: bytes) -> int:
        """What the call of `settle` in `data` would pay now; Refused if it would fail."""
        call = {"from": text(sender), "to": text(self.address), "data": text(data)}
        (paid,) = await self._rpc.ask(partial(results, "settle"), "eth_call", call, LATEST)
        return int(paid)

    async def view(self, name: str, *arguments: Any, at: str = LATEST) -> tuple[Any, ...]:
        """What a function of the contract returns; Refused if it reverts, ChainAway if nobody answers."""
        call = {"to": text(self.address), "data": text(calldata(name, *arguments))}
        return await self._rpc.ask(partial(results, name), "eth_call", call, at)


def calldata(name: str, *arguments: Any) -> bytes:
    """The bytes that call a function of the contract."""
    from eth_abi.abi import encode

    entry = artifact().functions[name]
    return entry.selector + encode(entry.inputs, arguments)


def results(name: str, found: Any) -> tuple[Any, ...]:
    """What a function returned; ValueError if it is nothing of the kind."""
    from eth_abi.abi import decode
    from eth_abi.exceptions import DecodingError

    try:
        return decode(artifact().functions[name].outputs, bytes_of(found))
    except DecodingError as error:
        raise ValueError(f"the contract does not answer {name}") from error


def settlement(executor: bytes, token: bytes, claims: Iterable[Claim]) -> bytes:
    """The calldata by which `executor` redeems `claims`, all of them vouchers for it in `token`."""
    return calldata("settle", executor, token, [_claim(each) for each in claims])


def _claim(claim: Claim) -> tuple[Any, ...]:
    checked, voucher = claim.checked, claim.checked.voucher
    usages = [(used.model, used.input_tokens, used.output_tokens, used.requests) for used in checked.usages]
    amounts = (voucher.cumulative, voucher.accepted, claim.up_to)
    return (voucher.client, voucher.lane, *amounts, voucher.usage_hash, *compact(checked.signed.signature), usages)


def explained(error: Refused) -> str:
    """Why the contract refused, in its own terms: `InsufficientBalance(3, 5)`; else as the server words it."""
    from eth_abi.abi import decode
    from eth_abi.exceptions import DecodingError

    entry = artifact().errors.get(error.data[:SELECTOR])
    if entry is None:
        return error.reason
    try:
        values = decode(entry.inputs, error.data[SELECTOR:])
    except DecodingError:
        return entry.name
    return f"{entry.name}({', '.join(map(str, values))})"


def text(data: bytes) -> str:
    """`0x…` as JSON-RPC has it; addresses without checksum."""
    return "0x" + data.hex()
