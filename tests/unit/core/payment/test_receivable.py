"""The executor's ledger of one client: what is granted is covered, whatever is lost, repeated, reordered or killed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lloom.core.billing.lane import Lane
from lloom.core.payment import receivable
from lloom.core.payment.receivable import Ask, Client, Grant, Holder, Means, Receivable

CREDIT = 50
RICH = Means(10**9, 10**9)
LANES = [Lane(bytes(20), bytes(20), number) for number in range(3)]
A, B = Holder("a", b"1"), Holder("b", b"1")


def alone(credit: int = 0, means: Means = RICH, others: Sequence[Receivable] = ()) -> Client:
    return Client(others, means, credit)


def lane(**state: int) -> Receivable:
    return Receivable(lane=LANES[0], **state)


def ask(number: int = 1, **what: int | bool) -> Ask:
    return Ask(lane=LANES[0], number=number, **what)  # type: ignore[arg-type]


def test_a_lane_without_a_voucher_gets_nothing_and_is_told_which_voucher_would_do() -> None:
    _, grant = receivable.lend(lane(charged=7), A, ask(least=10), alone())
    assert (grant.granted, grant.short, grant.needed, grant.reason) == (0, 10, 17, "voucher")


def test_the_best_voucher_counts_in_whatever_order_they_come() -> None:
    state = receivable.vouched(receivable.vouched(lane(), 100), 30)
    assert state.vouched == 100


def test_one_worker_gets_all_there_is_and_a_second_one_its_part() -> None:
    state, first = receivable.lend(lane(vouched=100), A, ask(least=10), alone())
    assert first.granted == 100
    state, _ = receivable.lend(state, A, ask(2, used=40, back=True), alone())
    state, second = receivable.lend(state, B, ask(), alone())
    assert second.granted == 30  # a half of the 60 that are left
    _, third = receivable.lend(state, B, ask(2, least=50), alone())
    assert third.granted == 50


def test_a_receipt_turns_a_lease_into_a_charge_and_frees_nothing() -> None:
    state, _ = receivable.lend(lane(vouched=100), A, ask(least=60), alone())
    before = receivable.room(state, alone())
    state = receivable.charged(state, A, 25)
    assert receivable.room(state, alone()) == before
    assert (state.charged, state.lease(A).open) == (25, 75)


def test_credit_is_shared_by_all_lanes_of_a_client() -> None:
    other = Receivable(lane=LANES[1], charged=30)
    assert receivable.room(lane(), alone(50)) == 50
    assert receivable.room(lane(), alone(50, others=[other])) == 20


def test_a_debt_beyond_the_credit_blocks_a_new_lane_even_with_a_voucher() -> None:
    debtor = Receivable(lane=LANES[1], vouched=100, charged=151)
    _, grant = receivable.lend(lane(vouched=1000), A, ask(least=1), alone(50, others=[debtor]))
    assert (grant.granted, grant.reason) == (0, "debt")
    paid = receivable.vouched(debtor, 151)
    _, grant = receivable.lend(lane(vouched=1000), A, ask(least=1), alone(50, others=[paid]))
    assert grant.reason == ""


def test_what_was_delivered_twice_is_owed_though_no_receipt_says_so() -> None:
    state, _ = receivable.lend(lane(vouched=100), A, ask(least=60), alone())
    state = receivable.doubled(state, A, 60)
    assert (state.charged, state.owed, state.redeemable) == (0, 100, 0)


def test_no_more_is_relied_on_than_the_client_has() -> None:
    _, grant = receivable.lend(lane(vouched=100), A, ask(least=50), alone(means=Means(40, 1000)))
    assert (grant.granted, grant.short, grant.reason) == (40, 10, "funds")


def test_no_more_is_relied_on_than_two_thresholds_before_it_is_final() -> None:
    state = lane(vouched=1000, claimed=500, confirmed=100)
    assert receivable.room(state, alone(means=Means(10_000, 70))) == 170


def test_what_is_reserved_is_relied_on_besides() -> None:
    assert receivable.room(lane(vouched=1000, reserved=300), alone(means=Means(0, 70))) == 300


def test_the_other_lanes_use_up_the_same_deposit() -> None:
    other = Receivable(lane=LANES[1], vouched=100, charged=90, claimed=20, confirmed=20)
    assert receivable.room(lane(vouched=1000), alone(means=Means(100, 1000), others=[other])) == 30


def test_an_ask_that_was_overtaken_changes_nothing() -> None:
    state, _ = receivable.lend(lane(vouched=100), A, ask(5, least=10), alone())
    later, grant = receivable.lend(state, A, ask(4, back=True), alone())
    assert later == state
    assert grant.number == 4


def test_an_ask_that_was_overtaken_is_told_what_it_takes() -> None:
    """Both Workers lack: each is asked to give back while it asks itself."""
    state, _ = receivable.lend(lane(vouched=100), A, ask(least=60), alone())
    state, _ = receivable.lend(state, A, ask(2, used=60, back=True), alone())
    state, _ = receivable.lend(state, B, ask(least=40), alone())
    state, _ = receivable.lend(state, A, ask(4, used=60, back=True), alone())
    after, grant = receivable.lend(state, A, ask(3, used=60, least=10), alone())
    assert (grant.granted, grant.short, grant.needed, grant.reason) == (60, 10, 110, "voucher")
    assert after.lease(A) == state.lease(A)


def test_an_ask_that_was_overtaken_gets_what_it_lacks_and_no_more_if_it_is_repeated() -> None:
    state, _ = receivable.lend(lane(vouched=100), A, ask(2, used=20, back=True), alone())
    for _ in range(2):
        state, grant = receivable.lend(state, A, ask(1, used=20, least=30), alone())
        assert (grant.granted, grant.short) == (50, 0)
    assert state.lease(A).number == 2


def test_an_ask_that_was_overtaken_is_not_granted_what_was_used_then() -> None:
    state, _ = receivable.lend(lane(vouched=100), A, ask(2, used=40, back=True), alone())
    state, _ = receivable.lend(state, B, ask(least=60), alone())
    state, grant = receivable.lend(state, A, ask(1, used=70, least=5), alone())
    assert (grant.granted, grant.short, state.owed) == (40, 35, 100)


def test_who_gives_back_may_keep_what_it_waits_for_but_is_granted_nothing_for_it() -> None:
    state, _ = receivable.lend(lane(vouched=100), A, ask(), alone())
    state, grant = receivable.lend(state, A, ask(2, used=30, least=20, back=True), alone())
    assert grant.granted == 50
    _, grant = receivable.lend(state, A, ask(3, used=30, least=40, back=True), alone())
    assert grant.granted == 50


def test_nothing_that_was_granted_is_taken_back_when_the_deposit_shrinks() -> None:
    state, _ = receivable.lend(lane(vouched=100), A, ask(least=10), alone())
    state, grant = receivable.lend(state, A, ask(2, used=10, least=95), alone(means=Means(0, 0)))
    assert (grant.granted, grant.short) == (100, 5)


def test_a_worker_that_starts_anew_frees_what_it_had_and_did_not_spend() -> None:
    state, _ = receivable.lend(lane(vouched=100), A, ask(least=10), alone())
    state = receivable.charged(state, A, 30)
    state = receivable.ended(state, Holder("a", b"2"))
    assert receivable.room(state, alone()) == 70
    late = receivable.charged(state, A, 10)  # its last receipt was under way
    assert receivable.room(late, alone()) == 60


def test_a_worker_that_forgot_a_lane_learns_what_it_spent() -> None:
    state, _ = receivable.lend(lane(vouched=100), A, ask(least=10), alone())
    state = receivable.charged(state, A, 30)
    state, grant = receivable.lend(state, A, ask(2, fresh=True), alone())
    assert (grant.granted, grant.spent) == (100, 30)
    state, _ = receivable.lend(state, A, ask(3, used=30, back=True), alone())
    _, grant = receivable.lend(receivable.vouched(state, 150), A, ask(4, fresh=True, least=120), alone())
    assert (grant.granted, grant.spent, grant.short) == (150, 30, 0)


def test_what_is_paid_can_go_back_but_not_behind_what_is_final() -> None:
    state = receivable.paid(lane(), 50, 20, 0)
    assert (state.claimed, state.confirmed) == (50, 20)
    state = receivable.paid(state, 0, 0, 0)
    assert (state.claimed, state.confirmed) == (20, 20)


@dataclass
class Worker:
    """What a Worker believes of one lane."""

    holder: Holder
    asked: int = 0
    """Number of the ask whose answer it waits for."""
    most: int = 1 << 128
    """All that this answer may grant: it was recalled since."""
    granted: int = 0
    spent: int = 0
    drawn: list[int] = field(default_factory=list)
    unbilled: list[int] = field(default_factory=list)
    fresh: bool = True

    @property
    def used(self) -> int:
        return self.spent + sum(self.drawn)


class Ledger(RuleBasedStateMachine):
    """One client, two lanes, two Workers with a ledger between them that loses, repeats and reorders what they say."""

    def __init__(self) -> None:
        super().__init__()
        self.states = {lane: Receivable(lane=lane) for lane in LANES[:2]}
        self.workers = {(name, lane): Worker(Holder(name, b"1")) for name in "ab" for lane in LANES[:2]}
        self.under_way: list[tuple[str, Ask]] = []
        self.answers: list[tuple[str, Grant]] = []
        self.issued: dict[Lane, int] = dict.fromkeys(LANES, 0)
        self.best: dict[Lane, int] = dict.fromkeys(LANES, 0)
        self.numbers = 0

    lanes = st.sampled_from(LANES[:2])
    names = st.sampled_from("ab")
    amounts = st.integers(0, 200)

    def client(self, lane: Lane) -> Client:
        others = [state for other, state in self.states.items() if other != lane]
        return Client(others, Means(600, 500), CREDIT)

    @rule(lane=lanes, cumulative=st.integers(0, 800))
    def a_voucher_comes(self, lane: Lane, cumulative: int) -> None:
        self.best[lane] = max(self.best[lane], cumulative)
        self.states[lane] = receivable.vouched(self.states[lane], cumulative)

    @rule(name=names, lane=lanes, least=amounts, back=st.booleans(), gives_up=st.booleans())
    def a_worker_asks(self, name: str, lane: Lane, least: int, back: bool, gives_up: bool) -> None:
        worker = self.workers[name, lane]
        if worker.asked and not gives_up:
            return
        back = back and not worker.fresh
        worker.asked, worker.most = 0 if back else self.numbers + 1, 1 << 128
        if back:
            worker.granted = worker.used
        self.send(worker, name, lane, least=0 if back else least, back=back)

    @rule(which=st.integers(0, 1000), keep=amounts)
    def a_worker_is_recalled(self, which: int, keep: int) -> None:
        """While it waits for an answer, too: then it may keep some of what that brings."""
        waiting = [key for key, worker in self.workers.items() if worker.asked]
        name, lane = (waiting or list(self.workers))[which % len(waiting or self.workers)]
        worker = self.workers[name, lane]
        worker.most = min(worker.most, worker.used + keep)
        worker.granted = min(worker.granted, worker.used)
        self.send(worker, name, lane, least=keep if worker.asked else 0, back=True)

    def send(self, worker: Worker, name: str, lane: Lane, *, least: int, back: bool) -> None:
        self.numbers += 1
        wish = Ask(lane=lane, number=self.numbers, used=worker.used, least=least, fresh=worker.fresh, back=back)
        self.under_way.append((name, wish))

    @rule(which=st.integers(0, 1000), lost=st.booleans(), again=st.booleans())
    def the_ledger_answers(self, which: int, lost: bool, again: bool) -> None:
        if not self.under_way:
            return
        name, wish = self.under_way[which % len(self.under_way)]
        if not again:
            self.under_way.remove((name, wish))
        holder = self.workers[name, wish.lane].holder
        state, grant = receivable.lend(self.states[wish.lane], holder, wish, self.client(wish.lane))
        self.states[wish.lane] = state
        self.check(wish, grant)
        if not lost:
            self.answers.append((name, grant))

    @rule()
    def an_answer_arrives(self) -> None:
        if not self.answers:
            return
        name, grant = self.answers.pop(0)
        worker = self.workers[name, grant.lane]
        if grant.number == worker.asked:
            worker.asked = 0  # it hears one answer
            most = worker.most + (grant.spent if worker.fresh else 0)
            worker.granted = min(grant.granted, most)
            if worker.fresh:
                worker.fresh, worker.spent = False, grant.spent

    def check(self, wish: Ask, grant: Grant) -> None:
        """However late: an ask is granted, or told what is missing and what it takes. Else a Worker would ask without end."""
        used = grant.spent if wish.fresh else wish.used
        if not wish.back:
            assert grant.granted + grant.short >= used + wish.least
            assert bool(grant.reason) == bool(grant.short)
            assert grant.reason != "voucher" or grant.needed > self.best[wish.lane]

    @rule(name=names, lane=lanes, amount=amounts)
    def a_request_draws(self, name: str, lane: Lane, amount: int) -> None:
        worker = self.workers[name, lane]
        if not worker.fresh and worker.granted - worker.used >= amount:
            worker.drawn.append(amount)

    @rule(name=names, lane=lanes, share=st.floats(0, 1))
    def a_request_ends(self, name: str, lane: Lane, share: float) -> None:
        worker = self.workers[name, lane]
        if worker.drawn:
            cost = int(worker.drawn.pop() * share)
            worker.spent += cost
            worker.unbilled.append(cost)

    @rule(name=names, lane=lanes)
    def its_receipt_is_issued(self, name: str, lane: Lane) -> None:
        worker = self.workers[name, lane]
        if worker.unbilled:
            cost = worker.unbilled.pop()
            self.issued[lane] += cost
            self.states[lane] = receivable.charged(self.states[lane], worker.holder, cost)

    @rule(name=names)
    def a_worker_is_killed(self, name: str) -> None:
        """What it had not billed is lost; what it had said may still arrive (a call of a dead process was under way)."""
        life = b"%d" % (int(self.workers[name, LANES[0]].holder.life) + 1)
        for lane in LANES[:2]:
            self.workers[name, lane] = Worker(Holder(name, life))
            self.states[lane] = receivable.ended(self.states[lane], Holder(name, life))
        self.under_way = [item for item in self.under_way if item[0] != name]
        self.answers = [item for item in self.answers if item[0] != name]

    @rule(lane=lanes, paid=amounts, final=st.booleans())
    def a_voucher_is_redeemed(self, lane: Lane, paid: int, final: bool) -> None:
        state = self.states[lane]
        claimed = max(state.claimed, min(state.redeemable, state.claimed + paid))
        self.states[lane] = receivable.paid(state, claimed, claimed if final else 0, 0)

    @invariant()
    def what_workers_can_spend_was_granted(self) -> None:
        for (_, lane), worker in self.workers.items():
            can = worker.granted - worker.spent + sum(worker.unbilled)
            assert can <= self.states[lane].lease(worker.holder).open

    @invariant()
    def what_is_owed_is_covered(self) -> None:
        overdrawn = sum(state.overdrawn for state in self.states.values())
        assert overdrawn <= CREDIT
        assert all(receivable.room(state, self.client(lane)) >= 0 for lane, state in self.states.items())

    @invariant()
    def the_sums_are_right(self) -> None:
        for lane, state in self.states.items():
            assert state.charged == self.issued[lane]
            assert state.vouched == self.best[lane]
            assert state.confirmed <= state.claimed <= state.redeemable == min(self.issued[lane], self.best[lane])


Ledger.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestLedger = Ledger.TestCase
