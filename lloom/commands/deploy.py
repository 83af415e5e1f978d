"""Puts the contract on the chosen chains, at the address that is the same on all. Where it is already, it does nothing."""

from __future__ import annotations

from lloom.adapters.chain import banking, deployment
from lloom.commands.chains import Counter, Told, foreign_key, on_every_chain, print_json, say, told
from lloom.core.errors import LloomError
from lloom.core.identity import checksum
from lloom.core.settings import Settings


def run(settings: Settings) -> int:
    """Prints the address and what it cost. Anybody can do it, with any key that has coin for gas."""
    found = on_every_chain(foreign_key(settings), _deploy, deployed=False)
    if settings.output == "json":
        print_json(found)
    return 0


async def _deploy(counter: Counter) -> Told:
    address = checksum(deployment.address())
    if counter.address != deployment.address():
        raise LloomError(
            f"chain.{counter.name}.contract names {checksum(counter.address)}, but the contract of this version of Lloom "
            f"comes to {address}; leave the setting out"
        )
    say(f"{counter.name}: {address} is where the contract belongs")
    sent = await banking.deploy(counter.wallet)
    what = "it is there already" if sent is None else f"deployed in block {sent.block} for {counter.cost(sent)}"
    say(f"{counter.name}: {what}")
    cost = told(sent) if sent else {}
    return {"chain": counter.name, "contract": address, "deployed": sent is not None, **cost}
