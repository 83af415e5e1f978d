"""A client's lanes on a real disk: ceilings, what was accepted, and limits over all lanes."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

from payables_support import CLIENT, DOMAIN, EXECUTOR, MODEL, OTHER, TOKEN, FakeContract, judged, opened, receipt

from lloom.adapters.payment.payables import Payables
from lloom.core.identity import Identity
from lloom.core.messages import Usage
from lloom.core.payment.events import Block, Seen, Settled
from lloom.core.payment.payable import LaneEntry
from lloom.core.payment.promises import Ask, Raised


def ask(least: int, best: int | None = None, executor: Identity = EXECUTOR, number: int = 0) -> Ask:
    return Ask(executor.address, number, least, least if best is None else best)


def settled(claimed: int, client: bytes = CLIENT.address, removed: bool = False, lane: int = 0) -> Seen:
    event = Settled(client, EXECUTOR.address, TOKEN, lane, claimed, claimed, claimed)
    return Seen(event, Block(1, bytes(32), 0), bytes(32), 0, False, removed)


async def told(payables: Payables, event: Seen, owing: int) -> None:
    """Returns when what the contract told has changed what is owed as it should."""
    payables.heard([event])
    async with asyncio.timeout(10):
        while (await payables.purchasing()).owing != owing:  # noqa: ASYNC110 - it is a file
            await asyncio.sleep(0)


def rows(path: Path, question: str) -> list[Any]:
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    found = db.execute(question).fetchall()
    db.close()
    return found


async def test_a_ceiling_is_on_the_disk_when_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    async with opened(path) as payables:
        assert await payables.lane(EXECUTOR.address) is None
        assert await payables.raise_ceiling(ask(500, 900)) == Raised(900)
        assert rows(path, "SELECT ceiling FROM payable") == [((900).to_bytes(16, "big"),)]
    async with opened(path) as payables:
        assert await payables.lane(EXECUTOR.address) == LaneEntry(0, 900)


async def test_accepted_receipts_count_once_however_often_they_are_told(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.sqlite") as payables:
        await payables.raise_ceiling(ask(500))
        batch = [judged(1), judged(2)]
        await asyncio.gather(payables.keep(batch), payables.keep(batch), payables.keep([judged(2), judged(3)]))
        lane = await payables.lane(EXECUTOR.address)
        assert lane is not None
        assert (lane.accepted, lane.seq, lane.charged, lane.left_out) == (300, 3, 300, ())
        assert lane.usages == (Usage(MODEL, 12, 6, 3),)


async def test_a_disputed_receipt_is_kept_as_evidence_and_not_accepted(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    async with opened(path) as payables:
        await payables.raise_ceiling(ask(500))
        await payables.keep([judged(1), judged(2, "too many tokens")])
        lane = await payables.lane(EXECUTOR.address)
        assert lane is not None
        assert (lane.accepted, lane.left_out) == (100, (2,))
    assert rows(path, "SELECT executor, problem FROM disputed") == [(EXECUTOR.address, "too many tokens")]
    assert rows(path, "SELECT count(*) FROM kept") == [(1,)]


async def test_newcomers_share_a_limit_until_they_deliver(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.sqlite") as payables:
        assert await payables.raise_ceiling(ask(15_000)) == Raised(15_000)
        refused = await payables.raise_ceiling(ask(5_001, executor=OTHER))
        assert (refused.ceiling, refused.code) == (0, "prepay_limit")
        await payables.keep([judged(1)])
        assert await payables.raise_ceiling(ask(20_000, executor=OTHER)) == Raised(20_000)


async def test_the_budget_is_for_a_day(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.sqlite", budget=1_000) as payables:
        now = 1_000_000_000
        payables._clock = lambda: now
        assert await payables.raise_ceiling(ask(600)) == Raised(600)
        assert (await payables.raise_ceiling(ask(1_001))).code == "budget"
        assert await payables.raise_ceiling(ask(700, 9_000)) == Raised(700 + 300 // 8)
        now += 26 * 3600
        assert await payables.raise_ceiling(ask(1_700)) == Raised(1_700)


async def test_all_lanes_together_promise_no_more_than_is_paid_in(tmp_path: Path) -> None:
    contract = FakeContract(available=1_000)
    async with opened(tmp_path / "ledger.sqlite", contract) as payables:
        raises = [payables.raise_ceiling(ask(300, executor=Identity(bytes(31) + bytes([n])))) for n in range(5, 15)]
        raised = await asyncio.gather(*raises)
        assert [each.ceiling for each in raised].count(300) == 3
        assert {each.code for each in raised if not each.ceiling} == {"no_funds"}
        assert (await payables.purchasing()).owing == 900


async def test_what_the_contract_has_paid_is_promised_no_more(tmp_path: Path) -> None:
    contract = FakeContract(available=1_000)
    async with opened(tmp_path / "ledger.sqlite", contract) as payables:
        await payables.raise_ceiling(ask(800))
        assert (await payables.raise_ceiling(ask(300, executor=OTHER))).code == "no_funds"
        following = asyncio.create_task(payables.follow())
        contract.available, contract.claimed = 300, {EXECUTOR.address: 700}
        await told(payables, settled(700), owing=100)
        assert await payables.raise_ceiling(ask(200, executor=OTHER)) == Raised(200)
        contract.available, contract.claimed = 1_000, {}  # a block was replaced
        await told(payables, settled(700, removed=True), owing=1_000)
        payables.heard([settled(700, client=OTHER.address)])
        assert not payables._news.is_set()  # that is somebody else's money
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_a_deposit_is_noticed_when_money_is_short(tmp_path: Path) -> None:
    contract = FakeContract(available=0)
    async with opened(tmp_path / "ledger.sqlite", contract) as payables:
        refused = await payables.raise_ceiling(ask(300))
        assert "command=deposit" in refused.problem
        contract.available = 300
        assert await payables.raise_ceiling(ask(300)) == Raised(300)
        contract.away = True
        assert (await payables.purchasing()).available == 300  # what was known stays


async def test_nothing_is_promised_before_a_chain_has_told_what_is_paid_in(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.sqlite", FakeContract(away=True)) as payables:
        assert (await payables.raise_ceiling(ask(1))).code == "chain_away"


async def test_a_lane_is_adopted_as_it_is_proved_to_stand_and_only_once(tmp_path: Path) -> None:
    contract = FakeContract(claimed={EXECUTOR.address: 400})
    async with opened(tmp_path / "ledger.sqlite", contract) as payables:
        proved = LaneEntry(0, 700, 600, (Usage(MODEL, 1, 2, 3),), 5, 600, (4,))
        assert await payables.adopt(EXECUTOR.address, proved) == proved
        assert (await payables.purchasing()).owing == 300
        assert await payables.adopt(EXECUTOR.address, LaneEntry(0, 9)) == proved
        fresh = await payables.adopt(EXECUTOR.address, LaneEntry(77))
        assert fresh == await payables.lane(EXECUTOR.address) == LaneEntry(77)


async def test_receipts_of_a_lane_the_journal_lost_do_no_harm(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.sqlite") as payables:
        await payables.keep([judged(1)])
        assert await payables.lane(EXECUTOR.address) is None


def test_the_receipts_of_these_tests_are_well_formed() -> None:
    assert receipt(2).lane_charged == 200
    assert DOMAIN.chain_id == 31337


async def test_what_is_paid_on_a_lane_that_no_journal_can_name_ends_nothing(tmp_path: Path) -> None:
    """Some other program signs with our key: its lanes may have any number of 64 bits."""
    async with opened(tmp_path / "ledger.sqlite", FakeContract(claimed={EXECUTOR.address: 300})) as payables:
        await payables.raise_ceiling(ask(500))
        following = asyncio.create_task(payables.follow())
        payables.heard([settled(300, lane=(1 << 64) - 1)])
        await told(payables, settled(300), 200)
        assert not following.done()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
