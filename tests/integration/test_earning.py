"""The books of an executor on a real chain: what is promised against a real deposit is lent, charged, redeemed, and gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from bridge_support import until
from chain_support import COIN, ETHER, Local
from msgspec.structs import replace
from receivables_support import draft

from lloom.actors.accounting import Accounting, journal_path
from lloom.actors.place import FellowAway, Place
from lloom.adapters.chain import banking, deployment
from lloom.adapters.journal import lanes
from lloom.core.billing.lane import Lane
from lloom.core.errors import ConfigError, RetryElsewhere
from lloom.core.identity import Identity
from lloom.core.messages import LaneCall, amount
from lloom.core.payment.receivable import Ask, Holder, Receivable
from tests.money_support import accounting

A, B = Holder("executor-worker-0", b"a" * 16), Holder("executor-worker-1", b"b" * 16)
GONE = Holder("executor-worker-2", b"c" * 16)
FINNEY = 10**15


class Node:
    """An executor of two Workers, as its books know it."""

    def __init__(self, home: Path, local: Local, identity: Identity, numbers: int = 0, **changes: Any) -> None:
        self.chain = local.settings(settle_above=10 * FINNEY)
        rules = replace(accounting().settlement, check_seconds=0.2, gas_multiple=1)
        limits = accounting(batch_seconds=0.001, settlement=rules, ready_seconds=5.0, **changes)
        self.recalled: list[tuple[str, Any]] = []
        self.gives: list[Ask] | None = None
        self.settings = SimpleNamespace(
            home=str(home),
            role="executor",
            accounting=limits,
            chain={"anvil": self.chain},
            executor=SimpleNamespace(workers=2),
        )
        self.identity = identity
        place = SimpleNamespace(
            name="accounting-anvil",
            settings=self.settings,
            identity=lambda: identity,
            open_log=lambda: None,
            restarted=lambda: False,
            provider_keys=dict,
            ask=self.ask,
        )
        self.books = Accounting(cast(Place, place), "anvil")
        self.numbers = numbers

    async def ask(self, fellow: str, method: str, *arguments: Any, seconds: float) -> Any:
        self.recalled.append((fellow, arguments))
        if self.gives is None:
            raise FellowAway("gone")
        return self.gives

    def wish(self, lane: Lane, **what: Any) -> Ask:
        self.numbers += 1
        return Ask(lane=lane, number=self.numbers, **what)

    async def state(self, lane: Lane) -> Receivable:
        found = await self.books._writer.write(lambda db: lanes.load(db, lane), 1)
        assert found is not None
        return found

    async def until(self, lane: Lane, true: Callable[[Receivable], bool]) -> None:
        """Looks at a lane until something is true of it."""
        while not true(await self.state(lane)):  # noqa: ASYNC110 - the chain tells nobody else
            await asyncio.sleep(0.05)


@asynccontextmanager
async def open_books(node: Node) -> AsyncIterator[Accounting]:
    task = asyncio.create_task(node.books.serve())
    try:
        async with asyncio.timeout(60):
            while True:
                assert not task.done(), task.exception()
                with suppress(RetryElsewhere):
                    await node.books.enlist(A)
                    break
                await asyncio.sleep(0.01)  # until the chain is open
            yield node.books
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_what_was_promised_is_lent_charged_and_redeemed(local: Local, tmp_path: Path) -> None:
    executor, client = await local.person(), await local.client(deposit=ETHER)
    lane = Lane(client.address, COIN, 0)
    node = Node(tmp_path, local, executor)
    async with open_books(node) as books:
        promise = local.voucher(client, executor, 15 * FINNEY)
        (grant,) = await books.lend(A, [node.wish(lane, least=FINNEY, fresh=True, voucher=promise)])
        assert (grant.granted, grant.short) == (15 * FINNEY, 0)
        (signed,) = await books.charge(A, [draft(1, 12 * FINNEY, lane)])
        state = await books.lane(client.address, LaneCall(31337, COIN, 0))
        assert (amount(state.charged), state.voucher, state.receipts) == (12 * FINNEY, promise.signed, (signed,))
        await node.until(lane, lambda state: state.confirmed == state.claimed == 12 * FINNEY)
        assert await books.redeem() == []


async def test_no_more_is_lent_than_was_deposited_and_a_later_deposit_is_seen(local: Local, tmp_path: Path) -> None:
    executor, client = await local.person(), await local.client(deposit=5 * FINNEY)
    lane = Lane(client.address, COIN, 0)
    node = Node(tmp_path, local, executor)
    async with open_books(node) as books:
        promise = local.voucher(client, executor, 50 * FINNEY)
        (grant,) = await books.lend(A, [node.wish(lane, least=6 * FINNEY, fresh=True, voucher=promise)])
        assert grant.short > 0
        assert grant.reason == "funds"
        await local.deposit(client, ETHER // 2)
        while grant.short:
            (grant,) = await books.lend(A, [node.wish(lane, least=6 * FINNEY)])
            await asyncio.sleep(0.05)


async def test_a_thaw_ends_what_is_lent_and_is_redeemed_at_once(local: Local, tmp_path: Path) -> None:
    executor, client = await local.person(), await local.client(deposit=ETHER)
    lane = Lane(client.address, COIN, 0)
    node = Node(tmp_path, local, executor)
    async with open_books(node) as books:
        promise = local.voucher(client, executor, 8 * FINNEY)
        await books.lend(A, [node.wish(lane, fresh=True, voucher=promise)])
        await books.charge(A, [draft(1, 5 * FINNEY, lane)])
        node.gives = [node.wish(lane, used=5 * FINNEY, back=True)]
        assert (await node.state(lane)).claimed == 0
        async with local.wallet(client) as wallet:
            await banking.start_thaw(wallet, deployment.address(), COIN, ETHER)
        await node.until(lane, lambda state: state.claimed == 5 * FINNEY and not state.lease(A).open)
        more = local.voucher(client, executor, 50 * FINNEY)
        (grant,) = await books.lend(A, [node.wish(lane, used=5 * FINNEY, least=FINNEY, voucher=more)])
        assert (grant.short, grant.reason) == (FINNEY, "funds")


async def test_another_worker_is_asked_for_what_it_does_not_use(local: Local, tmp_path: Path) -> None:
    executor, client = await local.person(), await local.client()
    lane = Lane(client.address, COIN, 0)
    node = Node(tmp_path, local, executor)
    async with open_books(node) as books:
        promise = local.voucher(client, executor, FINNEY)
        await books.lend(A, [node.wish(lane, fresh=True, voucher=promise)])
        (grant,) = await books.lend(B, [node.wish(lane, least=400, fresh=True)])
        assert grant.short == 400  # the other one does not answer
        node.gives = [node.wish(lane, used=500, back=True)]
        (grant,) = await books.lend(B, [node.wish(lane, least=400)])
        assert grant.granted >= 400
        assert node.recalled == [("executor-worker-0", ("anvil", A, [lane]))] * 2


async def test_after_a_restart_workers_that_are_no_more_hold_nothing(local: Local, tmp_path: Path) -> None:
    executor, client = await local.person(), await local.client()
    lane = Lane(client.address, COIN, 0)
    node = Node(tmp_path, local, executor)
    async with open_books(node) as books:
        promise = local.voucher(client, executor, FINNEY)
        await books.lend(GONE, [node.wish(lane, fresh=True, voucher=promise)])
        (grant,) = await books.lend(B, [node.wish(lane, least=1, fresh=True)])
        assert grant.short == 1
    node = Node(tmp_path, local, executor, numbers=node.numbers)
    async with open_books(node) as books:
        (grant,) = await books.lend(B, [node.wish(lane, least=FINNEY, fresh=True)])
        assert grant.granted == FINNEY


async def test_without_the_contract_an_executor_does_not_start(local: Local, tmp_path: Path) -> None:
    node = Node(tmp_path, local, await local.person())
    node.settings.chain["anvil"] = local.settings(contract="0x" + "c0" * 20)
    with pytest.raises(ConfigError, match="no contract"):
        await node.books.serve()


async def test_who_is_not_paid_has_no_books_of_that_kind(local: Local, tmp_path: Path) -> None:
    node = Node(tmp_path, local, await local.person(), mode="off")
    task = asyncio.create_task(node.books.serve())
    await until(node.books._up.is_set)
    with pytest.raises(RetryElsewhere, match="not ready"):
        await node.books.lend(A, [])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert journal_path(cast(Any, node.settings), "anvil", node.identity.address).exists()
