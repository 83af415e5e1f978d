"""Whatever happens in whatever order, in the end all that is on the chain was told, and every job arrived."""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from chain_support import COIN, ETHER, FINNEY, Local, Watched, watching

from lloom.adapters.chain import deployment, gas
from lloom.adapters.chain.gas import Transaction
from lloom.adapters.journal.transactions import State
from lloom.core.identity import Identity
from lloom.core.payment.events import Seen
from lloom.core.payment.fees import Fees

STEPS = 40


class World:
    """A chain that somebody tosses about, and an executor on it."""

    def __init__(self, local: Local, executor: Identity, clients: list[Identity], rng: Random) -> None:
        self.local, self.executor, self.clients, self.rng = local, executor, clients, rng
        self.snapshots: list[str] = []
        self.now = 1e6
        self.jobs: list[int] = []
        self.seen: list[Seen] = []
        self.owed: Counter[bytes] = Counter()

    def clock(self) -> float:
        return self.now

    async def toss(self, it: Watched) -> bool:
        """Does one thing at random; False: the process is to start again."""
        rare = ("settle", "settle", "late", "drop", "spike", "fork", "foreign", "die")
        kind = self.rng.choice(("step",) * 4 + ("mine",) * 3 + rare)
        match kind:
            case "step":
                await it.chain.step()
            case "mine":
                await self.local.mine(self.rng.randint(1, 3))
            case "settle":
                await self.settle(it)
            case "late":
                self.now += 31
            case "drop":
                await self.local.call("anvil_dropAllTransactions")
            case "spike":
                await self.local.call("anvil_setNextBlockBaseFeePerGas", hex(self.rng.randint(1, 30) * 10**9))
                await self.local.mine()
            case "fork":
                await self.fork(it)
            case "foreign":
                await self.foreign()
            case "die":
                return False
        return True

    async def settle(self, it: Watched) -> None:
        client = self.rng.choice(self.clients)
        self.owed[client.address] += 20 * FINNEY
        claim = self.local.claim(client, self.executor, self.owed[client.address])
        self.jobs.append(await it.chain.settle(COIN, [claim]))

    async def fork(self, it: Watched) -> None:
        """Another branch, at most as deep as blocks are not final."""
        before = await self.local.call("evm_snapshot")
        await self.local.mine()
        if self.rng.random() < 0.7:
            await it.chain.step()
        await self.local.call("evm_revert", before)
        if self.rng.random() < 0.5:
            await self.local.call("anvil_dropAllTransactions")
        await self.local.mine(self.rng.randint(1, 3))

    async def foreign(self) -> None:
        nonce = int(await self.local.call("eth_getTransactionCount", "0x" + self.executor.address.hex(), "latest"), 16)
        what = Transaction(self.executor.address, b"", 1)
        made = gas.signed(self.executor, 31337, what, nonce, 21_000, Fees(10**12, 10**11))
        with contextlib.suppress(Exception):  # it may be underpriced beside ours
            await self.local.call("eth_sendRawTransaction", "0x" + made.raw.hex())

    async def calm_down(self, it: Watched) -> None:
        """Lets everything that is under way arrive, and become final."""
        for _ in range(30):
            self.now += 31
            await self.local.call("anvil_setNextBlockBaseFeePerGas", hex(10**9))
            await it.chain.step()
            await self.local.mine(3)
        await it.chain.step()


@pytest.mark.parametrize("seed", range(4))
async def test_all_is_told_and_every_job_arrives(local: Local, tmp_path: Path, seed: int) -> None:
    rng = Random(seed)
    executor = await local.person(100 * ETHER)
    clients = [await local.client(5 * ETHER) for _ in range(3)]
    await local.mine(10)
    await local.still()
    first = int(await local.call("eth_blockNumber"), 16) + 1
    world = World(local, executor, clients, rng)
    settings = local.settings(finality="safe", max_fee=10**12)
    steps = 0
    while steps < STEPS:
        async with watching(tmp_path / "journal", settings, executor, clock=world.clock) as it:
            it.chain.on_events = world.seen.extend
            while steps < STEPS and await world.toss(it):
                steps += 1
            steps += 1
    async with watching(tmp_path / "journal", settings, executor, clock=world.clock) as it:
        it.chain.on_events = world.seen.extend
        await world.calm_down(it)
        states = {await it.state(job) for job in world.jobs}
        assert states <= {State.DONE, State.DROPPED}
        for client in clients:
            lane = await it.chain.lane(client.address, executor.address, COIN, 0)
            assert lane.claimed == world.owed[client.address]
    assert told(world.seen) == await truth(local, first, "latest")
    assert told(world.seen, final=True) == await truth(local, first, "safe")


def told(seen: list[Seen], *, final: bool = False) -> set[tuple[str, int]]:
    """What is believed at the end; `final`: for good."""
    last = {("0x" + each.block.hash.hex(), each.index): each for each in seen}
    return {key for key, each in last.items() if not each.removed and (each.final or not final)}


async def truth(local: Local, first: int, last: str) -> set[tuple[str, int]]:
    """What the chain has from block `first` on."""
    found = await local.call(
        "eth_getLogs", {"address": "0x" + deployment.address().hex(), "fromBlock": hex(first), "toBlock": last}
    )
    return {(each["blockHash"], int(each["logIndex"], 16)) for each in found}
