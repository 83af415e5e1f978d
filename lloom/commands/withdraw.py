"""Takes money out: the deposit of who pays, which has to thaw first, or an executor's earnings, which are its own at once."""

from __future__ import annotations

import time

from lloom.adapters.chain import banking
from lloom.adapters.chain.wallet import Mined
from lloom.commands.chains import Counter, Told, on_every_chain, print_json, say, told
from lloom.core.errors import LloomError
from lloom.core.payment import units
from lloom.core.payment.funds import Funds
from lloom.core.settings import Settings


def run(settings: Settings) -> int:
    """Prints what was taken out, or how long it still takes."""

    async def take_out(counter: Counter) -> Told:
        wanted = None if settings.amount is None else units.parse(settings.amount, counter.chain.decimals)
        found, line = await (_deposit if settings.role != "executor" else _earnings)(counter, wanted)
        if settings.output == "text":
            print(line)
        return {"chain": counter.name, **found}

    (found,) = on_every_chain(settings, take_out)
    if settings.output == "json":
        print_json(found)
    return 0


Step = tuple[Told, str]
"""What was done: for programs, and for people."""


async def _deposit(counter: Counter, wanted: int | None) -> Step:
    """The next step: begin the thaw, wait for it, or take out what has thawed."""
    funds, now = await counter.funds(), await counter.now()
    if not funds.thawing or (wanted not in (None, funds.thawing) and now < funds.thawed_at):
        return await _begin(counter, funds, wanted)
    if now < funds.thawed_at:
        return _waiting(counter, funds, now)
    sent = await banking.withdraw(counter.wallet, counter.address, counter.token)
    after = await counter.funds()
    return _taken(counter, sent, funds.balance - after.balance, after.balance)


async def _begin(counter: Counter, before: Funds, wanted: int | None) -> Step:
    amount = before.balance if wanted is None else wanted
    if not before.balance:
        raise LloomError(f"there is nothing in this account on {counter.name}")
    if amount > before.balance:
        raise LloomError(
            f"this account on {counter.name} holds {counter.amount(before.balance)}, not {counter.amount(amount)}"
        )
    if before.thawing:
        say(f"the thaw of {counter.amount(before.thawing)} is replaced by one of {counter.amount(amount)}")
    sent = await banking.start_thaw(counter.wallet, counter.address, counter.token, amount)
    found, line = _waiting(counter, await counter.funds(), await counter.now())
    return {**found, **told(sent)}, f"{line} ({counter.cost(sent)})"


def _waiting(counter: Counter, funds: Funds, now: int) -> Step:
    seconds = max(funds.thawed_at - now, 0)
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(time.time() + seconds))
    line = (
        f"{counter.amount(funds.thawing)} thaw for {_span(seconds)} more, until {when}; then run this again. "
        "Until it is taken out, it still pays what this client signed for."
    )
    found = {"state": "thawing", "amount": str(funds.thawing), "thawed_at": funds.thawed_at, "seconds": seconds}
    return found, line


async def _earnings(counter: Counter, wanted: int | None) -> Step:
    earned = await counter.contract.earned(counter.wallet.identity.address, counter.token)
    amount = earned if wanted is None else wanted
    if not earned:
        raise LloomError(f"nothing is earned on {counter.name} yet; command=settle redeems what clients owe")
    if amount > earned:
        raise LloomError(f"{counter.amount(earned)} are earned on {counter.name}, not {counter.amount(amount)}")
    sent = await banking.withdraw_earnings(counter.wallet, counter.address, counter.token, amount)
    left = await counter.contract.earned(counter.wallet.identity.address, counter.token)
    return _taken(counter, sent, amount, left)


def _taken(counter: Counter, sent: Mined, amount: int, left: int) -> Step:
    line = f"{counter.amount(amount)} taken out, {counter.amount(left)} left ({counter.cost(sent)})"
    return {"state": "withdrawn", "amount": str(amount), "left": str(left), **told(sent)}, line


def _span(seconds: int) -> str:
    hours, minutes = divmod(-(-seconds // 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
