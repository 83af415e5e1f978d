"""Redeems now what this executor charged, was promised, and was not paid yet. It never writes to the journal.

Redeeming twice pays nothing twice, so it may be run at any time, also while the node runs.
"""

from __future__ import annotations

from collections.abc import Sequence

from lloom.actors.accounting import journal_path
from lloom.adapters.chain import gas
from lloom.adapters.chain.contract import settlement
from lloom.adapters.chain.gas import Transaction
from lloom.adapters.chain.oracle import Oracle
from lloom.adapters.chain.wallet import Mined
from lloom.adapters.journal import lanes, transactions
from lloom.adapters.journal.reading import reading
from lloom.adapters.machine import home
from lloom.commands.chains import Counter, Told, on_every_chain, print_json, say, told
from lloom.core.billing.quote import PRICE_UNIT
from lloom.core.errors import PeerFault
from lloom.core.payment.domain import domain
from lloom.core.payment.fees import price
from lloom.core.payment.settlement import FIRST_GAS, LANE_GAS, MODEL_GAS, NEW_MODEL_GAS, fitting
from lloom.core.payment.voucher import Claim, check
from lloom.core.settings import Settings

Redeemed = tuple[int, Mined]
"""What a batch brought, and how."""


def run(settings: Settings) -> int:
    """Prints what was redeemed on every chosen chain."""

    async def settle(counter: Counter) -> Told:
        claims = await _open(counter, _claims(settings, counter))
        tried = [await _redeem(counter, batch) for batch in fitting((claim, _gas(claim)) for claim in claims)]
        done = [batch for batch in tried if batch is not None]
        earned = await counter.contract.earned(counter.wallet.address, counter.token)
        if settings.output == "text":
            print(_line(counter, done, earned))
        sent = [told(mined) for _, mined in done]
        paid = sum(amount for amount, _ in done)
        return {"chain": counter.name, "redeemed": str(paid), "earned": str(earned), "transactions": sent}

    found = on_every_chain(settings, settle)
    if settings.output == "json":
        print_json(found)
    return 0


def _claims(settings: Settings, counter: Counter) -> list[Claim]:
    """What is to be redeemed of the best voucher of every lane, but for what the running node is redeeming."""
    with reading(journal_path(settings, counter.name, counter.wallet.identity.address)) as db:
        if db is None:
            say(f"{counter.name}: this executor has no journal here, so it holds no voucher")
            return []
        claims = [owing.claim for owing in lanes.owing(db)]
        under_way = dict(transactions.claims(db)) if home.running(settings) is not None else {}
    ours = [claim for claim in claims if _good(claim, counter)]
    if len(ours) < len(claims):
        say(f"{counter.name}: {len(claims) - len(ours)} vouchers are for another contract or token, and are left alone")
    free = [claim for claim in ours if claim.up_to > under_way.get(claim.checked.lane, -1)]
    if len(free) < len(ours):
        say(f"{counter.name}: the node is redeeming {len(ours) - len(free)} vouchers already")
    return free


def _gas(claim: Claim) -> int:
    """At most."""
    return LANE_GAS + FIRST_GAS + (MODEL_GAS + NEW_MODEL_GAS) * len(claim.checked.usages)


def _good(claim: Claim, counter: Counter) -> bool:
    """Whether the contract would take it: it, or the token, may have been another one when the voucher was signed."""
    try:
        check(claim.checked.signed, counter.wallet.identity.address, domain(counter.chain))
    except PeerFault:
        return False
    return claim.checked.voucher.token == counter.token


async def _open(counter: Counter, claims: Sequence[Claim]) -> list[Claim]:
    """Those of which the contract has not paid all, and whose client has something left."""
    found = []
    for claim in claims:
        voucher = claim.checked.voucher
        lane = await counter.contract.lane(voucher.client, voucher.executor, voucher.token, voucher.lane)
        funds = await counter.contract.funds(voucher.client, voucher.token)
        if claim.up_to > lane.claimed and lane.reserved + funds.balance:
            found.append(claim)
    say(f"{counter.name}: {len(found)} of {len(claims)} vouchers are to be redeemed")
    return found


async def _redeem(counter: Counter, claims: Sequence[Claim]) -> Redeemed | None:
    """None if it would bring less than it costs."""
    executor, rpc = counter.wallet.address, counter.wallet.rpc
    what = Transaction(counter.address, settlement(executor, counter.token, claims))
    paid = await counter.contract.brings(executor, what.data)
    market = await gas.market(rpc)
    limit = await gas.needed(rpc, executor, what)
    data = await Oracle(rpc, counter.chain).fee(len(what.data))
    cost = (limit * price(market.base_fee, market.fees) + data) * counter.chain.gas_rate // PRICE_UNIT
    if paid <= cost:
        brings = f"{len(claims)} vouchers would bring {counter.amount(paid)}"
        say(f"{counter.name}: {brings}, and redeeming them costs {counter.amount(cost)}")
        return None
    return paid, await counter.wallet.send(what, f"redeeming {len(claims)} vouchers")


def _line(counter: Counter, done: Sequence[Redeemed], earned: int) -> str:
    paid = counter.amount(sum(amount for amount, _ in done))
    cost = f" ({'; '.join(counter.cost(mined) for _, mined in done)})" if done else ""
    return f"{counter.name}: {paid} redeemed{cost}; {counter.amount(earned)} can be taken out: command=withdraw"
