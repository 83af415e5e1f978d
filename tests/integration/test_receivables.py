"""The executor's ledger over a real journal: grants, receipts, restarts, cheats, and a process that is killed at any point."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from receivables_support import (
    CLIENT,
    DOMAIN,
    EXECUTOR,
    LANE,
    TOKEN,
    A,
    B,
    FakeBank,
    books,
    checked,
    draft,
)

from lloom.adapters.journal import lanes
from lloom.adapters.payment.receivables import MAX_LANES
from lloom.core.billing.lane import Lane
from lloom.core.billing.receipt import RECEIPT, read_receipt
from lloom.core.eip712 import signer
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import Identity
from lloom.core.messages import LaneCall, amount
from lloom.core.payment.events import Block, Deposited, Seen
from lloom.core.payment.funds import Funds, LaneFunds
from lloom.core.payment.receivable import Ask, Grant, Holder, Receivable
from tests.money_support import lost


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


async def test_a_voucher_is_on_the_disk_with_what_it_grants(path: Path) -> None:
    async with books(path) as ledger:
        grant = await ledger.lend(least=30, voucher=checked(100))
        assert (grant.granted, grant.short) == (100, 0)
    async with books(path) as ledger:
        again = await ledger.lend(fresh=True)
        assert (again.granted, again.spent) == (100, 0)
        state = await ledger.receivables.lane(CLIENT.address, LaneCall(DOMAIN.chain_id, TOKEN, 0))
        assert state.voucher == checked(100).signed


async def test_lost_repeated_and_reordered_vouchers_change_nothing(path: Path) -> None:
    async with books(path) as ledger:
        for cumulative in (50, 200, 100, 200):
            await ledger.lend(voucher=checked(cumulative))
        granted = (await ledger.lend()).granted
        assert granted == 200
        lost("a lower voucher after a higher one", 200 - granted, 0)
        state = await ledger.receivables.lane(CLIENT.address, LaneCall(DOMAIN.chain_id, TOKEN, 0))
        assert state.voucher == checked(200).signed


async def test_of_equal_vouchers_the_one_with_more_usage_is_kept(path: Path) -> None:
    async with books(path) as ledger:
        for requests in (1, 3, 2):
            await ledger.lend(voucher=checked(100, requests=requests))
        state = await ledger.receivables.lane(CLIENT.address, LaneCall(DOMAIN.chain_id, TOKEN, 0))
        assert state.voucher == checked(100, requests=3).signed


async def test_receipts_are_charged_once_however_often_they_are_asked_for(path: Path) -> None:
    async with books(path) as ledger:
        await ledger.lend(voucher=checked(100))
        first = await ledger.receivables.issue(A, [draft(1, 10), draft(2, 20)])
        assert await ledger.receivables.issue(A, [draft(2, 20), draft(1, 10)]) == first[::-1]
        assert [read_receipt(each.receipt).lane_charged for each in first] == [10, 30]
        assert all(signer(DOMAIN.digest(RECEIPT, each.receipt), each.signature) == EXECUTOR.address for each in first)
        grant = await ledger.lend(used=30, least=70)
        assert (grant.spent, grant.granted, grant.short) == (30, 100, 0)


async def test_a_request_that_two_workers_served_is_owed_twice_and_has_one_receipt(path: Path) -> None:
    async with books(path) as ledger:
        await ledger.lend(A, voucher=checked(100))
        (first,) = await ledger.receivables.issue(A, [draft(1, 40)])
        for _ in range(2):
            assert await ledger.receivables.issue(B, [draft(1, 40, response_hash=b"x" * 32)]) == [first]
        refused = await ledger.lend(A, used=40, least=61)
        assert (refused.short, refused.needed) == (1, 40 + 40 + 61)
        (second,) = await ledger.receivables.issue(A, [draft(2, 1)])
        assert read_receipt(second.receipt).lane_charged == 41


async def test_two_workers_share_a_lane_and_give_back_what_they_do_not_use(path: Path) -> None:
    async with books(path) as ledger:
        await ledger.lend(A, voucher=checked(100))
        ledger.gives[A.life] = [ledger.ask(used=30, back=True)]
        grant = await ledger.lend(B, least=50)
        assert (grant.granted, grant.short) == (50, 0)
        assert ledger.recalled == [(A, [LANE])]
        assert (await ledger.lend(A, used=30, least=20)).granted == 50
        assert (await ledger.lend(A, used=50, least=1)).short == 1


async def test_a_worker_that_gives_nothing_back_costs_the_other_its_request_only(path: Path) -> None:
    async with books(path) as ledger:
        await ledger.lend(A, voucher=checked(100))
        grant = await ledger.lend(B, least=50)
        assert (grant.granted, grant.short, grant.reason) == (0, 50, "voucher")
        assert len(ledger.recalled) == 1
        await ledger.lend(B, least=150)  # more than A has: it is not asked
        assert len(ledger.recalled) == 1


async def test_what_is_given_back_is_for_whom_it_was_asked_not_for_who_asks_next(path: Path) -> None:
    async with books(path) as ledger:
        await ledger.lend(A, voucher=checked(100))
        again: list[asyncio.Task[Grant]] = []

        async def recall(holder: Holder, _lanes: list[Lane]) -> list[Ask]:
            if again:
                return []
            back = ledger.ask(used=30, back=True)
            again.append(asyncio.create_task(ledger.lend(holder, used=30, least=60)))
            return [back]

        ledger.recall = recall  # type: ignore[method-assign]
        assert (await ledger.lend(B, least=50)).granted == 50
        assert (await again[0]).short == 40


async def test_two_workers_that_both_lack_are_both_told(path: Path) -> None:
    """One is recalled while its own ask is under way, and that arrives after what it gave back."""
    async with books(path) as ledger:
        await ledger.lend(A, voucher=checked(100))
        await ledger.lend(A, used=50, back=True)
        await ledger.lend(B, least=50)
        under_way = ledger.ask(used=50, least=10)
        ledger.gives[B.life] = [ledger.ask(used=50, back=True)]
        first = await ledger.lend(A, used=50, least=10)
        (second,) = await ledger.receivables.lend(B, [under_way])
        assert [(each.short, each.needed, each.reason) for each in (first, second)] == [(10, 110, "voucher")] * 2


async def test_what_a_dead_worker_had_is_free_once_it_is_back(path: Path) -> None:
    reborn = Holder(A.name, b"c" * 16)
    async with books(path) as ledger:
        await ledger.lend(A, voucher=checked(100))
        await ledger.receivables.issue(A, [draft(1, 10)])
        assert (await ledger.lend(reborn, least=1, fresh=True)).short == 1
        await ledger.receivables.enlist(reborn)
        assert (await ledger.lend(reborn, least=90, fresh=True)).granted == 90
        await ledger.receivables.enlist(reborn)  # again: it keeps what it has
        assert (await ledger.lend(B, least=1)).short == 1


async def test_workers_that_are_gone_for_good_hold_nothing(path: Path) -> None:
    async with books(path) as ledger:
        await ledger.lend(B, voucher=checked(100))
        await ledger.writer.write(lambda db: lanes.dismiss(db, [A.name]), 1)
        assert (await ledger.lend(A)).granted == 100


async def test_a_stranger_without_money_leaves_nothing_behind(path: Path) -> None:
    bank = FakeBank(money={CLIENT.address: Funds(0, 0, 0)})
    async with books(path, bank) as ledger:
        grant = await ledger.lend(least=10, voucher=checked(10))
        assert (grant.granted, grant.reason) == (0, "funds")
        assert await ledger.writer.write(lambda db: lanes.load(db, LANE), 1) is None


async def test_money_that_came_later_is_seen_though_nobody_tells(path: Path) -> None:
    bank = FakeBank(money={CLIENT.address: Funds(0, 0, 0)})
    async with books(path, bank, check_seconds=1e-9) as ledger:
        assert (await ledger.lend(least=10, voucher=checked(10))).granted == 0
        bank.money[CLIENT.address] = Funds(100, 0, 0)
        assert (await ledger.lend(least=10, voucher=checked(10))).granted == 10


async def test_how_poor_a_client_is_is_not_asked_at_every_request(path: Path) -> None:
    bank = FakeBank(money={CLIENT.address: Funds(0, 0, 0)})
    async with books(path, bank, check_seconds=3600) as ledger:
        for _ in range(5):
            await ledger.lend(least=10, voucher=checked(10))
        assert bank.asked.count(CLIENT.address) == 1


async def test_what_thaws_is_not_relied_on(path: Path) -> None:
    async with books(path, FakeBank(money={CLIENT.address: Funds(1000, 960, 1)})) as ledger:
        assert (await ledger.lend(least=100, voucher=checked(100))).granted == 8  # two thresholds of a tenth of 40


async def test_a_deposit_counts_once_it_is_final(path: Path) -> None:
    bank = FakeBank(money={CLIENT.address: Funds(1000, 0, 0)})
    event = Deposited(CLIENT.address, TOKEN, CLIENT.address, 1000)
    seen = Seen(event, Block(1, bytes(32), 0), bytes(32), 0, final=False, removed=False)
    async with books(path, bank) as ledger:
        ledger.treasury.deposited(seen)
        assert (await ledger.treasury.means(CLIENT.address)).available == 0
        ledger.treasury.deposited(Seen(event, seen.block, seen.transaction, 0, final=True, removed=False))
        assert (await ledger.treasury.means(CLIENT.address)).available == 1000


async def test_one_deposit_promised_to_many_costs_an_executor_two_thresholds(path: Path) -> None:
    async with books(path, FakeBank(money={CLIENT.address: Funds(1000, 0, 0)}), share=0.1) as ledger:
        granted = (await ledger.lend(least=1000, voucher=checked(1000))).granted
        assert granted == 200
        lost("one deposit promised to many", granted, 2 * 100)


async def test_a_debt_on_one_lane_blocks_another(path: Path) -> None:
    other = Lane(CLIENT.address, TOKEN, 1)
    async with books(path, credit=10) as ledger:
        await ledger.lend(voucher=checked(100))
        await ledger.receivables.issue(A, [draft(1, 111)])  # the last tokens cost more than was drawn
        grant = await ledger.lend(A, other, least=1, voucher=checked(1000, other))
        assert (grant.granted, grant.reason) == (0, "debt")
        await ledger.lend(voucher=checked(111))
        assert (await ledger.lend(A, other, least=1, voucher=checked(1000, other))).granted > 0


async def test_nobody_opens_lanes_without_end(path: Path) -> None:
    async with books(path) as ledger:
        for number in range(MAX_LANES + 2):
            lane = Lane(CLIENT.address, TOKEN, number)
            grant = await ledger.lend(A, lane, least=1, voucher=checked(1, lane))
            assert grant.reason == ("" if number <= MAX_LANES - 1 else "lanes")


async def test_while_the_chain_is_away_vouchers_are_kept_and_strangers_refused(path: Path) -> None:
    stranger = Identity.generate()
    lane = Lane(stranger.address, TOKEN, 0)
    bank = FakeBank()
    async with books(path, bank) as ledger:
        await ledger.lend(voucher=checked(100))
    bank.away = True
    async with books(path, bank) as ledger:
        grant = await ledger.lend(least=200, voucher=checked(300))
        assert (grant.granted, grant.short, grant.reason) == (100, 100, "chain")
        grant = await ledger.lend(A, lane, least=1, voucher=checked(100, lane, stranger))
        assert (grant.granted, grant.reason) == (0, "chain")
        state = await ledger.receivables.lane(CLIENT.address, LaneCall(DOMAIN.chain_id, TOKEN, 0))
        assert state.voucher == checked(300).signed


async def test_a_lane_that_was_paid_before_the_journal_was_lost_is_charged_for_that(path: Path) -> None:
    bank = FakeBank(lines={(CLIENT.address, 0): LaneFunds(500, 0, 0)})
    async with books(path, bank) as ledger:
        grant = await ledger.lend(least=100, voucher=checked(550))
        assert (grant.granted, grant.needed) == (50, 600)


async def test_the_chain_is_asked_once_for_all_who_wait(path: Path) -> None:
    async with books(path) as ledger:
        asks = [ledger.ask(voucher=checked(100)) for _ in range(20)]
        await asyncio.gather(*(ledger.receivables.lend(A, [ask]) for ask in asks))
        assert ledger.bank.asked == [CLIENT.address, (CLIENT.address, 0)]


async def test_what_a_lane_holds_is_told_to_its_client(path: Path) -> None:
    async with books(path, credit=7) as ledger:
        await ledger.lend(voucher=checked(100))
        signed = await ledger.receivables.issue(A, [draft(number, 10) for number in range(3)])
        state = await ledger.receivables.lane(CLIENT.address, LaneCall(DOMAIN.chain_id, TOKEN, 0, since=1))
        assert (amount(state.charged), state.seq, amount(state.credit_limit)) == (30, 3, 7)
        assert state.receipts == tuple(signed[1:])
        nothing = await ledger.receivables.lane(EXECUTOR.address, LaneCall(DOMAIN.chain_id, TOKEN, 0))
        assert (amount(nothing.charged), nothing.seq, nothing.voucher, nothing.receipts) == (0, 0, None, ())


WORK_FOR_EVER = """
import asyncio, itertools, sys
from pathlib import Path
from receivables_support import A, B, books, checked, draft
from lloom.core.payment.receivable import Holder

