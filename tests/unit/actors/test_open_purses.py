"""A node's purses, over accounting actors that are not there yet."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from lloom.actors.money import open_purses
from lloom.adapters.routing.deliveries import Deliveries
from lloom.adapters.routing.pockets import Pockets
from lloom.core.errors import RetryElsewhere
from lloom.core.payment.domain import payment
from lloom.core.routing.outcomes import Outcomes
from tests.money_support import accounting, chain
from tests.unit.actors.actor_support import FakePlace


async def test_all_purses_spend_out_of_the_pockets_of_keys() -> None:
    def away(*_: Any) -> Any:
        raise RetryElsewhere("away")

    node = FakePlace(fellows=away)
    node.settings.role, node.settings.accounting = "client", accounting(mode="batched")
    node.settings.chain = {"one": chain(id=1, contract="0x" + "c0" * 20), "two": chain(id=2, contract="0x" + "c1" * 20)}
    pockets, deliveries = Pockets((), lambda *_: None), Deliveries(lambda *_: None)
    async with AsyncExitStack() as stack:
        purses = open_purses(node.place, node.identity(), Outcomes(1, 1), deliveries, stack, pockets)
        found = [purses.of(payment(each)) for each in node.settings.chain.values()]
        assert [purse._pockets for purse in found if purse is not None] == [pockets, pockets]
        assert {purse._coin.chain for purse in found if purse is not None} == {"one", "two"}
