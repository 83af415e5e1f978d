"""What bytes of a transaction cost besides gas, as a contract of OP stack chains says. It never believes that beyond a bound."""

from __future__ import annotations

from typing import Final

from loguru import logger

from lloom.adapters.chain.answers import data
from lloom.adapters.chain.contract import LATEST, text
from lloom.adapters.chain.rpc import Refused, Rpc
from lloom.core.eip712 import WORD
from lloom.core.identity import keccak, parse_address
from lloom.core.payment.fees import data_fee
from lloom.core.payment.settlement import BATCH_BYTES, LANE_BYTES
from lloom.core.settings import Chain

ENVELOPE: Final = 70
"""Bytes of a transaction besides calldata and signature, at most: chain id, nonce, fees, gas, address, lengths."""
_UPPER_BOUND: Final = keccak(b"getL1FeeUpperBound(uint256)")[:4]
"""It asks for a size only, so one answer prices whatever may be settled. The contract has it since the Fjord upgrade (2024).

`getL1Fee(bytes)`, which looks how far the bytes can be compressed, would need a transaction that nobody has made yet.
"""


class Oracle:
    """Of one chain; where it has none, bytes cost nothing."""

    def __init__(self, rpc: Rpc, settings: Chain) -> None:
        self._rpc = rpc
        self._settings = settings.l1_oracle
        self._doubted = False

    async def byte(self) -> int:
        """What a byte of a settlement costs (one of a single lane: in larger ones it is a little less), rounded up."""
        size = BATCH_BYTES + LANE_BYTES
        return -(-await self.fee(size) // size)

    async def fee(self, size: int) -> int:
        """What so many bytes of calldata cost at most, in smallest units of the coin. ChainAway if no server answers."""
        if self._settings is None:
            return 0
        whole = size + ENVELOPE
        said = await self._ask(parse_address(self._settings.address), whole)
        fee = data_fee(said, whole, self._settings.max_fee)
        self._tell(said, fee)
        return fee

    async def _ask(self, contract: bytes, size: int) -> int | None:
        """None if the contract fails, or is none. Servers word that in too many ways to tell it from their own refusals."""
        call = {"to": text(contract), "data": text(_UPPER_BOUND + size.to_bytes(WORD, "big"))}
        try:
            found = await self._rpc.ask(data, "eth_call", call, LATEST)
        except Refused:
            return None
        return int.from_bytes(found, "big") if len(found) == WORD else None

    def _tell(self, said: int | None, fee: int) -> None:
        """Says once that the contract is not believed."""
        doubted = said != fee
        if doubted and not self._doubted:
            logger.warning(
                "{}: l1_oracle says {} for bytes on Ethereum; by its max_fee {} is reckoned with",
                self._rpc.name,
                "nothing" if said is None else said,
                fee,
            )
        self._doubted = doubted
