"""Both ledgers of a lane and the contract between them: whatever is lost, late or killed, the three agree in the end."""

from __future__ import annotations

import hashlib

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from lloom.core.billing.lane import Lane
from lloom.core.billing.receipt import Receipt, Status
from lloom.core.payment import receivable
from lloom.core.payment.payable import LaneEntry, Payable
from lloom.core.payment.receivable import Ask, Client, Holder, Means, Receivable
from lloom.core.settings import PrepaySettings

PREPAY = PrepaySettings(per_executor=10_000, newcomers=20_000, ahead=1.0)
WORKER = Holder("a", b"1")
AMOUNTS = st.integers(0, 2_000)


class Trade(RuleBasedStateMachine):
    """An honest client that is killed, an honest executor that redeems when it likes, a stranger who redeems for it."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = LaneEntry(0)
        self.payable = Payable(self.disk)
        self.receivable = Receivable(lane=Lane(bytes(20), bytes(20), 0))
        self.voucher = (0, 0)
        """The best one at the executor: what it promises, and what of that was accepted."""
        self.claimed = 0
        """By the contract."""
        self.serving: dict[bytes, int] = {}
        """Requests that run, and what was drawn for them."""
        self.receipts: list[Receipt] = []
        """All of them, as the executor's journal has them."""
        self.heard: set[bytes] = set()
        """Requests whose receipts the client has in its journal."""
        self.number = 0

    def sign(self, cumulative: int) -> tuple[int, int]:
        if cumulative > self.payable.ceiling:
            self.disk = LaneEntry(0, cumulative, self.disk.accepted)
            self.payable.raised(cumulative)
        self.payable.sign(cumulative)
        return cumulative, min(self.payable.accepted, cumulative)

    def vouch(self, voucher: tuple[int, int]) -> None:
        self.voucher = max(self.voucher, voucher)
        self.receivable = receivable.vouched(self.receivable, voucher[0])

    @rule(draw=AMOUNTS, lost=st.booleans())
    def a_request_is_sent(self, draw: int, lost: bool) -> None:
        reach = self.payable.reach(draw, PREPAY)
        if reach is None:
            return
        self.number += 1
        digest = hashlib.sha256(b"%d" % self.number).digest()
        self.payable.grant(digest, draw)
        voucher = self.sign(reach)
        if lost:
            self.payable.drop(digest)
            return
        self.vouch(voucher)
        used = self.receivable.lease(WORKER).spent + sum(self.serving.values())
        wish = Ask(lane=self.receivable.lane, number=self.number, used=used, least=draw)
        self.receivable, grant = receivable.lend(self.receivable, WORKER, wish, Client((), Means(10**9, 10**9), 0))
        if grant.short:
            self.payable.drop(digest)
        else:
            self.serving[digest] = draw

    @precondition(lambda self: self.serving)
    @rule(share=st.floats(0, 1))
    def an_answer_ends(self, share: float) -> None:
        digest, draw = self.serving.popitem()
        cost = int(draw * share)
        self.receivable = receivable.charged(self.receivable, WORKER, cost)
        seq, total = len(self.receipts) + 1, self.receivable.charged
        self.receipts.append(Receipt(digest, bytes(32), bytes(32), 9, 3, 1, 2, cost, seq, total, 1, 2, Status.COMPLETE))

    @rule(count=st.integers(1, 3))
    def receipts_arrive(self, count: int) -> None:
        for each in [receipt for receipt in self.receipts if receipt.request_digest not in self.heard][:count]:
            known = each.request_digest in self.payable.grants
            assert known or self.payable.covers(each), "what was served was promised"
            (self.payable.accept if known else self.payable.recall)(each.request_digest, each)
            self.heard.add(each.request_digest)
            self.disk = LaneEntry(0, self.disk.ceiling, self.payable.accepted)

    @rule(lost=st.booleans())
    def an_idle_lane_gets_a_voucher(self, lost: bool) -> None:
        voucher = self.sign(max(self.payable.signed, self.payable.accepted))
        if not lost:
            self.vouch(voucher)

    @rule(share=st.floats(0, 1))
    def the_client_is_killed(self, share: float) -> None:
        """What runs is cancelled and charged; before anything else, the client that starts anew asks what it does not know."""
        while self.serving:
            self.an_answer_ends(share)
        self.payable = Payable(self.disk)
        self.payable.shown(self.voucher[0])
        self.receipts_arrive(len(self.receipts))

    @rule()
    def the_executor_redeems(self) -> None:
        self.claim(self.receivable.redeemable)

    @rule()
    def somebody_else_redeems(self) -> None:
        self.claim(min(self.voucher))

    def claim(self, target: int) -> None:
        self.claimed = max(self.claimed, target)
        self.receivable = receivable.paid(self.receivable, self.claimed, self.claimed, 0)
        assert self.claimed <= sum(receipt.cost for receipt in self.receipts), "more was paid than was charged"
        assert self.claimed <= self.voucher[0], "more was paid than was promised"

    def teardown(self) -> None:
        """All answers end, all receipts arrive, the lane falls idle, and the executor redeems."""
        while self.serving:
            self.an_answer_ends(1.0)
        self.receipts_arrive(len(self.receipts))
        self.an_idle_lane_gets_a_voucher(lost=False)
        self.the_executor_redeems()
        charged = sum(receipt.cost for receipt in self.receipts)
        assert self.claimed == self.voucher[1] == self.payable.accepted == self.receivable.charged == charged


Trade.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestTrade = Trade.TestCase
