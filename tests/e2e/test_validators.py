"""A validator is killed: the network goes on without it, and it is whole again soon after it is back."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress

import openai
import psutil
import pytest
from conftest import EMBEDDING, MOCK, MODEL, Network
from support import ROOT, Process, environment

from lloom.adapters.anchors.inquiry import Whereabouts, ask
from lloom.adapters.bridge import Connection, Link, dial
from lloom.adapters.routing.pool import Pool
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import Identity, NodeId, parse_address
from lloom.core.messages import CatalogueCall, Numbers, Statistics, decoder
from lloom.core.offer import Endpoint
from tests.integration.bridge_support import settings

pytestmark = pytest.mark.timeout(300)

QUESTION = [{"role": "user", "content": "Explain gravity in one sentence."}]
WHOLE_SECONDS = 90
"""Executors try again after 30 s at the latest; and they may still be busy."""


async def test_without_its_validator_the_network_goes_on_and_one_that_is_back_is_whole_again(network: Network) -> None:
    executors = len(network.executors)
    await until(lambda: knows(network.validator, executors))
    others, validator = actors(network), whereabouts(network.validator)

    network.lose_validator()
    questions(network, times=3)
    stranger(network, f"{MOCK}-never-heard-of-before")
    await until(lambda: serves(network, executors))

    network.regain_validator()
    assert whereabouts(network.validator) == validator
    await until(lambda: knows(network.validator, executors))
    questions(network, times=1)
    stranger(network, f"{MOCK}-never-heard-of-after")
    await until(lambda: serves(network, executors))
    assert actors(network) == others


def questions(network: Network, times: int) -> None:
    """All are answered at the first try."""
    with network.openai() as client:
        for model in (MOCK, MODEL) * times:
            answer = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=4)
            assert answer.choices[0].message.content


def stranger(network: Network, model: str) -> None:
    """Nobody asked for this model before, so memory cannot answer: the network is searched, and found to have the others."""
    with network.openai() as client, pytest.raises(openai.NotFoundError, match=MOCK):
        client.chat.completions.create(model=model, messages=QUESTION)


async def serves(network: Network, executors: int) -> bool:
    """Whether those are listed that are there; one that said goodbye may be for half a minute more."""
    return served(network) == {MODEL: 1, MOCK: executors, EMBEDDING: executors}


def served(network: Network) -> dict[str, int]:
    """What `command=models` prints: models, and by how many executors they are served."""
    words = [sys.executable, "-m", "lloom", "role=client", "command=models", f"home={network.homes / 'client'}"]
    found = subprocess.run(words, capture_output=True, text=True, env=environment(), cwd=ROOT, timeout=120, check=False)
    assert found.returncode == 0, found.stderr
    return {row.split()[0]: int(row.split()[1]) for row in found.stdout.splitlines()[1:]}


def actors(network: Network) -> set[psutil.Process]:
    """The processes that should outlive a validator."""
    kinds = ("ExecutorNode", "Worker", "Accounting")
    return {
        network.client.actor("ClientNode"),
        *(process.actor(kind) for process in network.executors for kind in kinds),
    }


def whereabouts(validator: Process) -> Whereabouts:
    """Its address and endpoint, as it says them when it is up."""
    said = re.search(r"(0x[0-9a-fA-F]{40})@([0-9.]+):(\d+)", "\n".join(validator.lines))
    assert said
    return parse_address(said[1]), Endpoint(said[2], int(said[3]))


async def knows(validator: Process, executors: int) -> bool:
    """Whether its catalogue has all models, all executors, and vouches for each of them."""
    link = Link(Identity.generate(), "lloom", settings())

    async def reach(endpoint: Endpoint, who: NodeId) -> Connection:
        return await dial(endpoint, who, link, lambda _, __: None)

    pool = Pool(reach, 1)
    try:
        numbers = await ask(pool, whereabouts(validator), CatalogueCall(Statistics()), decoder(Numbers), 5)
    finally:
        await pool.close()
    return (numbers.models, numbers.executors, numbers.vouched) == (len((MODEL, MOCK, EMBEDDING)), executors, executors)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Asks again and again: a catalogue tells nobody when it is whole."""
    async with asyncio.timeout(WHOLE_SECONDS):
        while True:
            with suppress(RetryElsewhere):
                if await condition():
                    return
            await asyncio.sleep(0.2)
