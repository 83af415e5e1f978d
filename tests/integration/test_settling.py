"""Redeeming vouchers over a real journal, with a chain that answers as told: what is handed over, and what is heard of it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from bridge_support import until
from receivables_support import CLIENT, EXECUTOR, LANE, TOKEN, A, B, Books, FakeBank, books, checked, draft

from lloom.adapters.journal import lanes
from lloom.adapters.journal.lanes import Owing
from lloom.adapters.payment import settling
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import Identity
from lloom.core.payment.events import Block, Event, ReleaseStarted, Seen, Settled, Skipped, ThawStarted
from lloom.core.payment.funds import Funds, LaneFunds
from lloom.core.payment.receivable import Receivable
from lloom.core.payment.voucher import Claim
from tests.money_support import lost

NOW = time.time() + 3600
"""Later than any voucher of these tests comes."""
DAY = 86_400.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def bank(balance: int = 1000, **what: Any) -> FakeBank:
    return FakeBank(money={CLIENT.address: Funds(balance, 0, 0)}, **what)


def seen(event: Event, *, final: bool = False, removed: bool = False) -> Seen:
    return Seen(event, Block(1, bytes(32), 0), bytes(32), 0, final=final, removed=removed)


def settled(claimed: int, executor: Identity = EXECUTOR) -> Settled:
    return Settled(CLIENT.address, executor.address, TOKEN, 0, claimed, claimed, claimed)


async def owe(ledger: Books, amount: int) -> None:
    """The client owes `amount` and has promised it."""
    await ledger.lend(A, voucher=checked(amount))
    now = int(time.time() * 1000)
    await ledger.receivables.issue(A, [draft(amount, amount, finished_at=now)])


async def paid(ledger: Books, claimed: int) -> None:
    """The contract has paid so much, for certain."""
    ledger.bank.lines[CLIENT.address, 0] = LaneFunds(claimed, 0, 0)
    ledger.settling.on_events([seen(settled(claimed), final=True)])
    await ledger.settling.hear()


async def owing(ledger: Books) -> list[Owing]:
    return await ledger.writer.write(lanes.owing, 1)


async def state(ledger: Books) -> Receivable:
    found = await ledger.writer.write(lambda db: lanes.load(db, LANE), 1)
    assert found is not None
    return found


async def test_what_is_due_is_handed_over_once(path: Path) -> None:
    async with books(path, bank()) as ledger:
        await owe(ledger, 99)
        assert await ledger.settling.look(NOW) == []
        await owe(ledger, 100)
        assert await ledger.settling.look(NOW) == [1]
        assert ledger.bank.settled == [(TOKEN, [Claim(checked(100), 100)])]
        await owe(ledger, 150)
        assert await ledger.settling.look(NOW) == []
    async with books(path, ledger.bank) as ledger:  # nor by a process that comes later
        assert await ledger.settling.look(NOW) == []
        assert await ledger.settling.look(NOW + settling.AGAIN_SECONDS) == [2]  # unless nothing is heard of it


async def test_a_settlement_that_waits_for_cheaper_gas_keeps_back_nothing_that_came_after_it(path: Path) -> None:
    async with books(path, bank()) as ledger:
        await owe(ledger, 100)
        assert await ledger.settling.look(NOW) == [1]
        ledger.bank.flying = [(LANE, 100)]
        later = NOW + settling.AGAIN_SECONDS
        assert await ledger.settling.look(later, everything=True) == [], "that is on its way"
        await owe(ledger, 900)
        ledger.bank.money[CLIENT.address] = Funds(1000, 1000, int(later) + 172_800)
        await ledger.treasury.renew([CLIENT.address])
        assert await ledger.settling.look(later) == [2]
        assert ledger.bank.settled[-1] == (TOKEN, [Claim(checked(900), 900)])


async def test_no_more_is_redeemed_than_was_charged(path: Path) -> None:
    async with books(path, bank()) as ledger:
        await ledger.lend(A, voucher=checked(1000))
        assert await ledger.settling.look(NOW, everything=True) == []
        for charged in (150, 220):
            await ledger.receivables.issue(A, [draft(charged, charged - (await state(ledger)).charged)])
            assert len(await ledger.settling.look(NOW, everything=True)) == 1
            assert ledger.bank.settled[-1][1] == [Claim(checked(1000), charged)]
            assert len(await owing(ledger)) == 1, "until it is final"
            await paid(ledger, charged)
            assert await owing(ledger) == []
            assert await ledger.settling.look(NOW, everything=True) == []


async def test_what_was_charged_beyond_a_voucher_waits_for_a_larger_one(path: Path) -> None:
    async with books(path, bank(), credit=100) as ledger:
        await ledger.lend(A, voucher=checked(100))
        await ledger.receivables.issue(A, [draft(1, 160)])
        await ledger.settling.look(NOW)
        assert ledger.bank.settled[-1][1] == [Claim(checked(100), 100)]
        await paid(ledger, 100)
        assert await owing(ledger) == []
        await ledger.lend(A, voucher=checked(500))
        await ledger.settling.look(NOW, everything=True)
        assert ledger.bank.settled[-1][1] == [Claim(checked(500), 160)]


async def test_what_was_delivered_twice_is_not_redeemed(path: Path) -> None:
    async with books(path, bank()) as ledger:
        await ledger.lend(A, voucher=checked(1000))
        await ledger.receivables.issue(A, [draft(1, 100)])
        await ledger.receivables.issue(B, [draft(1, 90, response_bytes=5)])
        assert (await state(ledger)).doubled == 90
        await ledger.settling.look(NOW, everything=True)
        assert ledger.bank.settled[-1][1] == [Claim(checked(1000), 100)]


async def test_what_is_due_is_as_old_as_its_voucher_and_its_charge_are(path: Path) -> None:
    async with books(path, bank()) as ledger:
        await ledger.lend(A, voucher=checked(150))
        for number, finished in ((1, 5_000_000), (2, 6_000_000)):
            await ledger.receivables.issue(A, [draft(number, 100, finished_at=finished)])
        assert [each.since for each in await owing(ledger)] == [5_000], "seconds"
        await paid(ledger, 150)
        await ledger.lend(A, voucher=checked(1000))
        assert [each.since for each in await owing(ledger)] == [pytest.approx(time.time(), abs=60)]
        await paid(ledger, 200)
        await ledger.receivables.issue(A, [draft(3, 100, finished_at=9_000_000)])
        assert [each.since for each in await owing(ledger)] == [9_000]


async def test_what_a_worker_does_not_use_is_had_back_when_a_client_takes_its_money_out(path: Path) -> None:
    async with books(path, bank()) as ledger:
        grant = await ledger.lend(A, voucher=checked(90))
        assert grant.granted == 90
        ledger.gives[A.life] = [ledger.ask(used=30, back=True)]
        ledger.bank.money[CLIENT.address] = Funds(1000, 1000, 1)
        ledger.settling.on_events([seen(ThawStarted(CLIENT.address, TOKEN, 1000, 1))])
        await ledger.settling.hear()
        assert ledger.recalled == [(A, [LANE])]
        assert (await state(ledger)).lease(A).open == 30, "what runs is delivered, charged and redeemed"
        assert (await ledger.lend(A, used=30, least=1)).reason == "funds"


async def test_a_kill_between_handing_over_and_noting_it_hands_nothing_over_twice(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise ZeroDivisionError  # nothing is written

    async with books(path, bank()) as ledger:
        await owe(ledger, 100)
        with monkeypatch.context() as patch:
            patch.setattr(lanes, "hand", killed)
            with pytest.raises(ZeroDivisionError):
                await ledger.settling.look(NOW)
    assert len(ledger.bank.settled) == 1
    ledger.bank.flying = [(LANE, 100)]
    async with books(path, ledger.bank) as ledger:
        await owe(ledger, 150)
        assert await ledger.settling.look(NOW) == []
        ledger.bank.flying = []
        assert await ledger.settling.look(NOW) == [2]


async def test_what_was_redeemed_is_due_no_more_and_the_rest_is(path: Path) -> None:
    async with books(path, bank()) as ledger:
        await owe(ledger, 100)
        await ledger.settling.look(NOW)
        await owe(ledger, 150)
        ledger.bank.lines[CLIENT.address, 0] = LaneFunds(100, 0, 0)
        ledger.settling.on_events([seen(settled(100))])
        await ledger.settling.hear()
        assert ((await state(ledger)).claimed, (await state(ledger)).confirmed) == (100, 0)
        assert await ledger.settling.look(NOW, everything=True) == [2]
        ledger.settling.on_events([seen(settled(100), final=True)])  # old news, while the second is under way
        await ledger.settling.hear()
        assert (await state(ledger)).confirmed == 100
        assert await ledger.settling.look(NOW, everything=True) == []


async def test_a_payment_whose_block_is_replaced_is_owed_again(path: Path) -> None:
    async with books(path, bank()) as ledger:
        await owe(ledger, 100)
        ledger.bank.lines[CLIENT.address, 0] = LaneFunds(100, 0, 0)
        ledger.settling.on_events([seen(settled(100))])
        await ledger.settling.hear()
        ledger.bank.lines[CLIENT.address, 0] = LaneFunds(0, 0, 0)
        ledger.settling.on_events([seen(settled(100), removed=True)])
        await ledger.settling.hear()
        assert (await state(ledger)).claimed == 0


async def test_a_client_that_takes_its_money_out_is_redeemed_at_once(path: Path) -> None:
    async with books(path, bank(balance=10**6, price=1)) as ledger:
        ledger.bank.money[CLIENT.address] = Funds(10**9, 0, 0)
        await owe(ledger, 200_000)
        assert await ledger.settling.look(NOW) == []
        ledger.bank.money[CLIENT.address] = Funds(10**9, 10**9, 1)
        ledger.settling.on_events([seen(ThawStarted(CLIENT.address, TOKEN, 10**9, 1))])
        await ledger.settling.hear()
        assert (await ledger.treasury.means(CLIENT.address)).available == 0
        assert await ledger.settling.look(NOW) == [1]
        ((_, [claim]),) = ledger.bank.settled
        lost("a deposit taken out while it owes", 200_000 - claim.up_to, 0)


async def test_a_lane_that_is_released_is_redeemed_and_not_relied_on(path: Path) -> None:
    lines = {(CLIENT.address, 0): LaneFunds(0, 10**9, 0)}
    async with books(path, bank(balance=0, price=1, lines=lines)) as ledger:
        await owe(ledger, 200_000)
        assert (await state(ledger)).reserved == 10**9
        assert await ledger.settling.look(NOW) == []
        ledger.bank.lines[CLIENT.address, 0] = LaneFunds(0, 10**9, 5)
        ledger.settling.on_events([seen(ReleaseStarted(CLIENT.address, EXECUTOR.address, TOKEN, 0, 5))])
        await ledger.settling.hear()
        assert (await state(ledger)).reserved == 0
        assert await ledger.settling.look(NOW) == [1]


async def test_what_is_old_is_redeemed(path: Path) -> None:
    async with books(path, bank(balance=10**9, price=1)) as ledger:
        await owe(ledger, 400_000)
        assert await ledger.settling.look(NOW) == []
        assert await ledger.settling.look(NOW + DAY + 60) == [1]


async def test_everything_that_is_worth_its_gas_is_redeemed_when_asked_for(path: Path) -> None:
    async with books(path, bank(balance=10**9, price=1)) as ledger:
        await owe(ledger, 100_000)
        assert await ledger.settling.look(NOW, everything=True) == []
        await owe(ledger, 200_000)
        assert await ledger.settling.look(NOW, everything=True) == [1]


async def test_news_of_others_are_not_ours(path: Path) -> None:
    async with books(path, bank()) as ledger:
        await owe(ledger, 50)
        ledger.settling.on_events([seen(settled(50, executor=Identity.generate()), final=True)])
        await ledger.settling.hear()
        assert (await state(ledger)).claimed == 0


async def test_while_the_chain_is_away_nothing_is_lost(path: Path) -> None:
    async with books(path, bank(), check_seconds=0.001) as ledger:
        await owe(ledger, 150)
        ledger.bank.away = True
        asked = len(ledger.bank.asked)
        work = asyncio.create_task(ledger.settling.run())
        ledger.settling.on_events([seen(settled(40), final=True)])
        await until(lambda: len(ledger.bank.asked) >= asked + 3)
        ledger.bank.away = False
        ledger.bank.lines[CLIENT.address, 0] = LaneFunds(40, 0, 0)
        await until(lambda: bool(ledger.bank.settled))
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        assert ledger.bank.settled[0][1] == [Claim(checked(150), 150)]
        assert (await state(ledger)).confirmed == 40


async def test_news_wait_for_a_journal_that_cannot_be_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with books(path, bank()) as ledger:
        await owe(ledger, 100)
        ledger.bank.lines[CLIENT.address, 0] = LaneFunds(100, 0, 0)
        ledger.settling.on_events([seen(settled(100), final=True)])
        with monkeypatch.context() as patch:

            async def stuck(*_: object) -> None:
                raise RetryElsewhere("the disk is full", code="journal_stuck")

            patch.setattr(ledger.writer, "write", stuck)
            with pytest.raises(RetryElsewhere):
                await ledger.settling.hear()
        await ledger.settling.hear()
        assert (await state(ledger)).confirmed == 100


async def test_an_unpaid_voucher_of_a_client_without_money_is_not_tried(path: Path) -> None:
    async with books(path, bank()) as ledger:
        await owe(ledger, 100)
        ledger.bank.money[CLIENT.address] = Funds(0, 0, 0)
        await ledger.treasury.renew([CLIENT.address])
        assert await ledger.settling.look(NOW, everything=True) == []


async def test_claims_of_strangers_that_fail_in_our_name_ask_the_chain_nothing(path: Path) -> None:
    """Anybody can send those, hundreds of them for a cent: each would be a question to a server that counts them."""
    async with books(path, bank()) as ledger:
        await owe(ledger, 100)
        ledger.bank.asked.clear()
        strange = [Skipped(bytes([n]) * 20, EXECUTOR.address, TOKEN, n, 1) for n in range(3)]
        ours = [Skipped(CLIENT.address, EXECUTOR.address, TOKEN, number, 2) for number in (0, 7)]
        ledger.settling.on_events([seen(event) for event in (*strange, *ours)])
        await ledger.settling.hear()
        assert [each for each in ledger.bank.asked if isinstance(each, tuple)] == [(CLIENT.address, 0)]


async def test_usage_of_models_that_were_never_served_is_not_brought(path: Path) -> None:
    """A client can name sixteen that nobody has heard of in each voucher: the contract takes ten times the gas to count those."""
    async with books(path, bank()) as ledger:
        await ledger.lend(A, voucher=checked(100, requests=5))
        await ledger.receivables.issue(A, [draft(1, 100, model=b"\x07" * 32)])
        await ledger.settling.look(NOW, everything=True)
        [(_, [claim])] = ledger.bank.settled
        assert (claim.up_to, claim.checked.usages, claim.checked.voucher) == (100, (), checked(100, requests=5).voucher)
        await paid(ledger, 100)
        await ledger.lend(A, voucher=checked(300, requests=6))
        await ledger.receivables.issue(A, [draft(2, 150, model=bytes(32))])
        await ledger.settling.look(NOW, everything=True)
        assert ledger.bank.settled[-1][1] == [Claim(checked(300, requests=6), 250)]
