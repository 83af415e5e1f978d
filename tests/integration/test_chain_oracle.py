"""What bytes cost besides gas: redeeming waits until it is worth both, and what an oracle says is believed within bounds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chain_support import COIN, ETHER, FINNEY, Local, Watched, front, watching
from loguru import logger
from money_support import accounting

from lloom.adapters.chain import banking, deployment, gas
from lloom.adapters.chain.contract import settlement
from lloom.adapters.chain.gas import Transaction
from lloom.adapters.chain.oracle import ENVELOPE
from lloom.adapters.journal import lanes, transactions
from lloom.adapters.journal.transactions import State
from lloom.adapters.payment.settling import Settling
from lloom.adapters.payment.treasury import Treasury
from lloom.core.identity import Identity
from lloom.core.messages import Usage
from lloom.core.payment.fees import Fees
from lloom.core.payment.receivable import Receivable
from lloom.core.payment.settlement import BATCH_BYTES, LANE_BYTES, MODEL_BYTES
from lloom.core.payment.voucher import Claim, Voucher, check, sign, usage_hash

LONE = BATCH_BYTES + LANE_BYTES
DEAR, CHEAP = 10**12, 10**9
"""For a byte: much more than the gas of a settlement, and much less."""
OWED = FINNEY // 2
"""More than the gas of a settlement, less than that and its bytes when those are dear."""


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    said: list[str] = []
    sink = logger.add(lambda line: said.append(line.record["message"]), level="WARNING")
    yield said
    logger.remove(sink)


async def owing(it: Watched, claim: Claim) -> None:
    """The journal of an executor who is owed all of a voucher."""
    voucher = claim.checked
    await it.writer.write(lambda db: lanes.save(db, None, Receivable(lane=voucher.lane, charged=claim.up_to)), 1)
    await it.writer.write(lambda db: lanes.keep(db, voucher, 1.0), 1)


def settling(it: Watched, executor: Identity) -> Settling:
    async def take_back(_: bytes) -> None: ...

    treasury = Treasury(it.chain, executor.address, COIN, accounting().settlement, it.chain.settings)
    return Settling(it.chain, treasury, it.writer, executor.address, COIN, take_back)


async def test_what_is_worth_its_gas_alone_waits_until_it_is_worth_its_bytes_too(local: Local, tmp_path: Path) -> None:
    executor, client = await local.person(), await local.client()
    async with watching(tmp_path / "journal", local.op(), executor) as it:
        await owing(it, local.claim(client, executor, OWED))
        work = settling(it, executor)
        await local.oracle(DEAR)
        assert await work.look(time.time(), everything=True) == []
        await local.oracle(CHEAP)
        (job,) = await work.look(time.time(), everything=True)
        await it.chain.step()
        await local.mine()
        await it.chain.step()
        assert await it.state(job) is State.DONE
        assert await it.chain.earned(executor.address, COIN) == OWED


async def test_without_an_oracle_the_same_is_redeemed_at_once(local: Local, tmp_path: Path) -> None:
    executor, client = await local.person(), await local.client()
    await local.oracle(DEAR)
    async with watching(tmp_path / "journal", local.settings(), executor) as it:
        await owing(it, local.claim(client, executor, OWED))
        assert len(await settling(it, executor).look(time.time(), everything=True)) == 1


async def test_a_transaction_is_sent_once_it_brings_more_than_gas_and_bytes_and_never_pays_more(
    local: Local, tmp_path: Path
) -> None:
    executor, client, now = await local.person(), await local.client(), [0.0]
    await local.still()
    async with watching(tmp_path / "journal", local.op(), executor, clock=lambda: now[0]) as it:
        await local.oracle(DEAR)
        number = await it.chain.settle(COIN, [local.claim(client, executor, OWED)])
        await it.chain.step()
        assert await it.state(number) is State.WAITING
        await local.oracle(DEAR // 4)
        now[0] += 31
        await it.chain.step()
        (job,) = await it.writer.write(transactions.unfinished, 1)
        assert job.state is State.SENT
        assert job.worth == OWED - (LONE + ENVELOPE) * DEAR // 4
        (sent,) = await it.attempts(number)
        assert job.worth - job.gas < sent.fees.most * job.gas <= job.worth, "cut down to what it is worth"


async def test_the_coin_has_to_do_for_the_bytes_as_well(local: Local, tmp_path: Path, warnings: list[str]) -> None:
    executor, client = await local.person(FINNEY * 4 // 5), await local.client()
    async with watching(tmp_path / "journal", local.op(), executor) as it:
        await local.oracle(DEAR)
        job = await it.chain.settle(COIN, [local.claim(client, executor, ETHER // 2)])
        await it.chain.step()
        assert await it.state(job) is State.WAITING
        assert "has not enough of the coin" in warnings[-1]


NOTHING_THERE = ""
ENDLESS = "5b600056"
WORDS = "60406000f3"
"""Two words instead of one."""


@pytest.mark.parametrize("code", [NOTHING_THERE, "60006000fd", ENDLESS, WORDS, None])
async def test_an_oracle_that_cannot_be_believed_counts_as_the_most_that_would_be(
    local: Local, tmp_path: Path, warnings: list[str], code: str | None
) -> None:
    executor, client = await local.person(), await local.client()
    if code is None:
        await local.oracle(1 << 200)
    else:
        await local.oracle(None, code)
    async with watching(tmp_path / "journal", local.op(DEAR), executor) as it:
        most = -(-(LONE + ENVELOPE) * DEAR // LONE)
        assert [(await it.chain.prices()).byte for _ in range(2)] == [most, most]
        assert len(warnings) == 1, "it is said once"
        assert f"{(LONE + ENVELOPE) * DEAR} is reckoned with" in warnings[0]
        job = await it.chain.settle(COIN, [local.claim(client, executor, 2 * FINNEY)])
        await it.chain.step()
        assert await it.state(job) is State.SENT, "what is worth that much is redeemed"
        await local.oracle(CHEAP)
        assert (await it.chain.prices()).byte == -(-(LONE + ENVELOPE) * CHEAP // LONE)


async def test_one_question_a_look_and_none_where_bytes_cost_nothing(local: Local, tmp_path: Path) -> None:
    await local.oracle(CHEAP)
    async with front(local.url) as server:
        for settings, asked in ((local.op(rpc=(server.url,)), 1), (local.settings(rpc=(server.url,)), 0)):
            async with watching(tmp_path / f"journal-{asked}", settings, None) as it:
                server.calls.clear()
                assert bool((await it.chain.prices()).byte) is bool(asked)
                assert server.calls.count("eth_call") == asked


async def test_what_is_told_as_paid_is_gas_and_bytes(local: Local) -> None:
    client = await local.person()
    async with front(local.url) as server, local.wallet(client, local.settings(rpc=(server.url,))) as wallet:
        (plain,) = await banking.deposit(wallet, deployment.address(), COIN, FINNEY)
        receipt = await local.call("eth_getTransactionReceipt", "0x" + plain.hash.hex())
        assert plain.paid == int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)
        for said, fee in ((hex(DEAR), DEAR), (None, 0)):
            server.answers["eth_getTransactionReceipt"] = lambda _, found, fee=said: {
                **found,
                "result": found["result"] and {**found["result"], "l1Fee": fee},
            }
            (sent,) = await banking.deposit(wallet, deployment.address(), COIN, FINNEY)
            receipt = await local.call("eth_getTransactionReceipt", "0x" + sent.hash.hex())
            assert sent.paid == int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16) + fee


@pytest.mark.parametrize("models", [[1], [1, 1], [1, 3], [2, 2, 5]])
def test_the_bytes_of_a_settlement_are_known_before_it_is_made(models: list[int]) -> None:
    local, client, executor = Local("http://127.0.0.1:1"), Identity.generate(), Identity.generate()
    claims = []
    for lane, count in enumerate(models):
        usages = tuple(Usage(bytes([number]) * 32, 1 << 40, 1 << 40, 1) for number in range(count))
        words = Voucher(client.address, executor.address, COIN, lane, ETHER, FINNEY, usage_hash(usages))
        signed = sign(words, usages, (), client, local.domain)
        claims.append(Claim(check(signed, executor.address, local.domain), FINNEY))
    data = settlement(executor.address, COIN, claims)
    assert len(data) == BATCH_BYTES + len(models) * LANE_BYTES + (sum(models) - len(models)) * MODEL_BYTES
    most = gas.signed(client, 1 << 40, Transaction(b"\xff" * 20, data), 1 << 40, 1 << 30, Fees(1 << 63, 1 << 62))
    signature = 67
    assert len(most.raw) - len(data) - signature <= ENVELOPE
