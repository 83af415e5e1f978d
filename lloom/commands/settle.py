"""Redeems now what this executor's journal holds and the contract has not paid. It never writes to the journal.

Redeeming twice pays nothing twice, so it may be run at any time, also while the node runs.
"""

from __future__ import annotations

from collections.abc import Sequence

from lloom.actors.accounting import journal_path
from lloom.adapters.chain import gas
from lloom.adapters.chain.contract import settlement
from lloom.adapters.chain.gas import Transaction
from lloom.adapters.chain.wallet import Mined
from lloom.adapters.journal import lanes, transactions
from lloom.adapters.journal.reading import reading
from lloom.adapters.machine import home
from lloom.commands.chains import Counter, Told, on_every_chain, print_json, say, told
from lloom.core.errors import PeerFault
from lloom.core.messages import SignedVoucher
from lloom.core.payment.domain import domain
from lloom.core.payment.fees import price
from lloom.core.payment.settlement import MAX_CLAIMS
from lloom.core.payment.voucher import CheckedVoucher, check
from lloom.core.receipt import PRICE_UNIT
from lloom.core.settings import Settings

Redeemed = tuple[int, Mined]
"""What a batch brought, and how."""


def run(settings: Settings) -> int:
    """Prints what was redeemed on every chosen chain."""

    async def settle(counter: Counter) -> Told:
        claims = await _open(counter, _vouchers(settings, counter))
        starts = range(0, len(claims), MAX_CLAIMS)
        tried = [await _redeem(counter, claims[start : start + MAX_CLAIMS]) for start in starts]
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


def _vouchers(settings: Settings, counter: Counter) -> list[CheckedVoucher]:
    """The best voucher of every lane that is not redeemed for certain, but for those that the running node is redeeming."""
    with reading(journal_path(settings, counter.name, counter.wallet.identity.address)) as db:
        if db is None:
            say(f"{counter.name}: this executor has no journal here, so it holds no voucher")
            return []
        signed = [owing.voucher for owing in lanes.owing(db)]
        under_way = dict(transactions.claims(db)) if home.running(settings) is not None else {}
    ours = [claim for voucher in signed if (claim := _checked(voucher, counter)) is not None]
    if len(ours) < len(signed):
        say(f"{counter.name}: {len(signed) - len(ours)} vouchers are for another contract or token, and are left alone")
    free = [claim for claim in ours if claim.voucher.cumulative > under_way.get(claim.lane, -1)]
    if len(free) < len(ours):
        say(f"{counter.name}: the node is redeeming {len(ours) - len(free)} vouchers already")
    return free


def _checked(signed: SignedVoucher, counter: Counter) -> CheckedVoucher | None:
    """None if the contract would not take it: it, or the token, was another one when the voucher was signed."""
    try:
        found = check(signed, counter.wallet.identity.address, domain(counter.chain))
    except PeerFault:
        return None
    return found if found.voucher.token == counter.token else None


async def _open(counter: Counter, claims: Sequence[CheckedVoucher]) -> list[CheckedVoucher]:
    """Those of which the contract has not paid all, and whose client has something left."""
    found = []
    for claim in claims:
        voucher = claim.voucher
        lane = await counter.contract.lane(voucher.client, voucher.executor, voucher.token, voucher.lane)
        funds = await counter.contract.funds(voucher.client, voucher.token)
        if voucher.cumulative > lane.claimed and lane.reserved + funds.balance:
            found.append(claim)
    say(f"{counter.name}: {len(found)} of {len(claims)} vouchers are to be redeemed")
    return found


async def _redeem(counter: Counter, claims: Sequence[CheckedVoucher]) -> Redeemed | None:
    """None if it would bring less than its gas costs."""
    executor, rpc = counter.wallet.address, counter.wallet.rpc
    what = Transaction(counter.address, settlement(executor, counter.token, claims))
    paid = await counter.contract.brings(executor, what.data)
    market = await gas.market(rpc)
    limit = await gas.needed(rpc, executor, what)
    cost = limit * price(market.base_fee, market.fees) * counter.chain.gas_rate // PRICE_UNIT
    if paid <= cost:
        brings = f"{len(claims)} vouchers would bring {counter.amount(paid)}"
        say(f"{counter.name}: {brings}, and their gas costs {counter.amount(cost)}")
        return None
    return paid, await counter.wallet.send(what, f"redeeming {len(claims)} vouchers")


def _line(counter: Counter, done: Sequence[Redeemed], earned: int) -> str:
    paid = counter.amount(sum(amount for amount, _ in done))
    cost = f" ({'; '.join(counter.cost(mined) for _, mined in done)})" if done else ""
    return f"{counter.name}: {paid} redeemed{cost}; {counter.amount(earned)} can be taken out: command=withdraw"
