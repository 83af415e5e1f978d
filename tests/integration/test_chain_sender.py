"""Redeeming: each job arrives once, whatever happens to blocks, fees, nonces and servers."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from chain_support import COIN, ETHER, FINNEY, Local, Watched, front, watching

from lloom.adapters.chain import anvil, gas
from lloom.adapters.chain.gas import Transaction
from lloom.adapters.chain.rpc import Refused
from lloom.adapters.chain.sender import IN_FLIGHT
from lloom.adapters.journal.transactions import State
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import Identity
from lloom.core.payment.events import ModelUsed, Settled
from lloom.core.payment.fees import Fees


class Clock:
    """Time that passes when a test says so."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


async def transactions_of(local: Local, who: Identity) -> int:
    return int(await local.call("eth_getTransactionCount", "0x" + who.address.hex(), "latest"), 16)


async def redeemed(it: Watched, executor: Identity) -> int:
    return await it.chain.earned(executor.address, COIN)


async def test_vouchers_are_redeemed_and_told_as_settled(local: Local, tmp_path: Path) -> None:
    executor, clients = await local.person(), [await local.client(), await local.client()]
    await local.still()
    async with watching(tmp_path / "journal", local.settings(), executor) as it:
        await it.chain.step()
        claims = [local.claim(client, executor, FINNEY + place) for place, client in enumerate(clients)]
        job = await it.chain.settle(COIN, claims)
        assert len(await it.chain.claims()) == 2
        await it.chain.step()
        await local.mine()
        await it.chain.step()
        assert await redeemed(it, executor) == 2 * FINNEY + 1
        assert await it.state(job) is State.DONE
        assert await it.chain.claims() == []
        assert it.told(Settled) == [(True, False)] * 2
        assert len(it.told(ModelUsed)) == 2
        assert (await it.chain.lane(clients[0].address, executor.address, COIN, 0)).claimed == FINNEY
        assert (await it.chain.funds(clients[0].address, COIN)).available == ETHER - FINNEY


async def test_a_batch_is_not_sent_that_brings_nothing_or_less_than_its_gas(local: Local, tmp_path: Path) -> None:
    executor, client = await local.person(), await local.client()
    async with watching(tmp_path / "journal", local.settings(), executor) as it:
        poor = await it.chain.settle(COIN, [local.claim(client, executor, 1000, lane=1)])
        unfunded = await it.chain.settle(COIN, [local.claim(Identity.generate(), executor, FINNEY)])
        await it.chain.step()
        assert (await it.state(poor), await it.state(unfunded)) == (State.WAITING, State.DROPPED)
        assert await transactions_of(local, executor) == 0


async def test_an_executor_without_coin_for_gas_sends_once_it_has_some(local: Local, tmp_path: Path) -> None:
    executor, client, clock = Identity.generate(), await local.client(), Clock()
    async with watching(tmp_path / "journal", local.settings(), executor, clock=clock) as it:
        job = await it.chain.settle(COIN, [local.claim(client, executor, FINNEY)])
        await it.chain.step()
        assert await it.state(job) is State.WAITING
        await anvil.fund("anvil", local.settings(), executor.address, ETHER)
        await local.still()
        await it.chain.step()
        assert await it.state(job) is State.WAITING, "not at every block"
        clock.now += 31
        await it.chain.step()
        await local.mine()
        await it.chain.step()
        assert await it.state(job) is State.DONE


async def test_no_more_than_a_few_are_in_flight_and_their_nonces_follow_one_another(
    local: Local, tmp_path: Path
) -> None:
    executor, client = await local.person(), await local.client()
    await local.still()
    async with watching(tmp_path / "journal", local.settings(), executor) as it:
        jobs = [
            await it.chain.settle(COIN, [local.claim(client, executor, FINNEY, lane=lane)])
            for lane in range(IN_FLIGHT + 2)
        ]
        await it.chain.step()
        sent = [(await it.attempts(job)) for job in jobs]
        assert [[each.nonce for each in attempts] for attempts in sent] == [[0], [1], [2], [3], [], []]
        await local.mine()
        await it.chain.step()
        await local.mine()
        await it.chain.step()
        assert [await it.state(job) for job in jobs] == [State.DONE] * len(jobs)
        assert await transactions_of(local, executor) == len(jobs)


