"""Money, end to end: real nodes, a real chain, its commands. What was served, charged and paid agrees to the last unit."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from support import ROOT, Process, command_line, environment, launch

from lloom.adapters.chain import anvil
from lloom.core import messages
from lloom.core.errors import ConfigError
from lloom.core.payment.voucher import read
from tests.free_ports import free_port

pytestmark = pytest.mark.timeout(400)

MODEL = "mock-small"
INPUT_PRICE, OUTPUT_PRICE = 10**17, 4 * 10**17
PAID_IN = 10**18
PARALLEL = 16
SIGNED = messages.decoder(messages.SignedVoucher)
PEER_GAS = 316_860
"""Of one request where each is written to the chain by itself."""


@dataclass
class Market:
    """A validator, an executor that wants money, a client that has paid in, and two chains."""

    chain: str
    """Words that choose it."""
    other: str
    """Words that choose another one, which executor and client know as well."""
    homes: Path
    validator: Process
    executor: Process
    client: Process
    gateway: str

    def run(self, role: str, *words: str, chain: str = "") -> Any:
        """What a command prints as JSON."""
        done = self.attempt(role, *words, "output=json", chain=chain)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def attempt(self, role: str, *words: str, chain: str = "") -> subprocess.CompletedProcess[str]:
        """A command in the home of that role's node."""
        chosen = (chain or self.chain).split()
        return subprocess.run(
            [sys.executable, "-m", "lloom", f"role={role}", *chosen, f"home={self.homes / role}", *words],
            capture_output=True,
            text=True,
            env=environment(),
            cwd=ROOT,
            timeout=120,
            check=False,
        )

    async def ask(self, count: int, parallel: int = PARALLEL, tokens: int = 32) -> list[str]:
        """What became of so many requests, of which so many are open at once: "" or the error."""
        places = asyncio.Semaphore(parallel)
        async with httpx.AsyncClient(base_url=self.gateway, timeout=120) as http:

            async def one(number: int) -> str:
                question = {"role": "user", "content": f"Question {number}?"}
                body = {"model": MODEL, "messages": [question], "max_tokens": tokens, "stream": number % 2 == 0}
                async with places:
                    answer = await http.post("/v1/chat/completions", json=body)
                    return "" if answer.status_code == 200 else answer.text

            return await asyncio.gather(*map(one, range(count)))

    def rows(self, role: str, query: str, chain: str = "anvil") -> list[tuple[Any, ...]]:
        """What a node's journal of the chain says."""
        (path,) = (self.homes / role / role).glob(f"ledger-{chain}-*.sqlite")
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            return db.execute(query).fetchall()

    def charged(self, role: str, chain: str = "anvil") -> int:
        """Receipts that the executor gave, or the client accepted."""
        ((count,),) = self.rows(role, f"SELECT count(*) FROM {'issued' if role == 'executor' else 'kept'}", chain)
        return int(count)

    def accepted(self) -> int:
        """What the executor's vouchers say that its client accepted."""
        vouchers = self.rows("executor", "SELECT voucher FROM lane")
        return sum(read(messages.decode(raw, SIGNED)).accepted for (raw,) in vouchers)

    async def at_rest(self, receipts: int = 0, chain: str = "anvil") -> None:
        """Returns once the client has every receipt, so many at least, and the executor the voucher that tells of it."""
        async with asyncio.timeout(60):
            while self._unsettled(receipts, chain):  # noqa: ASYNC110
                await asyncio.sleep(0.1)  # other processes' files tell nobody

    def _unsettled(self, receipts: int, chain: str) -> bool:
        kept, issued = (self.charged(role, chain) for role in ("client", "executor"))
        ((told,),) = self.rows("executor", "SELECT sum(requests) FROM lane", chain)
        return kept < max(receipts, issued) or bool(told < kept)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    try:
        anvil.binary()
    except ConfigError as error:
        pytest.skip(str(error))
    homes = tmp_path_factory.mktemp("market")
    entry, gateway = free_port(), free_port()
    with ExitStack() as stack:
        url = stack.enter_context(anvil.started(31337))
        chain = f"chain=anvil chain.anvil.rpc=[{url}]"
        second = f"chain.base_sepolia.rpc=[{stack.enter_context(anvil.started(84532))}] chain.base_sepolia.local=true"
        second += " chain.base_sepolia.finality=latest chain.base_sepolia.l1_oracle=null"  # anvil has no such contract
        other = f"chain=base_sepolia {second}"
        both = f"chain=[anvil,base_sepolia] chain.anvil.rpc=[{url}] {second}"
        common = (*both.split(), f"network.bootstrap=[127.0.0.1:{entry}]", "network.name=market")
        prices = [
            f"+llm.mock.models.{MODEL}.{name}={price}"
            for name, price in (("input_price", INPUT_PRICE), ("output_price", OUTPUT_PRICE))
        ]

        def start(role: str, *words: str) -> Process:
            return stack.enter_context(launch(f"role={role}", f"home={homes / role}", *words))

        # It has a budget, and nothing to spend until a test pays in.
        purse = (f"accounting.budget={PAID_IN}", f"validator.probe_cost={PAID_IN // 1000}", "validator.probe_seconds=2")
        validator = start("validator", f"network.port={entry}", "network.name=market", *chain.split(), *purse)
        patient = "accounting.settlement.gas_multiple=1000000"  # it is redeemed when a test says so
        executor = start("executor", "llm=[mock]", *prices, "network.port=0", patient, *common)
        client = start("client", f"gateway.port={gateway}", *common)
        for process in (validator, executor, client):
            process.wait_for(" is up")
        yield Market(chain, other, homes, validator, executor, client, f"http://127.0.0.1:{gateway}")


