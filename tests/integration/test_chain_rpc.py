"""Servers that are silent, lie, lag behind, and come back; and what is never shown of their addresses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from chain_support import COIN, ETHER, Front, Local, front, watching
from loguru import logger

from lloom.adapters.chain import banking, deployment, gas, history
from lloom.adapters.chain.answers import amount
from lloom.adapters.chain.contract import Contract, calldata
from lloom.adapters.chain.gas import Transaction
from lloom.adapters.chain.head import block_at
from lloom.adapters.chain.rpc import FIRST_REST_SECONDS, ChainAway, Refused, Rpc
from lloom.adapters.journal.transactions import State
from lloom.core.errors import ConfigError, LloomError, RetryElsewhere
from lloom.core.identity import Identity, parse_address
from lloom.core.payment.fees import Fees
from lloom.core.settings import Chain as Settings


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def first(local: Local) -> AsyncIterator[Front]:
    async with front(local.url) as server:
        yield server


@pytest.fixture
async def second(local: Local) -> AsyncIterator[Front]:
    async with front(local.url) as server:
        yield server


@pytest.fixture
def log() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), level="TRACE")
    yield lines
    logger.remove(sink)


class Both:
    """Two servers of one chain, the first of which is preferred."""

    def __init__(self, settings: Settings, first: Front, second: Front) -> None:
        self.clock = Clock()
        self.rpc = Rpc.open("anvil", settings, (first.url, second.url), self.clock)


@pytest.fixture
async def both(local: Local, first: Front, second: Front) -> AsyncIterator[Both]:
    made = Both(local.settings(rpc_seconds=2), first, second)
    yield made
    await made.rpc.close()


async def test_the_first_server_is_asked_as_long_as_it_answers(both: Both, first: Front, second: Front) -> None:
    assert await both.rpc.call("eth_blockNumber")
    assert first.calls == ["eth_chainId", "eth_blockNumber"]
    assert second.calls == []


@pytest.mark.parametrize("how", ["silent", "status", "nonsense", "gone"])
async def test_one_that_does_not_answer_is_passed_over_and_asked_again_later(
    both: Both, first: Front, second: Front, how: str, log: list[str]
) -> None:
    await both.rpc.call("eth_blockNumber")
    match how:
        case "silent":
            first.silent.clear()
        case "status":
            first.status = 503
        case "nonsense":
            first.answers["eth_blockNumber"] = lambda *_: ["what?"]
        case "gone":
            first.status = 429
    assert await both.rpc.call("eth_blockNumber")
    assert second.calls == ["eth_chainId", "eth_blockNumber"]
    asked = len(first.calls)
    assert await both.rpc.call("eth_blockNumber")
    assert len(first.calls) == asked, "it rests"
    first.silent.set()
    first.status = 200
    first.answers.clear()
    both.clock.now += FIRST_REST_SECONDS + 1
    assert await both.rpc.call("eth_blockNumber")
    assert first.calls[asked:] == ["eth_chainId", "eth_blockNumber"], "whoever answers there now may be another"
    assert sum("is passed over" in line for line in log) == 1
    assert not any("secret-key" in line for line in log)


async def test_one_of_another_chain_is_never_believed(both: Both, first: Front, second: Front, log: list[str]) -> None:
    first.answers["eth_chainId"] = "0x1"
    assert await both.rpc.call("eth_blockNumber")
    assert "eth_blockNumber" not in first.calls
    assert any("serves the chain 1, not 31337" in line for line in log)


async def test_if_all_have_another_chain_it_is_said_at_once(both: Both, first: Front, second: Front) -> None:
    first.answers["eth_chainId"] = second.answers["eth_chainId"] = "0x1"
    with pytest.raises(ConfigError, match="serves the chain 1, not 31337"):
        await both.rpc.survey()


async def test_one_that_lags_far_behind_is_passed_over(both: Both, first: Front, second: Front, local: Local) -> None:
    await local.mine(100)
    first.answers["eth_blockNumber"] = "0x1"
    await both.rpc.survey()
    first.calls.clear()
    assert int(await both.rpc.call("eth_blockNumber"), 16) >= 100
    both.clock.now += 10 * FIRST_REST_SECONDS
    assert int(await both.rpc.call("eth_blockNumber"), 16) >= 100
    assert first.calls == [], "only a survey can tell that it has caught up"


async def test_a_survey_is_not_held_up_by_a_silent_server(
    local: Local, first: Front, second: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lloom.adapters.chain.rpc.GRACE_SECONDS", 0.01)
    both = Both(local.settings(rpc_seconds=600), first, second)
    first.silent.clear()
    async with asyncio.timeout(30):
        await both.rpc.survey()
        assert await both.rpc.call("eth_blockNumber")
    assert second.calls[-1] == "eth_blockNumber"
    await both.rpc.close()


NONSENSE = (7, "x", "0x", [], [7], {}, {"number": "0x1"}, "0x" + "f" * 80, "-0x5", True)
METHODS = (
    "eth_getBlockByNumber",
    "eth_getTransactionCount",
    "eth_getTransactionReceipt",
    "eth_getBalance",
    "eth_estimateGas",
    "eth_feeHistory",
    "eth_getLogs",
    "eth_call",
)


@pytest.mark.parametrize("method", METHODS)
async def test_an_answer_that_makes_no_sense_is_no_answer(
    local: Local, first: Front, tmp_path: Path, method: str
) -> None:
    """The accounting actor must not die of it: the next server may do better, and so may this one later."""
    executor, client = await local.person(), await local.client()
    await local.still()
    settings = local.settings(rpc=(first.url,))
    async with watching(tmp_path / "journal", settings, executor) as it:
        await it.chain.step()
        job = await it.chain.settle(COIN, [local.claim(client, executor, ETHER // 2)])
        for answer in NONSENSE:
            first.answers[method] = lambda _, true, said=answer: {**true, "result": said}
            with contextlib.suppress(RetryElsewhere):
                await it.chain.step()
            with contextlib.suppress(RetryElsewhere):
                await it.chain.funds(client.address, COIN)
        first.answers.clear()
        await it.chain.step()
        await local.mine()
        await it.chain.step()
        assert await it.state(job) is State.DONE


async def test_nonsense_of_one_server_is_corrected_by_another(both: Both, first: Front) -> None:
    first.answers["eth_getBalance"] = "many"
    assert await both.rpc.ask(amount, "eth_getBalance", "0x" + "00" * 20, "latest") >= 0


async def test_an_error_that_is_none_without_a_result_is_no_answer(both: Both, first: Front, second: Front) -> None:
    first.answers["eth_blockNumber"] = lambda _, true: {"jsonrpc": "2.0", "id": true["id"], "error": None}
    assert await both.rpc.call("eth_blockNumber")
    assert second.calls[-1] == "eth_blockNumber"
    await both.rpc.survey()


async def test_a_block_of_another_number_is_no_answer(both: Both, first: Front, second: Front, local: Local) -> None:
    """A follower that believed it would read the same blocks for ever."""
    await local.mine(5)
    first.answers["eth_getBlockByNumber"] = lambda _, true: {**true, "result": {**true["result"], "number": "0x1"}}
    found = await block_at(both.rpc, 3)
    assert found is not None
    assert found.number == 3


async def test_if_nobody_answers_one_sentence_says_so_without_a_key(both: Both, first: Front, second: Front) -> None:
    first.status = second.status = 500
    with pytest.raises(ChainAway) as raised:
        await both.rpc.call("eth_blockNumber")
    told = str(raised.value)
    assert told.count("http://127.0.0.1:") == 2
    assert "secret-key" not in told
    assert "\n" not in told


async def test_what_one_server_cannot_say_another_may(both: Both, first: Front, second: Front) -> None:
    first.answers["eth_getLogs"] = RuntimeError("method not supported on the free plan")
    assert await both.rpc.call("eth_getLogs", {"fromBlock": "0x0", "toBlock": "0x0"}) == []
    second.answers["eth_getLogs"] = RuntimeError("neither here")
    with pytest.raises(Refused, match="free plan"):
        await both.rpc.call("eth_getLogs", {"fromBlock": "0x0", "toBlock": "0x0"})
    assert await both.rpc.call("eth_blockNumber")
    assert first.calls[-1] == "eth_blockNumber", "a refusal is no failure"


async def test_what_a_contract_refuses_no_other_server_is_asked_for(
    both: Both, first: Front, second: Front, local: Local
) -> None:
    who = await local.person()
    call = {
        "from": "0x" + who.address.hex(),
        "to": "0x" + deployment.address().hex(),
        "data": "0x" + calldata("startThaw", COIN, 5).hex(),
    }
    with pytest.raises(Refused):
        await both.rpc.call("eth_call", call, "latest")
    assert second.calls == []


async def test_an_endless_answer_is_cut_off(both: Both, first: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lloom.adapters.chain.server.LONGEST_ANSWER", 1000)
    first.answers["eth_blockNumber"] = lambda _, answer: {**answer, "result": "0x" + "1" * 5000}
    assert len(await both.rpc.call("eth_blockNumber")) < 100


async def test_a_refusal_is_told_in_the_contract_s_own_words(local: Local) -> None:
    who = await local.client(5)
    async with local.wallet(who) as wallet:
        with pytest.raises(LloomError, match=r"starting the thaw: InsufficientBalance\(5, 6\)"):
            await banking.start_thaw(wallet, deployment.address(), COIN, 6)


async def test_who_has_no_coin_is_told_so(local: Local) -> None:
    who = Identity.generate()
    async with local.wallet(who) as wallet:
        with pytest.raises(LloomError, match="has 0 of anvil's coin"):
            await wallet.send(
                Transaction(deployment.address(), calldata("deposit", who.address, COIN, 5), 5), "paying in"
            )


async def test_a_wallet_waits_behind_what_was_sent_with_its_key_before(local: Local) -> None:
    who = await local.person()
    address = "0x" + who.address.hex()
    await local.still()
    made = gas.signed(who, 31337, Transaction(who.address, b"", 1), 0, 21_000, Fees(10**11, 10**10))
    await local.call("eth_sendRawTransaction", "0x" + made.raw.hex())
    async with local.wallet(who) as wallet, asyncio.timeout(30):
        sending = asyncio.create_task(wallet.send(Transaction(who.address, b"", 2), "paying"))
        while await local.call("eth_getTransactionCount", address, "pending") != "0x2":
            pass
        await local.mine()
        await sending
    assert await local.call("eth_getTransactionCount", address, "latest") == "0x2"


@pytest.mark.parametrize("then", ["away", "nonce too low", "already known", "rate limit exceeded"])
async def test_what_a_server_took_without_saying_so_is_waited_for_and_not_told_as_failed(
    local: Local, first: Front, second: Front, then: str
) -> None:
    """Who is told that paying in has failed pays in once more."""
    who = await local.person()
    settings = local.settings(rpc=(first.url, second.url), block_seconds=0.1)
    first.answers["eth_sendRawTransaction"] = lambda *_: "gone"
    if then == "away":
        second.answers["eth_sendRawTransaction"] = lambda *_: "gone"
    else:
        second.answers["eth_sendRawTransaction"] = RuntimeError(then)
    async with local.wallet(who, settings) as wallet, asyncio.timeout(30):
        await banking.deposit(wallet, deployment.address(), COIN, 5)
        assert (await Contract(wallet.rpc, deployment.address()).funds(who.address, COIN)).balance == 5


async def test_a_server_that_is_away_for_a_moment_does_not_end_the_wait(local: Local, first: Front) -> None:
    who = await local.person()
    await local.still()
    async with local.wallet(who, local.settings(rpc=(first.url,), block_seconds=0.1)) as wallet, asyncio.timeout(30):
        paying = asyncio.create_task(banking.deposit(wallet, deployment.address(), COIN, 5))
        while "eth_getTransactionReceipt" not in first.calls:  # noqa: ASYNC110 - it is a server
            await asyncio.sleep(0.01)
        first.status = 503
        for _ in range(3):
            first.heard.clear()
            await first.heard.wait()
        first.status = 200
        await local.mine()
        assert len(await paying) == 1


async def test_a_nonce_that_another_transaction_has_is_a_failure(local: Local, first: Front) -> None:
    who = await local.person()
    first.answers["eth_sendRawTransaction"] = RuntimeError("nonce too low")
    async with local.wallet(who, local.settings(rpc=(first.url,))) as wallet:
        with pytest.raises(LloomError, match="nonce too low"):
            await banking.deposit(wallet, deployment.address(), COIN, 5)


async def test_gas_that_is_dearer_than_allowed_is_not_paid(local: Local) -> None:
    who = await local.person()
    async with local.wallet(who, local.settings(max_fee=1)) as wallet:
        with pytest.raises(LloomError, match="max_fee allows"):
            await banking.deposit(wallet, deployment.address(), COIN, 5)


async def test_a_chain_without_the_contract_is_refused(local: Local, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="command=deploy chain=anvil"):
        async with watching(tmp_path / "journal", local.settings(contract="0x" + "11" * 20), None):
            pass


async def test_another_contract_at_the_address_is_refused(local: Local, tmp_path: Path) -> None:
    code = await local.call("eth_getCode", "0x" + deployment.address().hex(), "latest")
    place = "0x" + "11" * 20
    await local.call("anvil_setCode", place, code)
    async with watching(tmp_path / "first", local.settings(contract=place), None):
        pass  # the same code, immutables and all
    await local.call("anvil_setCode", place, code[:-2] + "00")
    with pytest.raises(ConfigError, match="not the accounting contract"):
        async with watching(tmp_path / "second", local.settings(contract=place), None):
            pass


async def test_a_chain_that_never_answered_ends_the_start_and_one_that_did_is_waited_for(
    local: Local, first: Front, tmp_path: Path
) -> None:
    settings = local.settings(rpc=(first.url,))
    first.status = 503
    with pytest.raises(ConfigError, match="No server of the chain anvil answers"):
        async with watching(tmp_path / "journal", settings, None):
            pass
    first.status = 200
    async with watching(tmp_path / "journal", settings, None):
        pass
    first.status = 503
    async with watching(tmp_path / "journal", settings, None) as it:
        with pytest.raises(ChainAway):
            await it.chain.funds(Identity.generate().address, COIN)
        first.status = 200
        await it.chain.step()
        assert (await it.chain.funds(Identity.generate().address, COIN)).balance == 0


async def test_while_it_runs_a_chain_survives_a_server_that_goes_and_comes(
    local: Local, first: Front, tmp_path: Path
) -> None:
    told = asyncio.Event()
    settings = local.settings(rpc=(first.url,), block_seconds=0.01)
    async with watching(tmp_path / "journal", settings, None) as it:
        await it.chain.step()
        it.chain.on_events = lambda _: told.set()
        running = asyncio.create_task(it.chain.run())
        first.status = 503
        await local.client(ETHER)
        for _ in range(2):
            first.heard.clear()
            await asyncio.wait_for(first.heard.wait(), 20)
        first.status = 200
        await asyncio.wait_for(told.wait(), 20)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_while_it_runs_a_chain_survives_a_server_that_is_one_of_another_for_a_moment(
    local: Local, first: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that ends of that redeems nothing while its clients take their money out."""
    monkeypatch.setattr("lloom.adapters.chain.chain.SURVEY_SECONDS", 0.0)
    told = asyncio.Event()
    settings = local.settings(rpc=(first.url,), block_seconds=0.01)
    async with watching(tmp_path / "journal", settings, None) as it:
        await it.chain.step()
        it.chain.on_events = lambda _: told.set()
        first.answers["eth_chainId"] = "0x1"
        running = asyncio.create_task(it.chain.run())
        await local.client(ETHER)
        for _ in range(3):
            first.heard.clear()
            await asyncio.wait_for(first.heard.wait(), 20)
        first.answers.clear()
        await asyncio.wait({running, asyncio.ensure_future(told.wait())}, timeout=20, return_when="FIRST_COMPLETED")
        assert told.is_set()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_new_chain_for_tests_in_place_of_the_old_one_is_started_over(
    local: Local, first: Front, tmp_path: Path
) -> None:
    settings = local.settings(rpc=(first.url,))

    def another(params: list[Any], answer: Any) -> Any:
        if params[0] == "0x0":
            answer["result"]["hash"] = "0x" + "cd" * 32
        return answer

    async with watching(tmp_path / "journal", settings, None) as it:
        await it.chain.step()
    first.answers["eth_getBlockByNumber"] = another
    async with watching(tmp_path / "journal", settings, None) as it:
        await it.chain.step()
    first.answers.clear()
    with pytest.raises(ConfigError, match="another chain than the one in the journal"):
        async with watching(tmp_path / "journal", local.settings(local=False), None):
            pass