async def main():
    start = int(sys.argv[2])
    async with books(Path(sys.argv[1])) as ledger:
        ledger.numbers = start * 1000
        for number in itertools.count(start):
            voucher = checked(100 * number)
            grant = await ledger.lend(A, least=10, used=0, voucher=voucher)
            print("granted", number, grant.granted, flush=True)
            (signed,) = await ledger.receivables.issue(A, [draft(number, 60)])
            print("issued", number, signed.receipt.hex(), signed.signature.hex(), flush=True)
            await ledger.lend(B, least=1, fresh=True)

asyncio.run(main())
"""


def work_until_killed(path: Path, number: int, lines: int) -> list[list[str]]:
    """What a process said that was killed after so many lines, and while it went on."""
    folders = os.pathsep.join((str(Path(__file__).parent), str(Path(__file__).parents[2])))
    child = subprocess.Popen(
        [sys.executable, "-c", WORK_FOR_EVER, str(path), str(number)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": folders},
    )
    assert child.stdout is not None
    with child.stdout:
        said = [child.stdout.readline().split() for _ in range(lines)]
        child.send_signal(signal.SIGKILL)
        said += [line.split() for line in child.stdout if line.endswith("\n")]
    child.wait(10)
    return said


@pytest.mark.parametrize("lines", [1, 2, 3, 8, 9, 40])
async def test_a_ledger_that_is_killed_has_kept_everything_it_said(path: Path, lines: int) -> None:
    """After every kill a new process goes on: no promise is lost, no receipt is given twice, all sums are right."""
    said: list[list[str]] = []
    for _ in range(2):
        said += work_until_killed(path, 1 + max((int(words[1]) for words in said), default=0), lines)
    receipts = {
        int(words[1]): (bytes.fromhex(words[2]), bytes.fromhex(words[3])) for words in said if words[0] == "issued"
    }
    granted = [int(words[2]) for words in said if words[0] == "granted"]
    async with books(path) as ledger:
        found = await ledger.writer.write(lambda db: lanes.load(db, LANE), 1)
        state = await ledger.receivables.lane(CLIENT.address, LaneCall(DOMAIN.chain_id, TOKEN, 0))
    assert found is not None
    kept = [(each.receipt, each.signature) for each in state.receipts]
    assert set(receipts.values()) <= set(kept)
    assert [read_receipt(receipt).lane_charged for receipt, _ in kept] == [60 * seq for seq in range(1, len(kept) + 1)]
    assert found.charged == 60 * len(kept)
    assert found.lease(A).granted >= max(granted)
    assert found.lease(A).spent == found.charged
    assert found.owed <= found.vouched
    assert found.vouched >= 100 * max(int(words[1]) for words in said)


async def test_a_worker_may_hand_in_the_same_after_a_kill(path: Path) -> None:
    async with books(path) as ledger:
        await ledger.lend(voucher=checked(100))
        given = await ledger.receivables.issue(A, [draft(1, 10)])
    async with books(path) as ledger:
        assert await ledger.receivables.issue(A, [draft(1, 10)]) == given
        found = await ledger.writer.write(lambda db: lanes.load(db, LANE), 1)
        assert found is not None
        assert (found.charged, found.doubled) == (10, 0)


async def test_whom_a_grant_was_lost_on_hears_of_it_at_the_next_ask(path: Path) -> None:
    """The reply is lost with a killed process: what was granted is neither granted again nor forgotten."""
    async with books(path) as ledger:
        await ledger.lend(least=40, voucher=checked(100))
        other = await ledger.lend(B, least=1)
        assert other.short == 1
        assert (await ledger.lend(fresh=True)).granted == 100


async def test_too_many_strangers_at_once_are_sent_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lloom.adapters.payment import treasury

    monkeypatch.setattr(treasury, "MAX_WAITING", 0)
    async with books(path) as ledger:
        with pytest.raises(RetryElsewhere, match="new to this executor"):
            await ledger.treasury.means(CLIENT.address)


def test_everything_a_lane_is_comes_back_from_the_disk(path: Path) -> None:
    from lloom.adapters.journal.file import Journal
    from lloom.core.payment.receivable import Lease

    big = (1 << 128) - 1
    leases = (Lease(holder=A, granted=big, spent=5, number=7), Lease(holder=B, granted=1, spent=0, number=9))
    state = Receivable(
        lane=Lane(CLIENT.address, TOKEN, (1 << 64) - 1),
        vouched=big,
        charged=1,
        doubled=2,
        leases=leases,
        claimed=3,
        confirmed=4,
        reserved=5,
    )
    sibling = Receivable(lane=Lane(CLIENT.address, TOKEN, 0), charged=8)
    journal = Journal(path)
    try:
        journal.commit([lambda db: lanes.save(db, None, state), lambda db: lanes.save(db, None, sibling)])
        assert journal.commit([lambda db: lanes.load(db, state.lane)]) == [state]
        assert journal.commit([lambda db: lanes.siblings(db, state.lane)]) == [[sibling]]
        fewer = Receivable(lane=state.lane, leases=leases[:1])
        journal.commit([lambda db: lanes.save(db, state, fewer)])
        assert journal.commit([lambda db: lanes.load(db, state.lane)]) == [fewer]
    finally:
        journal.close()