async def test_who_has_paid_nothing_in_is_told_what_to_do(market: Market) -> None:
    async with httpx.AsyncClient(base_url=market.gateway, timeout=60) as http:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello?"}]}
        answer = await http.post("/v1/chat/completions", json=body)
    assert answer.status_code in (402, 503), answer.text
    assert "command=deposit" in answer.json()["error"]["message"]


async def test_who_has_money_on_one_of_two_chains_pays_there(market: Market) -> None:
    market.run("client", "command=deposit", "amount=0.01", chain=market.other)
    await recovered(market)
    assert set(await market.ask(20)) == {""}
    await market.at_rest(receipts=21, chain="base_sepolia")
    (settled,) = market.run("executor", "command=settle", chain=market.other)
    assert settled["chain"] == "base_sepolia"
    assert int(settled["redeemed"]) > 0
    assert market.charged("client") == 0

    market.run("client", "command=withdraw", chain=market.other)  # it thaws, so nothing can be promised any more
    async with asyncio.timeout(60):
        while not any("command=deposit" in answer for answer in await market.ask(1)):  # noqa: ASYNC110
            await asyncio.sleep(0.2)


async def test_a_thousand_requests_cost_what_journal_and_contract_both_say(market: Market) -> None:
    paid_in = market.run("client", "command=deposit", "amount=1")
    assert int(paid_in["after"]) == PAID_IN
    await recovered(market)  # once the running client has noticed its deposit
    assert set(await market.ask(100)) == {""}
    await market.at_rest(receipts=101)
    (begun,) = market.run("executor", "command=settle")  # the first one on a lane costs more
    assert int(begun["redeemed"]) > 0

    assert set(await market.ask(1000)) == {""}
    await market.at_rest(receipts=1101)
    (settled,) = market.run("executor", "command=settle")
    paid = int(begun["redeemed"]) + int(settled["redeemed"])

    usage = {
        (role, source): market.run(role, "command=usage", f"source={source}", "by=chain")
        for role in ("client", "executor")
        for source in ("ledger", "chain")
    }
    rows = {key: next(row for row in found if row["chain"] == "anvil") for key, found in usage.items()}
    for name in ("requests", "input_tokens", "output_tokens"):
        assert len({row[name] for row in rows.values()}) == 1, name
    assert rows["client", "chain"]["requests"] >= 1100
    assert rows["client", "chain"]["paid"] == rows["executor", "chain"]["paid"] == paid
    assert rows["client", "ledger"]["cost"] == rows["executor", "ledger"]["cost"] == market.accepted() == paid

    gas = sum(sent["gas"] for sent in settled["transactions"])
    assert gas <= 100 * 1000
    times = PEER_GAS * 1000 / gas
    print(
        f"\n{gas} gas for 1000 requests: {gas / 1000:.0f} a request; one by one {PEER_GAS}, {times:.0f} times as much"
    )
    print(f"{paid} charged by receipts, accepted with vouchers, and settled")
    both = market.attempt("executor", "command=usage", "source=both")
    assert both.returncode == 0, both.stdout + both.stderr
    print(both.stdout)