async def test_a_server_that_does_not_know_the_first_block_does_not_make_it_another_chain(
    local: Local, first: Front, tmp_path: Path
) -> None:
    settings = local.settings(rpc=(first.url,), local=False)

    def pruned(params: list[Any], answer: Any) -> Any:
        return {**answer, "result": None} if params[0] == "0x0" else answer

    first.answers["eth_getBlockByNumber"] = pruned
    with pytest.raises(ConfigError, match="No server of the chain anvil answers"):
        async with watching(tmp_path / "journal", settings, None):
            pass
    first.answers.clear()
    async with watching(tmp_path / "journal", settings, None) as it:
        await it.chain.step()
    first.answers["eth_getBlockByNumber"] = pruned
    async with watching(tmp_path / "journal", settings, None) as it:
        with pytest.raises(ChainAway):
            await it.chain.step()
        first.answers.clear()
        await it.chain.step()


async def test_while_it_runs_a_server_of_another_chain_ends_nothing_if_the_others_are_only_away(
    both: Both, first: Front, second: Front
) -> None:
    await both.rpc.survey()
    first.status, second.answers["eth_chainId"] = 503, "0x1"
    with pytest.raises(ChainAway):
        await both.rpc.survey()


async def test_where_no_server_has_the_past_that_is_said_and_what_helps(
    both: Both, first: Front, second: Front, local: Local
) -> None:
    await local.client()
    for server in (first, second):
        server.answers["eth_getLogs"] = RuntimeError("missing trie node: this server keeps no history")
    settings = local.settings()
    with pytest.raises(LloomError, match=r"no server has the events of the past .* an archive in chain\.anvil\.rpc$"):
        [each async for each in history.events(both.rpc, settings, parse_address(settings.contract))]
