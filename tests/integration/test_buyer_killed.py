"""A client that is killed, loses its journal, or runs twice: it promises no less than it did, and no more than it may."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from market_support import PER_EXECUTOR, TOKEN_COST, Buyer, Sale, Seller, buying, listening, well

from lloom.core.messages import LaneCall, LaneState, SignedVoucher
from lloom.core.payment.voucher import read
from tests.money_support import lost
from tests.unit.adapters.routing_support import request

BUY = """
import asyncio, os, signal, sys
from pathlib import Path
from market_support import LocalBank, Seller, buying
from lloom.adapters.routing import lane
from lloom.core.identity import Identity
from tests.unit.adapters.routing_support import request

point, path, port, key = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), bytes.fromhex(sys.argv[4])
number = 0

def die(here, at):
    if point == here and number == at:
        os.kill(os.getpid(), signal.SIGKILL)

class Bank(LocalBank):
    async def raise_ceiling(self, ask):
        die("before a ceiling is written", 1)
        raised = await super().raise_ceiling(ask)
        die("after a ceiling is written", 1)
        return raised

    def keep(self, judged):
        die("before a receipt is written", 3)
        super().keep(judged)

cover = lane.Lane.cover
async def covered(self, *arguments):
    voucher = await cover(self, *arguments)
    die("after a voucher is signed", 3)
    return voucher
lane.Lane.cover = covered

async def main():
    global number
    seller = Seller()
    seller.identity, seller.port = Identity(key), port
    seller.seal()
    async with buying(path, seller, banking=Bank, closing_seconds=30) as buyer:
        for number in (1, 2, 3):
            answer = await buyer.router.ask(request())
            die("while an answer arrives", 3)
            async for _ in answer:
                pass
            die("before its receipt comes", 3)
            await buyer.bank.settled(number)
            die("after a receipt is written", 3)

