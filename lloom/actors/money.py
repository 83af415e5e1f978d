"""The money of a node that pays, put together: a purse for each chain, over the accounting actors. It signs nothing itself."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from lloom.actors.bank import Bank
from lloom.actors.place import Place
from lloom.adapters.routing.deliveries import Deliveries
from lloom.adapters.routing.pockets import NOBODYS, Pockets
from lloom.adapters.routing.purse import Purse
from lloom.adapters.routing.purses import Purses
from lloom.adapters.routing.wallet import Wallet
from lloom.core.identity import Identity
from lloom.core.payment.domain import domain, paying, token_of
from lloom.core.reputation.evidence import Kind
from lloom.core.routing.outcomes import Failure, Outcomes
from lloom.core.routing.outcomes import Place as Where


def open_purses(
    place: Place,
    payer: Identity,
    outcomes: Outcomes,
    deliveries: Deliveries,
    stack: AsyncExitStack,
    pockets: Pockets = NOBODYS,
) -> Purses:
    """The purses of `payer`. `stack` closes them, with a last voucher for each executor, and must close connections after that.

    In a running loop.
    """
    settings, time = place.settings, asyncio.get_running_loop().time

    def judged(where: Where, accepted: bool) -> None:
        now = time()
        outcomes.reputations.note(where[0], where[2], Kind.RECEIPT, now, right=accepted)
        if not accepted:
            outcomes.failed(where, now, Failure.LIED, None)

    opened = []
    for name, chain in paying(settings).items():
        bank = Bank(place, name)
        stack.push_async_callback(bank.close)
        wallet = Wallet(name, payer, domain(chain), token_of(chain), settings.accounting, bank, judged)
        opened.append(Purse(wallet, bank, deliveries.take, pockets))
    purses = Purses(opened)
    stack.push_async_callback(purses.close)
    purses.start()
    return purses
