"""A chain for tests on this machine: anvil, started where none answers, and ended with whoever started it.

Its accounts, and their keys, are the ones everybody knows: nothing on it is worth anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from loguru import logger
from msgspec.structs import replace

from lloom.adapters.chain import banking, deployment
from lloom.adapters.chain.contract import text
from lloom.adapters.chain.rpc import Rpc, shown
from lloom.adapters.chain.wallet import Wallet
from lloom.adapters.machine import ports
from lloom.core.errors import ConfigError, LloomError
from lloom.core.identity import Identity, NodeId, parse_address
from lloom.core.settings import Chain, Settings

MNEMONIC: Final = "test test test test test test test test test test test junk"
RICH: Final = Identity(bytes.fromhex("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"))
"""The first account of the mnemonic, with 10,000 coins."""
START_SECONDS: Final = 20.0
_LOOK_SECONDS: Final = 0.05
_ASK_SECONDS: Final = 2.0
_PATIENCE: Final = 20
"""Looks for a contract that somebody else is deploying, four in the time of a block."""
_TOOLS: Final = Path(__file__).resolve().parents[3] / "contracts" / "node_modules" / "@foundry-rs"
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})

# It dies with its parent (prctl(2), PR_SET_PDEATHSIG), however that dies. A small program of its own, since code between fork
# and exec is not safe in a process with threads.
_LAUNCH: Final = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


def binary() -> str:
    """The path of anvil; ConfigError says how to get it."""
    found = next(iter(sorted(_TOOLS.glob("anvil-*/bin/anvil"))), None) or shutil.which("anvil")
    if found is None:
        raise ConfigError(
            "a local chain needs anvil, which is not installed: run `npm install` in contracts/ (Node.js comes with npm), "
            "or install Foundry, or do without a chain: chain=off"
        )
    return str(found)


@contextlib.contextmanager
def started(
    chain_id: int, port: int = 0, block_seconds: float | None = None, options: Sequence[str] = ()
) -> Iterator[str]:
    """The URL of a new, empty anvil on loopback, for as long as the context lasts. `block_seconds` None: a block for each
    transaction, at once. ConfigError if it does not start.
    """
    with _process(chain_id, port or _free_port(), block_seconds, options) as (process, url):
        _await(process, url, chain_id)
        yield url


@contextlib.asynccontextmanager
async def provided(settings: Settings) -> AsyncIterator[Settings]:
    """`settings` with every chain's contract known and every local chain answering, started if need be, with the contract."""
    ready = deployment.resolved(settings)
    async with contextlib.AsyncExitStack() as stack:
        chains = dict(ready.chain)
        for name, chain in ready.chain.items():
            if chain.local and ready.accounting.mode != "off":
                chains[name] = await stack.enter_async_context(_provided(name, chain))
        yield replace(ready, chain=chains)


async def fund(name: str, chain: Chain, address: NodeId, wei: int) -> None:
    """Gives an address coins that are worth nothing; ChainAway or Refused if this is no anvil."""
    rpc = Rpc.open(name, chain, chain.rpc)
    try:
        await rpc.call("anvil_setBalance", text(address), hex(wei))
    finally:
        await rpc.close()


@contextlib.asynccontextmanager
async def _provided(name: str, chain: Chain) -> AsyncIterator[Chain]:
    """`chain` with a server that answers and the contract on it."""
    with contextlib.ExitStack() as stack:
        if not await asyncio.to_thread(_any_answers, chain):
            process, url = stack.enter_context(_process(chain.id, _port(name, chain), None, ()))
            await asyncio.to_thread(_await, process, url, chain.id)
            logger.info("a chain for tests runs at {}, as long as this node does", url)
            chain = replace(chain, rpc=(url,), rpc_env=None)
        await _equip(name, chain)
        yield chain


async def _equip(name: str, chain: Chain) -> None:
    """Puts the contract there, unless it is; ConfigError if it is to be at an address where it is not."""
    rpc = Rpc.open(name, chain, chain.rpc)
    try:
        await rpc.survey()
        try:
            await banking.deploy(Wallet(rpc, chain, RICH))
        except LloomError:
            # Another node of this machine may be about it at this moment, with the same account.
            if not await _appears(rpc, chain):
                raise
        assert chain.contract is not None
        await deployment.check(rpc, parse_address(chain.contract))
    finally:
        await rpc.close()


async def _appears(rpc: Rpc, chain: Chain) -> bool:
    """Whether the contract is there within a few blocks."""
    for _ in range(_PATIENCE):
        if await deployment.deployed(rpc, deployment.address()):
            return True
        await asyncio.sleep(chain.block_seconds / 4)
    return False


def _any_answers(chain: Chain) -> bool:
    return any(_chain_id(url) == chain.id for url in chain.rpc)


def _port(name: str, chain: Chain) -> int:
    """The configured port, if it is free; ConfigError if the chain is not to be on this machine."""
    for url in chain.rpc:
        parts = urlsplit(url)
        if parts.hostname not in _LOOPBACK:
            raise ConfigError(
                f"chain.{name}: no chain {chain.id} answers at {shown(url)}, and only one at 127.0.0.1 is started"
            )
        if parts.port and _is_free(parts.port):
            return parts.port
        logger.warning("something else is at {}; the chain for tests takes another port", shown(url))
    return _free_port()


def _free_port() -> int:
    return ports.first_port("127.0.0.1", 0, ((socket.SOCK_STREAM, 0),), "chain.*.rpc")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextlib.contextmanager
def _process(
    chain_id: int, port: int, block_seconds: float | None, options: Sequence[str]
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """An anvil that may not answer yet, and its URL; it is gone when the context ends. It belongs to the calling thread."""
    pace = [] if block_seconds is None else ["--block-time", f"{block_seconds:g}"]
    words = [
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--chain-id",
        str(chain_id),
        "--mnemonic",
        MNEMONIC,
        "--silent",
    ]
    process = subprocess.Popen(  # noqa: S603 (a program that we chose)
        [sys.executable, "-ISc", _LAUNCH, str(os.getpid()), binary(), *words, *pace, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()  # it has nothing to save
        process.wait()


def _await(process: subprocess.Popen[bytes], url: str, chain_id: int) -> None:
    """Returns once it answers; ConfigError if it ends, or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while _chain_id(url) != chain_id:
        if process.poll() is not None or time.monotonic() > deadline:
            raise ConfigError(f"anvil did not start at {url}; try it by hand: {binary()} --port {urlsplit(url).port}")
        time.sleep(_LOOK_SECONDS)


def _chain_id(url: str) -> int | None:
    """What the server at `url` says it is; None if there is none."""
    question = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}).encode()
    request = urllib.request.Request(url, question, {"Content-Type": "application/json"})  # noqa: S310 (checked: http)
    try:
        with urllib.request.urlopen(request, timeout=_ASK_SECONDS) as answer:  # noqa: S310
            return int(json.loads(answer.read(1 << 16))["result"], 16)
    except (OSError, ValueError, KeyError, TypeError):
        return None