async def test_nothing_is_lost_or_paid_twice_when_ledgers_and_workers_are_killed(market: Market) -> None:
    """kill -9 of every process that keeps money, under load: what both sides say agrees when they are back."""
    before = market.charged("executor")
    for process, kind in (
        (market.executor, "Accounting"),
        (market.client, "Accounting"),
        (market.executor, "Worker"),
        (market.client, "ClientNode"),
    ):
        load = asyncio.create_task(market.ask(100))
        await asyncio.sleep(0)
        kill_all(process, kind)
        await asyncio.gather(load, return_exceptions=True)
        await recovered(market)
    await market.at_rest()
    assert market.charged("executor") > before
    (settled,) = market.run("executor", "command=settle")
    rows = market.rows("executor", "SELECT vouched, charged, doubled FROM lane")
    for vouched, charged, doubled in rows:
        assert vouched >= charged, "the executor was promised what it charged"
        assert not int.from_bytes(doubled, "big")
    usage = [
        next(row for row in market.run(role, "command=usage", "source=ledger", "by=chain") if row["chain"] == "anvil")
        for role in ("client", "executor")
    ]
    assert usage[0]["cost"] == usage[1]["cost"]
    assert usage[0]["requests"] == usage[1]["requests"]
    assert settled["chain"] == "anvil"
    (chain,) = market.run("executor", "command=usage", "source=chain", "by=chain")
    assert usage[0]["cost"] == usage[1]["cost"] == market.accepted() == chain["paid"]


async def test_a_validator_that_has_paid_in_probes_for_money_and_under_another_name(market: Market) -> None:
    """The last one, since from here on the executor has two clients."""
    before = clients(market)
    market.run("validator", "command=deposit", "amount=0.1")
    async with asyncio.timeout(90):
        while not clients(market) - before:  # noqa: ASYNC110 - other processes' files tell nobody
            await asyncio.sleep(0.2)
    (stranger,) = clients(market) - before
    (journal,) = (market.homes / "validator" / "validator").glob("ledger-anvil-*.sqlite")
    assert f"0x{stranger.hex()}" in journal.name.lower()
    assert f"0x{stranger.hex()}" not in "".join(market.validator.lines).lower()


def clients(market: Market) -> set[bytes]:
    """Who has a lane at the executor."""
    return {client for (client,) in market.rows("executor", "SELECT DISTINCT substr(lane, 1, 20) FROM lane")}


def kill_all(process: Process, kind: str) -> None:
    """kill -9 of all actors of that class."""
    for each in process.family():
        if re.match(rf"ray::{kind}\b", command_line(each)):
            each.kill()


async def recovered(market: Market) -> None:
    """Returns once a paid request succeeds again."""
    async with asyncio.timeout(90):
        while True:
            try:
                if await market.ask(1) == [""]:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.2)
