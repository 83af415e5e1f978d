"""The ledger of one lane: 64 open requests, receipts lost, doubled and out of order, needs without end, kills."""

from __future__ import annotations

import hashlib

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lloom.core.billing.receipt import Receipt, Status
from lloom.core.payment.payable import MAX_LEFT_OUT, LaneEntry, Payable
from lloom.core.settings import PrepaySettings

PREPAY = PrepaySettings(per_executor=10_000, newcomers=20_000, ahead=1.0)
MODEL = b"m" * 32
AMOUNTS = st.integers(0, 3_000)


def receipt(number: int, cost: int, seq: int = 1, status: Status = Status.COMPLETE) -> Receipt:
    digest = hashlib.sha256(b"%d" % number).digest()
    return Receipt(digest, MODEL, bytes(32), 9, 3, 1, 2, cost, seq, cost, 1, 2, status)


def payable(ceiling: int = 1 << 20) -> Payable:
    ledger = Payable(LaneEntry(0))
    ledger.raised(ceiling)
    return ledger


def test_a_request_is_paid_for_with_the_next_one_like_it_ahead() -> None:
    ledger = payable()
    assert ledger.reach(400, PREPAY) == 800
    ledger.grant(b"a", 400)
    assert ledger.reach(400, PREPAY) == 1200
    assert ledger.reach(9_600, PREPAY) == 10_000  # nothing is ahead where that would be too much
    assert ledger.reach(9_601, PREPAY) is None


def test_more_is_promised_ahead_to_whom_has_delivered_more() -> None:
    ledger, generous = payable(), PrepaySettings(per_executor=10_000, newcomers=20_000, ahead=3.0)
    promised = []
    for number in range(4):
        promised.append(ledger.ahead(100, generous))
        ledger.accept(bytes(32), receipt(number, 0))
    assert promised == [100, 200, 300, 300]


def test_a_voucher_is_enough_for_the_next_request_also_where_few_may_be_prepaid() -> None:
    ledger, generous = payable(), PrepaySettings(per_executor=10_000, newcomers=20_000, ahead=64.0)
    for _ in range(64):
        ledger.accept(bytes(32), receipt(1, 0))
    vouchers = told = 0
    for number in range(100):  # each is paid as it was prepaid; ten more of them are all that may be promised
        if told < ledger.enough(1_000, generous):
            told = ledger.reach(1_000, generous) or 0
            ledger.sign(told)
            vouchers += 1
        ledger.grant(receipt(number, 1_000).request_digest, 1_000)
        assert ledger.accepted + ledger.open <= told
        ledger.accept(receipt(number, 1_000).request_digest, receipt(number, 1_000))
    assert vouchers == 20


def test_what_was_promised_and_not_used_is_used_up_first() -> None:
    ledger = payable()
    ledger.sign(5_000)
    assert ledger.reach(100, PREPAY) == 5_000
    assert not ledger.unsaid


def test_a_receipt_ends_its_grant_and_makes_room() -> None:
    ledger = payable()
    good = receipt(1, 300)
    ledger.grant(good.request_digest, 10_000)
    assert ledger.reach(1, PREPAY) is None
    ledger.accept(good.request_digest, good)
    assert (ledger.accepted, ledger.open, ledger.unsaid) == (300, 0, True)
    assert ledger.reach(10_000, PREPAY) == 10_300
    usage = ledger.usages[MODEL]
    assert (usage.input_tokens, usage.output_tokens, usage.requests) == (4, 2, 1)


def test_what_has_arrived_is_not_paid_in_advance_while_its_receipt_is_under_way() -> None:
    ledger = payable()
    ledger.grant(b"a", 10_000)
    assert ledger.reach(1, PREPAY) is None
    ledger.deliver(b"a", 300)
    assert ledger.open == 300
    assert ledger.reach(10_000, PREPAY) == 10_300
    assert ledger.answer(99_999, {b"a": 5_000}, 0, PREPAY) == 300, "it may not cost more than it is worth"
    ledger.drop(b"a")
    assert ledger.reach(10_001, PREPAY) is None


def test_a_failed_request_is_no_usage() -> None:
    ledger = payable()
    ledger.accept(b"", receipt(1, 0, status=Status.FAILED))
    assert (ledger.accepted, ledger.usages) == (0, {})


def test_what_is_left_out_is_named_once_and_the_latest_ones_only() -> None:
    ledger = payable()
    for seq in (*range(1, 100), 99):
        ledger.leave_out(b"", seq)
    assert ledger.left_out == tuple(range(36, 100))
    assert len(ledger.left_out) == MAX_LEFT_OUT
    ledger.leave_out(b"", 1 << 53)  # no message could carry it
    assert ledger.left_out[-1] == 99
    assert (ledger.accepted, ledger.unsaid) == (0, True)


def test_a_need_is_answered_up_to_what_may_have_been_delivered() -> None:
    ledger = payable()
    ledger.grant(b"a", 100)
    assert ledger.answer(10_000_000, {b"a": 150, b"unknown": 5_000}, 50, PREPAY) == 200
    assert ledger.answer(160, {b"a": 150}, 50, PREPAY) == 160
    ledger.sign(200)
    assert ledger.answer(1, {b"a": 10}, 0, PREPAY) == 200  # neither a grant nor a voucher shrinks
    assert ledger.open == 150


