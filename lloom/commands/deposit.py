"""Pays into the account of a client, or of a validator's purse, from which executors are paid what it signs for."""

from __future__ import annotations

from lloom.adapters.chain import banking
from lloom.commands.chains import Counter, Told, on_every_chain, print_json, told
from lloom.core.identity import checksum
from lloom.core.payment import units
from lloom.core.settings import Settings


def run(settings: Settings) -> int:
    """Prints the account before and after, and what it cost."""
    assert settings.amount is not None, "checked with the settings"
    wanted = settings.amount

    async def pay_in(counter: Counter) -> Told:
        before = (await counter.funds()).balance
        amount = units.parse(wanted, counter.chain.decimals)
        *_, sent = await banking.deposit(counter.wallet, counter.address, counter.token, amount)
        after = (await counter.funds()).balance
        if settings.output == "text":
            print(
                f"account of {checksum(counter.wallet.identity.address)} on {counter.name}: "
                f"{counter.amount(before)} → {counter.amount(after)} (block {sent.block}, {counter.cost(sent)})"
            )
        return {"chain": counter.name, "before": str(before), "after": str(after), **told(sent)}

    (found,) = on_every_chain(settings, pay_in)
    if settings.output == "json":
        print_json(found)
    return 0