async def test_one_that_waits_too_long_is_replaced_by_a_dearer_one_of_the_same_nonce(
    local: Local, tmp_path: Path
) -> None:
    executor, client, clock = await local.person(), await local.client(), Clock()
    await local.still()
    async with watching(tmp_path / "journal", local.settings(), executor, clock=clock) as it:
        job = await it.chain.settle(COIN, [local.claim(client, executor, ETHER // 2)])
        await it.chain.step()
        (first,) = await it.attempts(job)
        # Gas becomes ten times as dear, so blocks go by without it.
        base_fee = 10 * first.fees.most
        for _ in range(3):
            await local.call("anvil_setNextBlockBaseFeePerGas", hex(base_fee))
            await local.mine()
        await it.chain.step()
        assert len(await it.attempts(job)) == 1, "three blocks are not long enough"
        clock.now += 31
        await it.chain.step()
        first, second = await it.attempts(job)
        assert second.nonce == first.nonce
        assert second.fees.most >= base_fee
        assert second.fees.tip * 8 >= first.fees.tip * 9
        await it.chain.step()
        assert len(await it.attempts(job)) == 2
        await local.call("anvil_setNextBlockBaseFeePerGas", hex(base_fee))
        await local.mine()
        await it.chain.step()
        assert await it.state(job) is State.DONE
        assert await redeemed(it, executor) == ETHER // 2
        assert await transactions_of(local, executor) == 1


async def test_no_fee_is_paid_beyond_the_limit(local: Local, tmp_path: Path) -> None:
    executor, client, clock = await local.person(), await local.client(), Clock()
    await local.still()
    limit = 3 * 10**9
    async with watching(tmp_path / "journal", local.settings(max_fee=limit), executor, clock=clock) as it:
        job = await it.chain.settle(COIN, [local.claim(client, executor, ETHER)])
        await it.chain.step()
        for _ in range(12):
            await local.call("anvil_setNextBlockBaseFeePerGas", hex(10 * limit))
            await local.mine(3)
            clock.now += 100
            await it.chain.step()
        fees = [each.fees for each in await it.attempts(job)]
        assert len(fees) > 1
        assert all(each.most <= limit for each in fees)


async def test_a_nonce_that_somebody_else_used_is_given_up(local: Local, tmp_path: Path) -> None:
    executor, client = await local.person(), await local.client()
    await local.still()
    async with watching(tmp_path / "journal", local.settings(), executor) as it:
        job = await it.chain.settle(COIN, [local.claim(client, executor, FINNEY)])
        await it.chain.step()
        await foreign(local, executor, 0)
        await local.mine()
        for _ in range(3):
            await it.chain.step()
        await local.mine()
        await it.chain.step()
        assert [each.nonce for each in await it.attempts(job)] == [0, 1]
        assert await it.state(job) is State.DONE
        assert await redeemed(it, executor) == FINNEY


async def test_what_waits_at_the_server_with_our_key_is_not_run_over(local: Local, tmp_path: Path) -> None:
    executor, client = await local.person(), await local.client()
    await local.still()
    await foreign(local, executor, 0)
    async with watching(tmp_path / "journal", local.settings(), executor) as it:
        job = await it.chain.settle(COIN, [local.claim(client, executor, FINNEY)])
        await it.chain.step()
        assert [each.nonce for each in await it.attempts(job)] == [1]
        await local.mine()
        await it.chain.step()
        assert await it.state(job) is State.DONE
        assert await transactions_of(local, executor) == 2


async def test_a_gap_before_a_nonce_is_not_waited_for_for_ever(local: Local, tmp_path: Path) -> None:
    executor, client, clock = await local.person(), await local.client(), Clock()
    await local.still()
    vanishing = await foreign(local, executor, 0)
    async with watching(tmp_path / "journal", local.settings(), executor, clock=clock) as it:
        job = await it.chain.settle(COIN, [local.claim(client, executor, FINNEY)])
        await it.chain.step()
        await local.call("anvil_dropTransaction", vanishing)
        await local.mine(3)
        clock.now += 31
        for _ in range(3):
            await it.chain.step()
        await local.mine()
        await it.chain.step()
        assert [each.nonce for each in await it.attempts(job)] == [1, 0]
        assert await it.state(job) is State.DONE
        assert await redeemed(it, executor) == FINNEY


async def test_a_lost_transaction_is_broadcast_again_byte_for_byte(local: Local, tmp_path: Path) -> None:
    executor, client = await local.person(), await local.client()
    await local.still()
    async with watching(tmp_path / "journal", local.settings(), executor) as it:
        job = await it.chain.settle(COIN, [local.claim(client, executor, FINNEY)])
        await it.chain.step()
        (sent,) = await it.attempts(job)
        await local.call("anvil_dropAllTransactions")
        await it.chain.step()
        await local.mine()
        await it.chain.step()
        assert await it.attempts(job) == [sent.__class__(sent.hash, sent.nonce, b"", sent.fees, sent.height, sent.at)]
        assert await it.state(job) is State.DONE


async def test_a_job_is_done_only_when_its_block_is_final_and_survives_a_reorganisation(
    local: Local, tmp_path: Path
) -> None:
    executor, client = await local.person(), await local.client()
    await local.mine(10)
    await local.still()
    async with watching(tmp_path / "journal", local.settings(finality="safe"), executor) as it:
        job = await it.chain.settle(COIN, [local.claim(client, executor, FINNEY)])
        await it.chain.step()
        before = await local.call("evm_snapshot")
        await local.mine()
        await it.chain.step()
        assert await it.state(job) is State.SENT
        assert it.told(Settled) == [(False, False)]
        # Another branch takes its place, without the transaction.
        await local.call("evm_revert", before)
        await local.call("anvil_dropAllTransactions")
        await local.mine(2)
        await it.chain.step()
        assert it.told(Settled) == [(False, False), (False, True)]
        assert await redeemed(it, executor) == 0
        await local.mine()
        await it.chain.step()
        assert await redeemed(it, executor) == FINNEY
        await local.mine(4)
        await it.chain.step()
        assert await it.state(job) is State.DONE
        assert it.told(Settled) == [(False, False), (False, True), (False, False), (True, False)]
        assert len(await it.attempts(job)) == 1


async def test_what_the_server_says_against_a_broadcast_changes_nothing(local: Local, tmp_path: Path) -> None:
    executor, client = await local.person(), await local.client()
    await local.still()
    async with front(local.url) as server:
        settings = local.settings(rpc=(server.url,))
        async with watching(tmp_path / "journal", settings, executor) as it:
            server.answers["eth_sendRawTransaction"] = RuntimeError("transaction underpriced")
            job = await it.chain.settle(COIN, [local.claim(client, executor, FINNEY)])
            await it.chain.step()
            del server.answers["eth_sendRawTransaction"]
            await it.chain.step()
            await local.mine()
            await it.chain.step()
            assert [each.nonce for each in await it.attempts(job)] == [0]
            assert await it.state(job) is State.DONE


async def test_a_server_that_keeps_no_events_still_sends(local: Local, tmp_path: Path) -> None:
    executor, client = await local.person(), await local.client()
    await local.still()
    async with (
        front(local.url) as server,
        watching(tmp_path / "journal", local.settings(rpc=(server.url,)), executor) as it,
    ):
        await it.chain.step()
        server.answers["eth_getLogs"] = RuntimeError("not on this plan")
        await local.mine()
        job = await it.chain.settle(COIN, [local.claim(client, executor, FINNEY)])
        for _ in range(2):
            with contextlib.suppress(Refused):
                await it.chain.step()
            await local.mine()
        with contextlib.suppress(Refused):
            await it.chain.step()
        assert await it.state(job) is State.DONE


async def test_a_server_that_cannot_say_what_gas_is_needed_does_not_lose_a_job(local: Local, tmp_path: Path) -> None:
    executor, client, clock = await local.person(), await local.client(), Clock()
    async with (
        front(local.url) as server,
        watching(tmp_path / "journal", local.settings(rpc=(server.url,)), executor, clock=clock) as it,
    ):
        server.answers["eth_estimateGas"] = RuntimeError("insufficient funds for transfer")
        job = await it.chain.settle(COIN, [local.claim(client, executor, FINNEY)])
        await it.chain.step()
        assert await it.state(job) is State.WAITING
        server.answers.clear()
        clock.now += 31
        await it.chain.step()
        assert await it.state(job) is State.SENT


async def test_one_that_fails_on_chain_is_sent_anew_and_dropped_in_the_end(
    local: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor, client = await local.person(), await local.client()
    await local.still()

    async def too_little(*_: object) -> int:
        return 60_000

    monkeypatch.setattr(gas, "needed", too_little)
    async with watching(tmp_path / "journal", local.settings(), executor) as it:
        job = await it.chain.settle(COIN, [local.claim(client, executor, FINNEY)])
        for _ in range(7):
            await it.chain.step()
            await local.mine()
        assert await it.state(job) is State.DROPPED
        assert await transactions_of(local, executor) == 3


@pytest.mark.parametrize(
    "lies",
    [
        {"eth_getTransactionCount": hex((1 << 63) - 1)},
        {
            "eth_estimateGas": hex((1 << 63) - 1),
            "eth_call": "0x" + "00" * 16 + "ff" * 16,
            "eth_getBalance": hex((1 << 128) - 1),
        },
    ],
    ids=["nonces", "gas"],
)
async def test_numbers_that_no_journal_can_hold_are_no_answer(
    local: Local, tmp_path: Path, lies: dict[str, str]
) -> None:
    executor, client = await local.person(), await local.client()
    await local.still()
    async with (
        front(local.url) as server,
        watching(tmp_path / "journal", local.settings(rpc=(server.url,)), executor) as it,
    ):
        jobs = [await it.chain.settle(COIN, [local.claim(client, executor, n * FINNEY)]) for n in (1, 2)]
        server.answers |= lies
        for _ in range(3):
            with contextlib.suppress(RetryElsewhere):
                await it.chain.step()
        server.answers.clear()
        assert [await it.state(job) for job in jobs] == [State.WAITING] * 2


async def foreign(local: Local, who: Identity, nonce: int) -> str:
    """A transaction that somebody else makes with the key of `who`; its hash."""
    made = gas.signed(who, local.settings().id, Transaction(who.address, b"", 1), nonce, 21_000, Fees(10**11, 10**10))
    return str(await local.call("eth_sendRawTransaction", "0x" + made.raw.hex()))
