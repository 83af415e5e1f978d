"""Many lanes in one journal: whatever is asked, accepted, paid and repeated, all limits hold and all sums are right."""

from __future__ import annotations

import hashlib
import sqlite3

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lloom.adapters.journal import payables, receipts
from lloom.adapters.journal.words import number
from lloom.core.billing.receipt import Receipt, Status, sign_receipt
from lloom.core.eip712 import Domain
from lloom.core.identity import Identity
from lloom.core.payment.payable import Judged
from lloom.core.payment.promises import Ask
from lloom.core.settings import PrepaySettings
from tests.money_support import accounting

EXECUTORS = [Identity(bytes(31) + bytes([number])) for number in (2, 3, 4)]
TOKENS = [bytes(20), b"\x01" * 20]
SETTINGS = accounting(prepay=PrepaySettings(1_000, 1_500, 1.0), budget=4_000)
WHO = st.integers(0, 2)
TOKEN = st.sampled_from(TOKENS)
AMOUNT = st.integers(0, 1_200)


class Lanes(RuleBasedStateMachine):
    """`claimed`, `accepted`, `ceilings`: what the journal should say, by executor and token."""

    @initialize()
    def begin(self) -> None:
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        self.db.executescript(receipts.TABLES + payables.TABLES)
        self.now = 1_000_000_000
        self.ceilings: dict[tuple[int, bytes], int] = {}
        self.raised: dict[tuple[int, bytes], int] = {}
        self.accepted: dict[tuple[int, bytes], int] = {}
        self.claimed: dict[tuple[int, bytes], int] = {}
        self.promised: list[tuple[int, bytes, int]] = []
        self.told: list[tuple[bytes, Judged]] = []
        self.count = 0

    def teardown(self) -> None:
        if hasattr(self, "db"):
            self.db.close()

    def owing(self, token: bytes) -> int:
        lanes = [key for key in self.ceilings if key[1] == token]
        return sum(max(0, self.ceilings[key] - self.claimed.get(key, 0)) for key in lanes)

    @rule(who=WHO, token=TOKEN, least=AMOUNT, more=AMOUNT, available=st.integers(0, 3_000))
    def raises(self, who: int, token: bytes, least: int, more: int, available: int) -> None:
        key = who, token
        before, owing = self.ceilings.get(key, 0), self.owing(token)
        wanted = before + least
        ask = Ask(EXECUTORS[who].address, 0, wanted, wanted + more)
        raised = payables.raise_ceiling(self.db, token, ask, available, SETTINGS, self.now)
        assert raised.ceiling >= before
        assert bool(raised.code) == (raised.ceiling < wanted)
        self.ceilings[key] = raised.ceiling
        if raised.ceiling > before:
            self.raised[key] = self.now
            self.promised.append((self.now, token, raised.ceiling - before))
            assert owing + raised.ceiling - before <= available
            assert self.recently(token) <= 4_000
            if not self.accepted.get(key):
                assert self.newcomers(token) <= 1_500

    def recently(self, token: bytes) -> int:
        return sum(more for at, paid_in, more in self.promised if paid_in == token and at > self.now - payables.DAY)

    def newcomers(self, token: bytes) -> int:
        lanes = [key for key in self.ceilings if key[1] == token and not self.accepted.get(key)]
        return sum(self.ceilings[key] for key in lanes if self.raised.get(key, 0) > self.now - payables.DAY)

    @rule(who=WHO, token=TOKEN, cost=AMOUNT, good=st.booleans())
    def receipt_comes(self, who: int, token: bytes, cost: int, good: bool) -> None:
        key = who, token
        if key not in self.ceilings:
            return
        self.count += 1
        digest = hashlib.sha256(b"%d" % self.count).digest()
        made = Receipt(digest, bytes(32), bytes(32), 9, 3, 0, 2, cost, 1, cost, 1, 2, Status.COMPLETE)
        signed = sign_receipt(made, EXECUTORS[who], Domain())
        judged = Judged(EXECUTORS[who].address, 0, signed, "" if good else "false", 1, cost, () if good else (1,))
        payables.keep(self.db, token, [judged], self.now)
        self.told.append((token, judged))
        if good:
            self.accepted[key] = self.accepted.get(key, 0) + cost

    @rule(data=st.data())
    def it_is_told_again(self, data: st.DataObject) -> None:
        if self.told:
            token, judged = data.draw(st.sampled_from(self.told))
            payables.keep(self.db, token, [judged], self.now)

    @rule(who=WHO, token=TOKEN, paid=AMOUNT)
    def the_contract_pays(self, who: int, token: bytes, paid: int) -> None:
        payables.claimed(self.db, EXECUTORS[who].address, token, 0, paid)
        if (who, token) in self.ceilings:
            self.claimed[who, token] = paid

    @rule(seconds=st.integers(1, 2 * payables.DAY))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @invariant()
    def the_sums_are_right(self) -> None:
        if not hasattr(self, "db"):
            return
        for token in TOKENS:
            totals = payables.totals(self.db, token, self.now)
            assert totals.owing == self.owing(token)
            assert totals.newcomers == self.newcomers(token)
            assert totals.recent >= self.recently(token)
        for (who, token), ceiling in self.ceilings.items():
            entry = payables.lane(self.db, EXECUTORS[who].address, token)
            assert entry is not None
            assert (entry.ceiling, entry.accepted) == (ceiling, self.accepted.get((who, token), 0))
        kept = self.db.execute("SELECT ceiling FROM payable").fetchall()
        assert sum(number(row[0]) for row in kept) == sum(self.ceilings.values())


TestLanes = Lanes.TestCase
TestLanes.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)


def test_what_a_stranger_was_promised_yesterday_counts_when_it_wants_more() -> None:
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.executescript(receipts.TABLES + payables.TABLES)
    wants = [Ask(EXECUTORS[0].address, 0, 751, 751), Ask(EXECUTORS[0].address, 0, 1_501, 1_501)]
    ceilings = [
        payables.raise_ceiling(db, TOKENS[0], ask, 9_999, SETTINGS, now).ceiling
        for ask, now in zip(wants, (0, payables.DAY), strict=True)
    ]
    assert ceilings == [751, 751]
    db.close()
