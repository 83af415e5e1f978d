"""Everything one Accounting actor needs of its chain: what the contract says, transactions, events. It decides nothing."""

from __future__ import annotations

from collections.abc import Sequence

from lloom.adapters.chain import deployment, gas
from lloom.adapters.chain.contract import Contract
from lloom.adapters.chain.rpc import ChainAway, Rpc
from lloom.adapters.journal.writer import Writer
from lloom.core.errors import ConfigError
from lloom.core.identity import Identity, NodeId, parse_address
from lloom.core.payment.fees import price
from lloom.core.payment.funds import Funds, LaneFunds
from lloom.core.settings import Chain as Settings


class Chain:
    """Its life is `open`, then `run` in one task while others ask, then `close`."""

    def __init__(self, name: str, settings: Settings, rpc: Rpc, contract: Contract) -> None:
        self.name = name
        self.settings = settings
        self._rpc = rpc
        self._contract = contract

    @classmethod
    async def open(
        cls, name: str, settings: Settings, identity: Identity | None, writer: Writer, urls: Sequence[str]  # noqa: ARG003
    ) -> Chain:
        """The chain of the settings, whose contract is known by now. `identity`: who sends; None: nobody.

        ConfigError if it is another chain, has no contract or another one, or (at the first start) nobody answers.
        """
        rpc = Rpc.open(name, settings, urls)
        assert settings.contract is not None, "the contract is looked up when a node starts"
        contract = Contract(rpc, parse_address(settings.contract))
        try:
            await rpc.survey()
            await deployment.check(rpc, contract.address)
        except ChainAway as error:
            await rpc.close()
            raise ConfigError(f"chain.{name}: {error}") from error
        except BaseException:
            await rpc.close()
            raise
        return cls(name, settings, rpc, contract)

    async def close(self) -> None:
        """Closes the connections."""
        await self._rpc.close()

    async def funds(self, client: NodeId, token: bytes) -> Funds:
        """A client's account, as of the newest block."""
        return await self._contract.funds(client, token)

    async def lane(self, client: NodeId, executor: NodeId, token: bytes, number: int) -> LaneFunds:
        """A lane's money, as of the newest block."""
        return await self._contract.lane(client, executor, token, number)

    async def earned(self, executor: NodeId, token: bytes) -> int:
        """What an executor can take out."""
        return await self._contract.earned(executor, token)

    async def gas_price(self) -> int:
        """What a unit of gas costs now, in smallest units of the coin."""
        market = await gas.market(self._rpc)
        return price(market.base_fee, market.fees)