asyncio.run(main())
"""
POINTS = [
    "before a ceiling is written",
    "after a ceiling is written",
    "after a voucher is signed",
    "while an answer arrives",
    "before its receipt comes",
    "before a receipt is written",
    "after a receipt is written",
]


async def ask(buyer: Buyer) -> None:
    answer = await buyer.router.ask(request())
    async for _ in answer:
        pass


async def billed(sale: Sale) -> None:
    """Serves well, and bills what it sent to whoever hangs up."""
    await well(sale)


async def killed(point: str, path: Path, seller: Seller) -> None:
    """Buys in a process of its own until that is killed at `point`."""
    folders = os.pathsep.join((str(Path(__file__).parent), str(Path(__file__).parents[2])))
    arguments = (point, str(path), str(seller.port), seller.identity.secret.hex())
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", BUY, *arguments, env={**os.environ, "PYTHONPATH": folders}, stderr=subprocess.PIPE
    )
    _, errors = await process.communicate()
    assert process.returncode == -signal.SIGKILL, errors.decode()


def ceiling(path: Path) -> int:
    db = sqlite3.connect(path)
    found = db.execute("SELECT ceiling FROM payable").fetchall()
    db.close()
    return sum(int.from_bytes(row[0], "big") for row in found)


@pytest.mark.parametrize("point", POINTS)
async def test_a_client_killed_at_any_point_goes_on(tmp_path: Path, point: str) -> None:
    path, seller = tmp_path / "ledger.sqlite", Seller(billed)
    async with listening(seller):
        await killed(point, path, seller)
        promised = max(seller.vouchers, default=0)
        assert promised <= ceiling(path), "a voucher that the journal does not know of"
        seller.vouchers.clear()
        async with buying(path, seller, closing_seconds=30) as buyer:
            await ask(buyer)
            await buyer.bank.settled(1)
            payable = buyer.lane(seller).payable
            assert seller.vouchers[0] >= promised, "less than was promised"
            assert set(buyer.problems) == {""}
            while payable.accepted < seller.book.charged:  # noqa: ASYNC110 - bounded by the buyer's own timeout
                await asyncio.sleep(0.001)
            assert payable.accepted == seller.book.charged, "what was delivered before the kill is accepted"
            assert payable.signed - payable.accepted <= PER_EXECUTOR
        assert len(seller.books) == 1, "the lane stays"


async def test_a_killed_client_believes_no_more_than_it_had_promised(tmp_path: Path) -> None:
    path, seller = tmp_path / "ledger.sqlite", Seller()
    async with listening(seller):
        await killed("while an answer arrives", path, seller)
        sale, before = seller.sales[-1], seller.book.best
        for _ in range(200):
            sale.receipt(900, 100)  # it knows that its client was killed, and invents what it served
        async with buying(path, seller, closing_seconds=30) as buyer:
            await ask(buyer)
            payable = buyer.lane(seller).payable
            assert payable.accepted <= before
            assert "a charge for a request that nobody made" in buyer.problems
            print(f"a kill: at most {before} of {seller.book.charged} believed, which was promised before")
            assert payable.signed - payable.accepted <= PER_EXECUTOR


async def test_a_client_that_lost_its_journal_takes_its_own_voucher_for_proof(tmp_path: Path) -> None:
    seller = Seller()
    async with listening(seller):
        async with buying(tmp_path / "lost.sqlite", seller, closing_seconds=30) as buyer:
            for number in (1, 2, 3):
                await ask(buyer)
                await buyer.bank.settled(number)
        promised, charged = seller.book.best, seller.book.charged
        async with buying(tmp_path / "new.sqlite", seller, closing_seconds=30) as buyer:
            await ask(buyer)
            await buyer.bank.settled(1)
            payable = buyer.lane(seller).payable
            assert payable.accepted == charged + 13 * TOKEN_COST == seller.book.charged
            assert payable.signed > promised
            assert buyer.problems == [""]
        assert (len(seller.books), seller.book.voucher and seller.book.voucher.usages[0].requests) == (1, 4)


async def test_an_executor_that_claims_more_than_the_voucher_it_shows_gets_no_more(tmp_path: Path) -> None:
    seller = Seller()
    async with listening(seller):
        async with buying(tmp_path / "lost.sqlite", seller, closing_seconds=30) as buyer:
            await ask(buyer)
        promised = seller.book.best
        seller.book.charged = 1 << 80
        async with buying(tmp_path / "new.sqlite", seller, closing_seconds=30) as buyer:
            await ask(buyer)
            assert buyer.lane(seller).payable.accepted <= promised + 13 * TOKEN_COST
            assert seller.book.best <= promised + PER_EXECUTOR


async def test_two_processes_with_one_key_end_up_on_lanes_of_their_own(tmp_path: Path) -> None:
    seller = Seller()
    async with (
        listening(seller),
        buying(tmp_path / "a.sqlite", seller, closing_seconds=30) as first,
        buying(tmp_path / "b.sqlite", seller, closing_seconds=30) as second,
    ):
        await ask(first)
        await first.bank.settled(1)
        for number in range(1, 100):
            await ask(second)
            await second.bank.settled(number)
        assert len(seller.books) == 1
        first.purse.lanes.doubt(seller.address)  # as if refused: the lane is charged with what the other one did
        while first.lane(seller).payable.number == 0:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.001)
        await ask(first)
        await second.router.ask(request())
        assert len(seller.books) == 2
        mine = await first.bank.payables.lane(seller.address)
        assert mine is not None
        assert mine.number >> 62 == 1


async def test_after_a_refusal_for_want_of_money_the_executor_is_asked_what_it_knows(tmp_path: Path) -> None:
    from lloom.core.errors import RetryElsewhere

    async def refuses(sale: Sale) -> None:
        raise RetryElsewhere("more, please", status=402, code="payment_required")

    seller = Seller(refuses)
    async with listening(seller), buying(tmp_path / "ledger.sqlite", seller, closing_seconds=30) as buyer:
        with pytest.raises(RetryElsewhere, match="more, please"):
            await ask(buyer)
        while seller.lane_calls < 2:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.001)
        payable = buyer.lane(seller).payable
        assert payable.grants == {}
        signed: list[SignedVoucher] = [seller.book.voucher] if seller.book.voucher else []
        assert read(signed[0]).cumulative == payable.signed


async def test_a_journal_from_before_somebody_else_signed_begins_a_new_lane(tmp_path: Path) -> None:
    """A backup was restored, or another process had the key meanwhile: what it promised is not known here."""
    seller = Seller()
    async with listening(seller):
        async with buying(tmp_path / "old.sqlite", seller, closing_seconds=30) as buyer:
            await ask(buyer)
        async with buying(tmp_path / "other.sqlite", seller, closing_seconds=30) as buyer:
            for number in range(1, 100):
                await ask(buyer)
                await buyer.bank.settled(number)
        assert len(seller.books) == 1
        assert seller.book.best > ceiling(tmp_path / "old.sqlite")
        async with buying(tmp_path / "old.sqlite", seller, closing_seconds=30) as buyer:
            await ask(buyer)
            await buyer.bank.settled(1)
            assert buyer.problems == [""]
            payable = buyer.lane(seller).payable
            assert (payable.number >> 62, payable.accepted) == (1, 13 * TOKEN_COST)
        assert len(seller.books) == 2


async def test_receipts_that_were_accepted_once_are_not_accepted_again_after_a_start(tmp_path: Path) -> None:
    class Replaying(Seller):
        def state(self, call: LaneCall) -> LaneState:
            every = self.books[call.lane].receipts if self.books else []
            return msgspec.structs.replace(super().state(call), seq=1 + len(every), receipts=tuple(every))

    seller = Seller()
    async with listening(seller):
        for _ in range(3):
            async with buying(tmp_path / "ledger.sqlite", seller, closing_seconds=30) as buyer:
                await ask(buyer)
                async with asyncio.timeout(10):
                    while buyer.lane(seller).payable.accepted < seller.book.charged:  # noqa: ASYNC110 - it is a bridge
                        await asyncio.sleep(0.001)
                assert buyer.lane(seller).payable.accepted == seller.book.charged
            seller.__class__ = Replaying


@pytest.mark.parametrize("hidden", [False, True])
async def test_a_client_that_starts_anew_believes_no_more_than_the_voucher_it_is_shown(
    tmp_path: Path, hidden: bool
) -> None:
    """Its journal allows far more than was ever signed, so that it need not be raised for each request."""

    class Hiding(Seller):
        def state(self, call: LaneCall) -> LaneState:
            state = super().state(call)
            return msgspec.structs.replace(state, voucher=None) if hidden else state

    path, seller = tmp_path / "ledger.sqlite", Hiding()
    async with listening(seller):
        async with buying(path, seller, closing_seconds=30) as buyer:
            await ask(buyer)
            await buyer.bank.settled(1)
        promised = seller.book.best
        assert ceiling(path) > 2 * promised
        for _ in range(100):
            seller.sales[-1].receipt(9, 4, request_digest=os.urandom(32))
        async with buying(path, seller, closing_seconds=30) as buyer:
            await ask(buyer)
            await buyer.bank.settled(1)
            accepted = buyer.lane(seller).payable.accepted
            bound = 0 if hidden else promised
            lost("invented receipts after a start, beyond what was served", accepted - 26 * TOKEN_COST, bound)
