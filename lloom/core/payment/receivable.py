"""What a client owes an executor on one lane, and what Workers may spend of it: (state, change) → state. It asks no chain.

The rules, in smallest units of the lane's token:
- The best voucher counts: they come lost, twice and in any order, and none is worth less than an earlier one.
- A Worker draws on its lease only. A lease is what it was ever granted less what its receipts charged: so a receipt turns a
  part of the lease into a charge, and what is left to grant does not change. Grants are totals: who asks again gets no more.
- Nothing is granted beyond what the best voucher, the money behind it and the credit limit cover. All lanes of a client share
  one credit limit, and what one of them is overdrawn beyond it blocks the others: a new lane number escapes no debt.
- What is granted is not taken back but by the Worker that has it (`Ask.back`), or when that has died (`ended`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from lloom.core.billing.lane import Lane
from lloom.core.payment.voucher import CheckedVoucher

Reason = Literal["", "voucher", "funds", "debt", "lanes", "chain"]
"""Why less was granted than asked for: a larger voucher would help; the client's deposit is used up; it owes on other lanes, or
has too many of them; nobody knows what it has, because the chain does not answer."""


class Holder(Struct, frozen=True):
    """A Worker in one of its lives: one that was started again has lost what it held."""

    name: str
    life: bytes


class Lease(Struct, frozen=True, kw_only=True):
    """What a Worker was ever granted on a lane, what its receipts charged of that, and the last of its asks that counted."""

    holder: Holder
    granted: int = 0
    spent: int = 0
    number: int = 0

    @property
    def open(self) -> int:
        """What the Worker may have drawn, or may still draw."""
        return max(0, self.granted - self.spent)


class Receivable(Struct, frozen=True, kw_only=True):
    """One lane, as its executor knows it."""

    lane: Lane
    vouched: int = 0
    """The best voucher."""
    charged: int = 0
    """By all receipts."""
    doubled: int = 0
    """Delivered for a request that another Worker served as well. No receipt says so, so it is never redeemed; but it uses up
    what the client promised."""
    leases: tuple[Lease, ...] = ()
    claimed: int = 0
    """Ever paid on chain, as of its latest block."""
    confirmed: int = 0
    """The same, as far as it cannot change any more."""
    reserved: int = 0
    """Set aside for this lane on chain; nothing, if the client wants it back."""

    @property
    def owed(self) -> int:
        """What was delivered, and what Workers may deliver without asking."""
        return self.charged + self.doubled + sum(lease.open for lease in self.leases)

    @property
    def redeemable(self) -> int:
        """What the contract is to pay in all: what receipts charged, as far as a voucher promises it."""
        return min(self.charged, self.vouched)

    @property
    def overdrawn(self) -> int:
        """What of it no voucher promises."""
        return max(0, self.owed - self.vouched)

    def lease(self, holder: Holder) -> Lease:
        """That Worker's lease, maybe of nothing."""
        return next((lease for lease in self.leases if lease.holder == holder), Lease(holder=holder))


class Means(Struct, frozen=True):
    """What stands behind a client's vouchers on all its lanes: what it has on chain, and how much of that one executor relies on
    before it is paid."""

    available: int
    unconfirmed: int


class Client(Struct, frozen=True):
    """A lane's surroundings: the client's other lanes, its means, and what it may owe beyond its vouchers."""

    others: Sequence[Receivable]
    means: Means
    credit: int


class Ask(Struct, frozen=True, kw_only=True):
    """A Worker's wish for a lane, and what it knows of it. Later asks have larger numbers, also when they repeat one."""

    lane: Lane
    number: int
    used: int = 0
    """Everything the Worker ever spent and has drawn: at least so much has to stay granted."""
    least: int = 0
    """Needed beside that; more is granted if there is more. 0: whatever there is."""
    fresh: bool = False
    """The Worker does not know what it spent before: the ledger does."""
    back: bool = False
    """Take back all but `used` and, if it has that, `least`: the Worker has stopped drawing on it."""
    voucher: CheckedVoucher | None = None


class Grant(Struct, frozen=True, kw_only=True):
    """Answer to an `Ask`, late or not: totals as in `Lease`, what is missing of `least`, and which vouchers would do."""

    lane: Lane
    number: int
    granted: int
    spent: int
    short: int = 0
    needed: int = 0
    """The cumulative amount of a voucher that would cover all."""
    reason: Reason = ""


def vouched(state: Receivable, cumulative: int) -> Receivable:
    """A voucher of the lane came."""
    return replace(state, vouched=max(state.vouched, cumulative))


