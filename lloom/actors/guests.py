"""Who may use the gateway of this node, with what they used before: kept by the accounting actor. It lets nobody in itself."""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from contextlib import AsyncExitStack
from typing import Final

from lloom.actors.outbox import Outbox
from lloom.actors.place import Place, ledger_name
from lloom.adapters.gateway import Guests
from lloom.adapters.journal.allowances import Row
from lloom.core.allowance import Allowance
from lloom.core.token import RANDOM_BYTES, make

SECONDS: Final = 10.0


async def invited(place: Place, stack: AsyncExitStack) -> Guests:
    """The guests that the settings name. What they use is journaled until `stack` closes.

    RetryElsewhere if the journal cannot be had: without it nobody can tell what is left of a budget.
    """
    keys = place.settings.gateway.keys
    if not keys:
        return Guests()
    ledger = ledger_name("")

    async def note(rows: list[Row]) -> None:
        await place.ask(ledger, "note", rows, seconds=SECONDS)

    outbox: Outbox[Row] = Outbox("what keys have used", note, place.settings.accounting)
    stack.push_async_callback(outbox.close)
    spent: defaultdict[str, dict[int, int]] = defaultdict(dict)
    for name, day, tokens in await place.ask(ledger, "noted", seconds=SECONDS):
        spent[name][day] = tokens
    now = asyncio.get_running_loop().time()
    return Guests(
        tuple(Allowance(name, terms, spent[name], now) for name, terms in keys.items()),
        make(secrets.token_bytes(RANDOM_BYTES)),
        lambda *row: outbox.put(row),
    )
