"""What a client owes on one lane, and how much it may sign for. It reads no clock, signs nothing and is not told why it owes.

    accepted ≤ what is owed; signed: the highest voucher; ceiling: the highest that may ever have been signed (it is journaled)

Rules
 1. Nothing is signed above the ceiling, and the ceiling is on the disk before (`LaneEntry`). A voucher never goes down.
 2. When something is promised, it is at most `prepay.per_executor` beyond what was accepted, or has arrived and only lacks its
    receipt: all that can be lost here.
 3. An open request holds a grant: what it may cost before its receipt. It ends with the receipt, or when none is to come.
 4. A receipt is accepted or left out, once. What is left out is never paid, and does not come back.
 5. A receipt of a request that nobody remembers (this process was killed meanwhile) is accepted within the voucher that its
    executor can show: that money is gone whether it is accepted or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from lloom.core.billing.receipt import Receipt, Status
from lloom.core.messages import SignedReceipt, Usage
from lloom.core.payment.numbering import Numbering
from lloom.core.settings import PrepaySettings

MAX_LEFT_OUT: Final = 64
"""As many as a voucher names (messages.SignedVoucher)."""
MAX_NUMBER: Final = (1 << 53) - 1
"""The highest number that a voucher can name; whoever signs a higher one gets to hear nothing of it."""


class LaneEntry(Struct, frozen=True):
    """A lane as the journal has it. `seq` and `charged` are as in `Numbering`."""

    number: int
    ceiling: int = 0
    accepted: int = 0
    usages: tuple[Usage, ...] = ()
    seq: int = 0
    charged: int = 0
    left_out: tuple[int, ...] = ()


class Judged(Struct, frozen=True):
    """A receipt of a lane, what is wrong with it (empty: it is accepted), and the lane's numbering and omissions after it."""

    executor: bytes
    number: int
    signed: SignedReceipt
    problem: str
    seq: int
    charged: int
    left_out: tuple[int, ...]


