"""What the doctor says of a chain: a real one, without the contract, without money, another one, none at all."""

from __future__ import annotations

from typing import Any

import pytest
from chain_support import ETHER, ORACLE, Local

from lloom.__main__ import compose
from lloom.adapters.chain import anvil
from lloom.adapters.doctor import chains
from lloom.core.configuration import argv, checks
from lloom.core.finding import Finding
from lloom.core.identity import Identity
from lloom.core.settings import Settings


def settings(role: str, *words: str) -> Settings:
    tree = compose(argv.rewrite([f"role={role}", *words]))
    assert tree is not None
    return checks.settings(tree)


async def found(
    role: str, url: str, who: Identity | None, *words: str, name: str = "sepolia", **secrets: str
) -> Finding:
    """On a chain that is not taken for one of this machine."""
    here = (f"chain={name}", f"chain.{name}.rpc=[{url}]", f"chain.{name}.id=31337", f"chain.{name}.finality=latest")
    (finding,) = [each async for each in chains.check(settings(role, *here, *words), who, secrets)]
    return finding


async def test_a_client_that_has_paid_in_is_well(local: Local) -> None:
    finding = await found("client", local.url, await local.client(ETHER // 2))
    assert (finding.verdict, finding.found) == ("ok", "0.5 ETH is paid in")


async def test_a_client_that_has_paid_nothing_in_is_told_how(local: Local) -> None:
    finding = await found("client", local.url, Identity.generate())
    assert finding.verdict == "warning"
    assert "command=deposit chain=sepolia" in finding.advice


@pytest.mark.parametrize(("coins", "verdict"), [(0, "problem"), (5 * 10**14, "warning"), (ETHER, "ok")])
async def test_an_executor_needs_gas(local: Local, coins: int, verdict: str) -> None:
    finding = await found("executor", local.url, await local.person(coins), "llm=mock")
    assert finding.verdict == verdict, finding
    assert "0 ETH earned" in finding.found


async def test_an_executor_needs_coin_for_bytes_as_well(local: Local) -> None:
    await local.oracle(10**12)
    oracle = f"chain.sepolia.l1_oracle={{address:'{ORACLE}',max_fee:{10**12}}}"
    finding = await found("executor", local.url, await local.person(5 * 10**14), "llm=mock", oracle)
    assert finding.verdict == "problem", finding


async def test_a_chain_without_the_contract_is_told_how_it_gets_there() -> None:
    with anvil.started(31337) as url:
        finding = await found("client", url, Identity.generate())
    assert finding.verdict == "problem"
    assert "command=deploy chain=sepolia" in finding.advice


async def test_another_chain_is_a_problem(local: Local) -> None:
    finding = await found("client", local.url, None, "chain.sepolia.id=5")
    assert finding.verdict == "problem"
    assert "31337" in finding.found


async def test_a_server_that_does_not_answer_is_a_problem_and_its_url_stays_secret() -> None:
    finding = await found("client", "http://127.0.0.1:9/secret-key", None)
    assert finding.verdict == "problem"
    assert "secret-key" not in repr(finding)


async def test_the_users_own_server_comes_first(local: Local) -> None:
    finding = await found("client", "http://127.0.0.1:9", None, SEPOLIA_RPC_URL=local.url)
    assert finding.verdict == "ok"


async def test_where_nobody_pays_nothing_is_wrong() -> None:
    for words in ((), ("chain=sepolia", "accounting=off")):
        (finding,) = [each async for each in chains.check(settings("client", *words), None, {})]
        assert finding.verdict == "ok"


async def test_a_local_chain_that_is_not_there_yet_is_well() -> None:
    words: Any = ("chain=anvil", "chain.anvil.rpc=[http://127.0.0.1:9]")
    (finding,) = [each async for each in chains.check(settings("client", *words), None, {})]
    assert finding.verdict == "ok"
    assert "starts one" in finding.found
