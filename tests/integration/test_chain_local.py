"""The chain for tests that a node starts for itself: only where none answers, with the contract, gone with the node."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from chain_support import Local, front

from lloom.__main__ import compose
from lloom.adapters.chain import anvil, deployment
from lloom.adapters.chain.rpc import Rpc
from lloom.core.configuration import argv, checks
from lloom.core.errors import ConfigError
from lloom.core.identity import Identity, checksum
from lloom.core.settings import Chain, Settings
from tests.free_ports import free_port


@pytest.fixture
def port() -> int:
    """One that nobody listens at."""
    return free_port()


def settings(url: str, *words: str) -> Settings:
    tree = compose(argv.rewrite(["role=client", "chain=anvil", f"chain.anvil.rpc=[{url}]", *words]))
    assert tree is not None
    return checks.settings(tree)


async def code(chain: Chain) -> bool:
    rpc = Rpc.open("anvil", chain, chain.rpc)
    try:
        return await deployment.deployed(rpc, deployment.address())
    finally:
        await rpc.close()


def answers(url: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) == 0


async def test_it_is_started_at_the_configured_port_and_ends(local: Local, port: int) -> None:
    url = f"http://127.0.0.1:{port}"
    async with anvil.provided(settings(url)) as ready:
        chain = ready.chain["anvil"]
        assert chain.rpc == (url,)
        assert chain.contract == checksum(deployment.address())
        assert await code(chain)
        who = Identity.generate()
        await anvil.fund("anvil", chain, who.address, 5)
    assert not answers(url)


async def test_one_that_answers_is_used_and_left_alone(local: Local) -> None:
    async with anvil.provided(settings(local.url)) as ready:
        assert ready.chain["anvil"].rpc == (local.url,)
    assert answers(local.url)


async def test_nodes_that_start_at_once_all_find_the_contract() -> None:
    with anvil.started(31337) as url:

        async def node() -> str | None:
            async with anvil.provided(settings(url)) as ready:
                assert await code(ready.chain["anvil"])
                return ready.chain["anvil"].contract

        assert set(await asyncio.gather(*(node() for _ in range(4)))) == {checksum(deployment.address())}


async def test_where_something_else_listens_another_port_is_taken(local: Local) -> None:
    async with front(local.url) as server:
        server.answers["eth_chainId"] = "0x1"
        taken = server.url.removesuffix("/secret-key")
        async with anvil.provided(settings(taken)) as ready:
            (url,) = ready.chain["anvil"].rpc
            assert url != taken
            assert await code(ready.chain["anvil"])


async def test_one_on_another_machine_is_not_started() -> None:
    with pytest.raises(ConfigError, match=r"only one at 127\.0\.0\.1 is started"):
        async with anvil.provided(settings("http://192.0.2.1:1", "chain.anvil.rpc_seconds=1")):
            pass


async def test_a_contract_elsewhere_has_to_be_there(local: Local) -> None:
    with pytest.raises(ConfigError, match="there is no contract at"):
        async with anvil.provided(settings(local.url, f"chain.anvil.contract='0x{'22' * 20}'")):
            pass


async def test_where_nobody_pays_none_is_started(port: int) -> None:
    url = f"http://127.0.0.1:{port}"
    async with anvil.provided(settings(url, 'accounting="off"')):
        assert not answers(url)


async def test_who_has_no_anvil_is_told_what_to_install(
    port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(anvil, "_TOOLS", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="npm install"):
        async with anvil.provided(settings(f"http://127.0.0.1:{port}")):
            pass


async def test_an_anvil_that_ends_at_once_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anvil, "binary", lambda: "/bin/false")
    with pytest.raises(ConfigError, match="anvil did not start"):
        await asyncio.to_thread(lambda: anvil.started(31337).__enter__())


def test_the_contract_s_address_follows_from_its_code_unless_another_is_named() -> None:
    chosen = settings("http://127.0.0.1:1")
    assert deployment.resolved(chosen).chain["anvil"].contract == checksum(deployment.address())
    named = settings("http://127.0.0.1:1", f"chain.anvil.contract='0x{'22' * 20}'")
    assert deployment.resolved(named) == named
