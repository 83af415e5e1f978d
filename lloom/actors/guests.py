"""Who may use the gateway of this node, and what they used before, which the accounting actor keeps. It lets nobody in itself."""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from contextlib import AsyncExitStack
from typing import Final

from lloom.actors.outbox import Outbox
from lloom.actors.place import Place, ledger_name
from lloom.adapters.gateway import Guests
from lloom.adapters.journal.allowances import TOKENS, Row
from lloom.adapters.routing.pockets import NOBODYS, Pockets
from lloom.core.allowance import Allowance
from lloom.core.pocket import Pocket
from lloom.core.token import RANDOM_BYTES, make

SECONDS: Final = 10.0


async def invited(place: Place, stack: AsyncExitStack) -> tuple[Guests, Pockets]:
    """The guests that the settings name, and what they may spend. What they use is journaled until `stack` closes.

    RetryElsewhere if the journal cannot be had: without it nobody can tell what is left of a budget.
    """
    keys = place.settings.gateway.keys
    if not keys:
        return Guests(), NOBODYS
    ledger = ledger_name("")

    async def note(rows: list[Row]) -> None:
        await place.ask(ledger, "note", rows, seconds=SECONDS)

    outbox: Outbox[Row] = Outbox("what keys have used", note, place.settings.accounting)
    stack.push_async_callback(outbox.close)
    spent: defaultdict[str, defaultdict[str, dict[int, int]]] = defaultdict(lambda: defaultdict(dict))
    for name, unit, day, amount in await place.ask(ledger, "noted", seconds=SECONDS):
        spent[name][unit][day] = amount
    now = asyncio.get_running_loop().time()
    guests = Guests(
        tuple(Allowance(name, terms, spent[name].pop(TOKENS, {}), now) for name, terms in keys.items()),
        make(secrets.token_bytes(RANDOM_BYTES)),
        lambda name, day, tokens: outbox.put((name, TOKENS, day, tokens)),
    )
    return guests, Pockets(
        (Pocket(name, terms, spent[name]) for name, terms in keys.items()), lambda *row: outbox.put(row)
    )