def test_the_voucher_of_before_a_kill_that_is_shown_covers_forgotten_requests() -> None:
    ledger = Payable(LaneEntry(0, ceiling=1_000, accepted=400))
    assert (ledger.signed, ledger.covers(receipt(1, 1))) == (1_000, False)
    ledger.shown(None)
    assert (ledger.signed, ledger.covers(receipt(1, 1))) == (1_000, False)
    ledger.shown(700)
    assert (ledger.signed, ledger.covers(receipt(1, 300))) == (700, True)
    ledger.raised(9_000)  # a promise of this life is for what it remembers
    assert not ledger.covers(receipt(1, 301))
    ledger.accept(b"", receipt(1, 5_000))  # and what is bought in it uses up none of the other
    ledger.recall(b"", receipt(2, 200))
    assert (ledger.covers(receipt(3, 100)), ledger.covers(receipt(3, 101))) == (True, False)


class Lane(RuleBasedStateMachine):
    """A client that is killed at any point, and an executor that asks, charges and repeats as it likes."""

    @initialize()
    def begin(self) -> None:
        self.disk = LaneEntry(0)
        self.number = 0
        self.best = 0
        """The best voucher that the executor holds."""
        self.delivered = 0
        """What the receipts come to that were accepted for an answer, in whatever life."""
        self.forged = 0
        """What a killed client believed within what it had promised."""
        self.worth: dict[bytes, int] = {}
        """Of answers that are over and have no receipt yet, what has arrived."""
        self.unpaid = 0
        """Of those whose receipts never came, were not accepted, or charge less than that."""
        self.ledger = Payable(self.disk)
        self.waiting: dict[bytes, Receipt] = {}

    def sign(self, cumulative: int) -> None:
        """As the purse does it: first the ceiling, on the disk, then the voucher."""
        before = self.ledger.signed
        if cumulative > self.ledger.ceiling:
            self.disk = LaneEntry(0, cumulative, self.disk.accepted)
            self.ledger.raised(cumulative)
        self.ledger.sign(cumulative)
        assert cumulative >= before
        assert cumulative <= self.disk.ceiling, "signed before it was on the disk"
        arrived = self.ledger.accepted + sum(self.worth.values())
        assert cumulative == before or cumulative <= arrived + PREPAY.per_executor
        self.best = max(self.best, cumulative)

    @precondition(lambda self: len(self.ledger.grants) < 64)
    @rule(draw=AMOUNTS, cost=AMOUNTS, streams=st.integers(1, 64))
    def requests(self, draw: int, cost: int, streams: int) -> None:
        for _ in range(streams):
            reach = self.ledger.reach(draw, PREPAY)
            assert self.ledger.enough(draw, PREPAY) >= self.ledger.accepted + self.ledger.open + draw
            if reach is None:
                assert self.ledger.open - sum(self.worth.values()) + draw > PREPAY.per_executor
                return
            self.number += 1
            new = receipt(self.number, cost)
            self.ledger.grant(new.request_digest, draw)
            self.waiting[new.request_digest] = new
            self.sign(reach)
            assert reach >= self.ledger.accepted + self.ledger.open, "less than was granted"

    @rule(need=st.integers(0, 1 << 90), share=st.integers(0, 2_000), ahead=AMOUNTS)
    def needs(self, need: int, share: int, ahead: int) -> None:
        allowed = dict.fromkeys(self.ledger.grants, share)
        cumulative = self.ledger.answer(need, allowed, ahead, PREPAY)
        assert cumulative <= max(self.ledger.signed, need)
        self.sign(cumulative)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), amount=AMOUNTS)
    def answer_ends(self, data: st.DataObject, amount: int) -> None:
        digest = data.draw(st.sampled_from(sorted(self.waiting)))
        granted = self.ledger.grants[digest]
        self.ledger.deliver(digest, amount)
        self.worth.setdefault(digest, min(amount, granted))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), verdict=st.sampled_from(["accept", "leave out", "lose"]))
    def receipt_comes(self, data: st.DataObject, verdict: str) -> None:
        digest = data.draw(st.sampled_from(sorted(self.waiting)))
        came = self.waiting.pop(digest)
        worth = self.worth.pop(digest, 0)
        if verdict == "accept":
            self.ledger.accept(digest, came)
            self.delivered += came.cost
            self.unpaid += max(0, worth - came.cost)
            return
        self.unpaid += worth
        if verdict == "leave out":
            self.ledger.leave_out(digest, self.number)
        else:
            self.ledger.drop(digest)

    @rule()
    def journal(self) -> None:
        self.disk = LaneEntry(0, self.disk.ceiling, self.ledger.accepted)

    @rule(shows=st.booleans(), hides=st.integers(0, 1_000))
    def killed(self, shows: bool, hides: int) -> None:
        self.ledger = Payable(self.disk)
        self.waiting.clear()
        self.unpaid += sum(self.worth.values())
        self.worth.clear()
        assert self.ledger.signed >= self.best, "less than was promised"
        if shows:
            self.ledger.shown(max(0, self.best - hides))

    @rule(cost=AMOUNTS)
    def orphan(self, cost: int) -> None:
        forged = receipt(-1, cost)
        if self.ledger.covers(forged):
            self.ledger.recall(b"", forged)
            self.forged += cost
            assert self.ledger.accepted <= self.disk.ceiling + self.forged

    @invariant()
    def never_more_than_accepted_and_a_bounded_prepayment(self) -> None:
        assert self.best <= self.disk.ceiling
        assert self.ledger.open == sum(self.ledger.grants.values())
        assert self.ledger.arrived == sum(self.ledger.delivered.values())
        assert self.ledger.accepted <= self.delivered + self.forged
        arrived = self.delivered + self.forged + self.unpaid + sum(self.worth.values())
        assert self.disk.ceiling <= arrived + PREPAY.per_executor


TestLane = Lane.TestCase
TestLane.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
