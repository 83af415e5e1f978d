"""Events: told when they are seen and when they are final, taken back with their blocks, and never lost."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from chain_support import COIN, ETHER, Local, front, watching

from lloom.adapters.chain import banking, deployment
from lloom.adapters.chain.rpc import ChainAway
from lloom.core.payment.events import Deposited, ThawStarted

FIRST = (False, False)
GONE = (False, True)
FINAL = (True, False)


async def test_an_event_is_told_when_it_is_seen_and_again_when_it_is_final(local: Local, tmp_path: Path) -> None:
    await local.mine(10)
    async with watching(tmp_path / "journal", local.settings(finality="safe"), None) as it:
        await it.chain.step()
        client = await local.client(ETHER // 2)
        await it.chain.step()
        assert it.told(Deposited) == [FIRST]
        await it.chain.step()
        assert it.told(Deposited) == [FIRST], "nothing new is nothing told"
        await local.mine(2)
        await it.chain.step()
        assert it.told(Deposited) == [FIRST, FINAL]
        found = it.seen[-1]
        assert found.event == Deposited(client.address, COIN, client.address, ETHER // 2)
        assert found.block.number == int(await local.call("eth_blockNumber"), 16) - 2
        assert (found.transaction, found.index) == (it.seen[0].transaction, 0)


async def test_events_of_blocks_that_are_taken_back_are_too(local: Local, tmp_path: Path) -> None:
    await local.mine(10)
    async with watching(tmp_path / "journal", local.settings(finality="safe"), None) as it:
        await it.chain.step()
        before = await local.call("evm_snapshot")
        await local.client()
        await local.mine()
        await it.chain.step()
        await local.call("evm_revert", before)
        await local.mine(3)
        await local.client()
        await it.chain.step()
        assert it.told(Deposited) == [FIRST, GONE, FIRST]
        await local.mine(4)
        await it.chain.step()
        assert it.told(Deposited) == [FIRST, GONE, FIRST, FINAL]
        first, gone, second, final = (each for each in it.seen if isinstance(each.event, Deposited))
        assert first.block.hash == gone.block.hash
        assert second.block.hash == final.block.hash != first.block.hash


async def test_where_the_newest_block_is_final_a_test_may_still_take_it_back(local: Local, tmp_path: Path) -> None:
    async with watching(tmp_path / "journal", local.settings(), None) as it:
        await it.chain.step()
        before = await local.call("evm_snapshot")
        await local.client()
        await it.chain.step()
        await local.call("evm_revert", before)
        await local.mine(8)
        await it.chain.step()
        assert it.told(Deposited) == [FINAL, (True, True)]


async def test_a_chain_that_became_shorter_is_followed_further(local: Local, tmp_path: Path) -> None:
    async with watching(tmp_path / "journal", local.settings(), None) as it:
        before = await local.call("evm_snapshot")
        await local.mine(5)
        await it.chain.step()
        await local.call("evm_revert", before)
        await it.chain.step()
        await local.client()
        await it.chain.step()
        assert it.told(Deposited) == [FINAL]


async def test_what_happened_while_nobody_looked_is_told_after_a_restart(local: Local, tmp_path: Path) -> None:
    settings = local.settings(finality="safe")
    await local.mine(10)
    async with watching(tmp_path / "journal", settings, None) as it:
        await it.chain.step()
        await local.client()
        await it.chain.step()
    client = await local.client()
    async with local.wallet(client) as wallet:
        await banking.start_thaw(wallet, deployment.address(), COIN, 5)
    await local.mine(20)
    async with watching(tmp_path / "journal", settings, None) as it:
        await it.chain.step()
        assert it.told(Deposited) == [FIRST, FIRST, FINAL, FINAL], "the first one again, as it may not have been heard"
        assert it.told(ThawStarted) == [FIRST, FINAL]


async def test_a_branch_that_changed_while_nobody_looked_is_noticed(local: Local, tmp_path: Path) -> None:
    settings = local.settings(finality="safe")
    await local.mine(10)
    before = await local.call("evm_snapshot")
    await local.client()
    async with watching(tmp_path / "journal", settings, None) as it:
        await it.chain.step()
        assert it.told(Deposited) == [FIRST]
    await local.call("evm_revert", before)
    await local.mine(9)
    async with watching(tmp_path / "journal", settings, None) as it:
        await it.chain.step()
        assert it.told(Deposited) == [FIRST, GONE]


async def test_ranges_are_cut_to_what_a_server_takes(local: Local, tmp_path: Path) -> None:
    asked: list[int] = []

    def picky(params: list[Any], answer: Any) -> Any:
        if "fromBlock" not in params[0]:
            return answer
        span = int(params[0]["toBlock"], 16) - int(params[0]["fromBlock"], 16) + 1
        asked.append(span)
        refusal = {
            "jsonrpc": "2.0",
            "id": answer["id"],
            "error": {"code": -32005, "message": "query returned too much"},
        }
        return answer if span <= 7 else refusal

    async with front(local.url) as server:
        settings = local.settings(rpc=(server.url,))
        server.answers["eth_getLogs"] = picky
        async with watching(tmp_path / "journal", settings, None) as it:
            await it.chain.step()
            for _ in range(3):
                await local.client()
                await local.mine(30)
            await it.chain.step()
            assert it.told(Deposited) == [FINAL] * 3
    assert any(span > 7 for span in asked)


async def test_a_range_that_a_server_does_not_answer_in_time_is_cut_as_well(local: Local, tmp_path: Path) -> None:
    """It takes too long, or what it says is too long: it would be so for ever."""
    async with front(local.url) as server:
        settings = local.settings(rpc=(server.url,))
        async with watching(tmp_path / "journal", settings, None) as it:
            await it.chain.step()
        await local.mine(40)
        await local.client()
        await local.mine(40)

        def silent(params: list[Any], answer: Any) -> Any:
            long = int(params[0].get("toBlock", "0x0"), 16) - int(params[0].get("fromBlock", "0x0"), 16) > 10
            return "gateway timeout" if long else answer

        server.answers["eth_getLogs"] = silent
        async with watching(tmp_path / "journal", settings, None) as it:
            for _ in range(10):
                with contextlib.suppress(ChainAway):
                    await it.chain.step()
            assert it.told(Deposited)


async def test_where_old_events_are_not_kept_the_rest_is_followed(local: Local, tmp_path: Path) -> None:
    settings = local.settings()
    async with watching(tmp_path / "journal", settings, None) as it:
        await it.chain.step()
    await local.client()
    await local.mine(30)
    async with front(local.url) as server, watching(tmp_path / "journal", settings, None, (server.url,)) as it:
        server.answers["eth_getLogs"] = RuntimeError("missing trie node: this server keeps no history")
        await it.chain.step()
        del server.answers["eth_getLogs"]
        await local.client()
        await it.chain.step()
        assert it.told(Deposited) == [FINAL]


async def test_what_only_a_server_at_the_head_said_is_taken_back_once_final(local: Local, tmp_path: Path) -> None:
    """Of several servers behind one URL, one may be on a branch that never wins."""

    def invented(params: list[Any], answer: Any) -> Any:
        for log in answer["result"]:
            log["blockHash"] = "0x" + "ab" * 32
        return answer

    await local.mine(10)
    async with front(local.url) as server:
        settings = local.settings(finality="safe", rpc=(server.url,))
        async with watching(tmp_path / "journal", settings, None) as it:
            await it.chain.step()
            server.answers["eth_getLogs"] = invented
            await local.client()
            await it.chain.step()
            del server.answers["eth_getLogs"]
            await local.mine(4)
            await it.chain.step()
            assert it.told(Deposited) == [FIRST, GONE, FINAL]


async def test_where_a_server_does_not_say_when_a_block_was_made_it_is_reckoned(local: Local, tmp_path: Path) -> None:
    def untimed(params: list[Any], answer: Any) -> Any:
        for log in answer["result"]:
            log.pop("blockTimestamp", None)
        return answer

    async with front(local.url) as server:
        server.answers["eth_getLogs"] = untimed
        async with watching(tmp_path / "journal", local.settings(rpc=(server.url,)), None) as it:
            await it.chain.step()
            await local.call("anvil_mine", hex(50), hex(100))
            await local.client()
            await local.call("anvil_mine", hex(50), hex(100))
            await it.chain.step()
            (found,) = (each for each in it.seen if isinstance(each.event, Deposited))
            true = await local.call("eth_getBlockByNumber", hex(found.block.number), False)
            assert abs(found.block.time - int(true["timestamp"], 16)) < 200