def charged(state: Receivable, holder: Holder, cost: int) -> Receivable:
    """A receipt of what `holder` delivered was issued."""
    return replace(_spent(state, holder, cost), charged=state.charged + cost)


def doubled(state: Receivable, holder: Holder, cost: int) -> Receivable:
    """`holder` delivered what another Worker has the receipt of."""
    return replace(_spent(state, holder, cost), doubled=state.doubled + cost)


def ended(state: Receivable, holder: Holder) -> Receivable:
    """`holder` is alive, so earlier lives of it are over: what they had and did not spend is free again."""
    kept = tuple(each for each in state.leases if each.holder.name != holder.name or each.holder == holder)
    return replace(state, leases=kept)


def paid(state: Receivable, claimed: int, confirmed: int, reserved: int) -> Receivable:
    """The chain says so. `claimed` may go back when blocks are replaced; what was confirmed stays."""
    confirmed = max(state.confirmed, confirmed)
    return replace(state, claimed=max(claimed, confirmed), confirmed=confirmed, reserved=reserved)


def room(state: Receivable, client: Client) -> int:
    """What may still be granted on the lane; below zero if something was delivered, or taken from the deposit, beyond that."""
    credit = _credit(client)
    if credit < 0:
        return min(0, state.vouched - state.owed)
    return min(state.vouched + credit, _backed(state, client)) - state.owed


def lend(state: Receivable, holder: Holder, ask: Ask, client: Client) -> tuple[Receivable, Grant]:
    """Grants what is asked for, or what there is.

    An ask that comes after a later one takes nothing back and gets no more than it lacks. But it is answered like any other: the
    later one may have given back what another Worker lacks, while those for whom this one asks still wait.
    """
    lease = state.lease(holder)
    late = ask.number < lease.number
    used = lease.spent if ask.fresh else max(ask.used, lease.spent)
    if ask.back:
        granted = lease.granted if late else max(used, min(lease.granted, used + ask.least))
        return _granted(state, lease, ask, granted)
    kept = lease.granted if late else used
    bare = _with(state, replace(lease, granted=kept))
    free, lacking = max(0, room(bare, client)), max(0, used + ask.least - kept)
    extra = min(free, lacking if late else max(lacking, _share(bare, holder, free)))
    # The Worker may have drawn on all it had while it asked: only itself can give that up.
    after, grant = _granted(state, lease, ask, max(lease.granted, kept + extra))
    short = max(0, kept + lacking - grant.granted)
    needed = max(0, bare.owed + lacking - _credit(client))
    return after, replace(grant, short=short, needed=needed, reason=_reason(bare, lacking, client) if short else "")


def elsewhere(state: Receivable, holder: Holder) -> list[Lease]:
    """Leases of other Workers of which something may be had back."""
    return [lease for lease in state.leases if lease.holder != holder and lease.open]


def _granted(state: Receivable, lease: Lease, ask: Ask, total: int) -> tuple[Receivable, Grant]:
    after = replace(lease, granted=total, number=max(ask.number, lease.number))
    return _with(state, after), Grant(lane=ask.lane, number=ask.number, granted=total, spent=lease.spent)


def _share(state: Receivable, holder: Holder, free: int) -> int:
    """Without asking for it, a Worker gets all there is; of a lane that several serve, its part."""
    return free // (1 + len(elsewhere(state, holder)))


def _credit(client: Client) -> int:
    return client.credit - sum(other.overdrawn for other in client.others)


def _backed(state: Receivable, client: Client) -> int:
    """How much the chain is trusted to pay on this lane, and the client besides, after what it owes on the others."""
    now = sum(max(0, other.owed - other.claimed - other.reserved) for other in client.others)
    final = sum(max(0, other.owed - other.confirmed - other.reserved) for other in client.others)
    available = state.claimed + max(0, client.means.available + client.credit - now)
    unconfirmed = state.confirmed + max(0, client.means.unconfirmed + client.credit - final)
    return state.reserved + min(available, unconfirmed)


def _reason(state: Receivable, lacking: int, client: Client) -> Reason:
    credit = _credit(client)
    if credit < 0:
        return "debt"
    return "funds" if state.owed + lacking > _backed(state, client) else "voucher"


def _spent(state: Receivable, holder: Holder, cost: int) -> Receivable:
    """A Worker of which no lease is known has none to spend: then it is owed beyond all leases."""
    if not any(lease.holder == holder for lease in state.leases):
        return state
    lease = state.lease(holder)
    return _with(state, replace(lease, spent=lease.spent + cost))


def _with(state: Receivable, lease: Lease) -> Receivable:
    others = tuple(each for each in state.leases if each.holder != lease.holder)
    return replace(state, leases=(*others, lease))