class Payable:
    """The ledger of one lane, as long as this process lives."""

    __slots__ = (
        "_forgotten",
        "_left_out",
        "_said",
        "_served",
        "accepted",
        "arrived",
        "ceiling",
        "delivered",
        "grants",
        "number",
        "numbering",
        "open",
        "signed",
        "usages",
    )

    def __init__(self, entry: LaneEntry) -> None:
        self.number: Final = entry.number
        self.ceiling = entry.ceiling
        self.signed = entry.ceiling  # nobody knows better until the executor shows a voucher of ours
        self.accepted = entry.accepted
        self.usages: dict[bytes, Usage] = {usage.model: usage for usage in entry.usages}
        self.numbering: Final = Numbering(entry.seq, entry.charged)
        self.grants: dict[bytes, int] = {}
        """Of open requests; changed by `grant` and what ends them."""
        self.open = 0
        """What open requests may cost before their receipts: all their grants."""
        self.delivered: dict[bytes, int] = {}
        """Of open requests that are over: what we count ourselves of what has arrived."""
        self.arrived = 0
        """All of that: it lacks receipts."""
        self._forgotten = 0
        """What may still be charged for requests that nobody remembers."""
        self._left_out = entry.left_out
        self._said = (self.accepted, self._left_out)
        self._served = sum(usage.requests for usage in entry.usages)

    @property
    def left_out(self) -> tuple[int, ...]:
        """Numbers of the receipts that were not accepted, the latest ones."""
        return self._left_out

    @property
    def unsaid(self) -> bool:
        """Whether the latest voucher does not tell what was accepted, or left out."""
        return self._said != (self.accepted, self._left_out)

    def shown(self, cumulative: int | None) -> None:
        """The executor has this voucher of ours as its best one; None: it shows none. Only at the beginning: nothing was signed
        here yet. What it charged until then it charged against that one: the ceiling, which it never saw, is far higher.
        """
        self._forgotten = max(0, (cumulative or 0) - self.accepted)
        if cumulative is not None:
            assert cumulative <= self.ceiling
            self.signed = cumulative

    def raised(self, ceiling: int) -> None:
        """The journal allows so much."""
        self.ceiling = max(self.ceiling, ceiling)

    def limit(self, prepay: PrepaySettings) -> int:
        """The most that may be promised now."""
        return max(self.signed, self.accepted + self.arrived + prepay.per_executor)

    def ahead(self, draw: int, prepay: PrepaySettings) -> int:
        """What is promised beyond need, for requests that cost `draw`: as many as were accepted, and one, up to the limit."""
        return int(min(prepay.ahead, 1 + self._served) * draw)

    def reach(self, draw: int, prepay: PrepaySettings) -> int | None:
        """What a voucher comes to that covers one more request with `draw`, and some like it as far as that is allowed.

        None: the request alone is more than may be prepaid.
        """
        bare = self.accepted + self.open + draw
        limit = self.limit(prepay)
        return None if bare > limit else max(self.signed, min(bare + self.ahead(draw, prepay), limit))

    def enough(self, draw: int, prepay: PrepaySettings) -> int:
        """What an executor has to have a voucher over, so that one more request with `draw` needs none: it covers that, and half
        of what may be promised ahead is left for the next ones, while another voucher is under way.
        """
        bare = self.accepted + self.open + draw
        ahead = min(self.ahead(draw, prepay), self.limit(prepay) - bare)
        return bare + max(0, ahead) // 2

    def grant(self, digest: bytes, amount: int) -> None:
        """A request may cost so much before its receipt."""
        self.open += amount - self.grants.get(digest, 0)
        self.grants[digest] = amount

    def answer(self, need: int, allowed: Mapping[bytes, int], ahead: int, prepay: PrepaySettings) -> int:
        """What a voucher comes to where an executor needs one over `need`: never more than that, or than it has delivered
        and may deliver next. `allowed`: of each open request what it may have cost by now, with its next window.
        """
        for digest, amount in allowed.items():
            if digest in self.grants and digest not in self.delivered:
                self.grant(digest, max(self.grants[digest], amount))
        due = min(need, self.accepted + self.open + ahead, self.limit(prepay))
        return max(self.signed, due)

    def sign(self, cumulative: int) -> None:
        """A voucher over `cumulative` is signed now."""
        assert self.signed <= cumulative <= self.ceiling, "a voucher the journal does not know of"
        self.signed = cumulative
        self._said = (self.accepted, self._left_out)

    def deliver(self, digest: bytes, amount: int) -> None:
        """The answer is over, and worth `amount`: that is no prepayment any more, and the rest of its grant is free."""
        if digest in self.grants and digest not in self.delivered:
            worth = self.delivered[digest] = min(amount, self.grants[digest])
            self.arrived += worth
            self.grant(digest, worth)

    def drop(self, digest: bytes) -> None:
        """No receipt of this request is to come."""
        self.open -= self.grants.pop(digest, 0)
        self.arrived -= self.delivered.pop(digest, 0)

    def accept(self, digest: bytes, receipt: Receipt) -> None:
        """What `receipt` charges is owed."""
        self.drop(digest)
        self.accepted += receipt.cost
        if receipt.status != Status.FAILED:
            self.usages[receipt.model] = plus(self.usages.get(receipt.model), receipt)
            self._served += 1

    def covers(self, receipt: Receipt) -> bool:
        """Whether an unknown request's receipt is within what the executor had been promised before this process began."""
        return receipt.cost <= self._forgotten

    def recall(self, digest: bytes, receipt: Receipt) -> None:
        """Accepts what `covers` found well: what this process bought does not use that up, for receipts may come late."""
        self._forgotten -= receipt.cost
        self.accept(digest, receipt)

    def leave_out(self, digest: bytes, seq: int) -> None:
        """The receipt with this number is not accepted."""
        self.drop(digest)
        if seq <= MAX_NUMBER and seq not in self._left_out:
            self._left_out = (*self._left_out, seq)[-MAX_LEFT_OUT:]


def plus(usage: Usage | None, receipt: Receipt) -> Usage:
    """`usage` of the receipt's model, and the receipt's on top."""
    before = usage or Usage(receipt.model, 0, 0, 0)
    inputs = before.input_tokens + receipt.input_tokens + receipt.cached_tokens
    return Usage(receipt.model, inputs, before.output_tokens + receipt.output_tokens, before.requests + 1)
