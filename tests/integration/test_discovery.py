"""Backends that come, go and change what they serve, over HTTP: what is offered follows, without a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from aiohttp import web

from lloom.actors.executor import ExecutorNode
from lloom.actors.worker import Worker
from lloom.adapters.llm.menu import Menu
from lloom.adapters.llm.openai import OpenAIEngine
from lloom.adapters.serving.gate import Gate
from lloom.core.errors import RetryElsewhere
from lloom.core.lineup import Lineup
from lloom.core.settings import Model
from tests.free_ports import free_port
from tests.integration.llm_support import ask, mock, model, read, until
from tests.integration.test_openai_engine import MOST, backend
from tests.integration.test_serving import SETTINGS
from tests.unit.actors.actor_support import HERE, FakePlace
from tests.unit.actors.test_executor import FakeDht, FakeRegistrar

STAR: Mapping[str, Model | None] = {"*": Model()}


@asynccontextmanager
async def engine(
    url: str, models: Mapping[str, Model | None] = STAR, name: str = "own", **fields: Any
) -> AsyncIterator[OpenAIEngine]:
    made = OpenAIEngine(name, backend(f"{url}/v1", models, **fields), MOST)
    await made.start()
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def server(answers: Mapping[str, Any]) -> AsyncIterator[str]:
    """One whose answers stand by path; a number is a status. Its URL."""

    async def answer(request: web.Request) -> web.Response:
        said = answers.get(request.path, 404)
        said = said(await request.json()) if callable(said) else said
        return web.Response(status=said) if isinstance(said, int) else web.json_response(said)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def terms(found: Lineup) -> dict[str, tuple[int, tuple[str, ...]]]:
    return {name: (each.offer.context, each.offer.features) for name, each in found.served.items()}


def listing(*models: Mapping[str, Any]) -> dict[str, Any]:
    return {"object": "list", "data": list(models)}


async def test_a_server_tells_what_it_serves_and_how_long_it_is() -> None:
    details = {"Qwen/Qwen3-8B": {"max_model_len": 32768}}
    async with mock(models=("Qwen/Qwen3-8B", "other"), details=details) as there, engine(there.url) as own:
        found = await own.look()
        assert terms(found) == {"qwen3-8b": (32768, ()), "other": (4096, ())}
        assert ["llm.own.models.other.context" in remark for remark in found.remarks] == [True]
        assert b"[DONE]" in await read(own.stream("chat", "qwen3-8b", ask()))


async def test_ollama_is_asked_about_every_model_once() -> None:
    asked: list[str] = []

    def show(question: Any) -> Any:
        asked.append(question["model"])
        able = ["embedding"] if "embed" in question["model"] else ["completion", "tools"]
        return {"capabilities": able, "model_info": {"llama.context_length": 131072}}

    models = listing({"id": "llama3.2:3b", "owned_by": "library"}, {"id": "nomic-embed:latest"})
    cut = {"*": Model(context=8192)}
    async with server({"/v1/models": models, "/api/show": show}) as url, engine(url, cut, provider="ollama") as own:
        for _ in range(2):
            assert terms(await own.look()) == {"llama3.2-3b": (8192, ("tools", "json", "json_schema", "seed"))}
    assert sorted(asked) == ["llama3.2:3b", "nomic-embed:latest"]


async def test_lm_studio_tells_more_elsewhere() -> None:
    more = listing(
        {"id": "qwen/qwen3-8b", "type": "llm", "max_context_length": 131072, "capabilities": ["tool_use"]},
        {"id": "text-embedding-x", "type": "embeddings", "max_context_length": 2048},
    )
    plain = listing({"id": "qwen/qwen3-8b"}, {"id": "text-embedding-x"})
    answers = {"/v1/models": plain, "/api/v0/models": more}
    async with server(answers) as url, engine(url, provider="lm_studio") as own:
        assert terms(await own.look()) == {"qwen3-8b": (131072, ("tools", "json_schema", "seed"))}


@pytest.mark.parametrize("status", [403, 404])
async def test_who_has_no_list_serves_what_is_named(status: int) -> None:
    models = {"a": model("A"), "*": Model()}
    async with server({"/v1/models": status}) as url, engine(url, models) as own:
        found = await own.look()
    assert set(found.served) == {"a"}
    assert any("has no list of models" in remark for remark in found.remarks)


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, "backend_account"), (429, "backend_busy"), (500, "backend_error"), (503, "backend_error"), (508, "loop")],
)
async def test_who_fails_serves_nothing(status: int, code: str) -> None:
    async with server({"/v1/models": status}) as url, engine(url, {"a": model("A")}) as own:
        with pytest.raises(RetryElsewhere) as raised:
            await own.look()
    assert raised.value.code == code


async def test_the_map_fills_in_what_a_provider_does_not_say() -> None:
    models = {"gpt-4.1-mini": Model(), "*": Model()}
    told = listing({"id": "gpt-4.1-mini"}, {"id": "text-embedding-3-small"}, {"id": "gpt-4.1"})
    async with server({"/v1/models": told}) as url, engine(url, models, provider="openai") as own:
        found = terms(await own.look())
    assert set(found) == {"gpt-4.1-mini", "gpt-4.1"}
    assert found["gpt-4.1-mini"][0] == 1047576
    assert "tools" in found["gpt-4.1-mini"][1]


class Network:
    """An executor's head and a worker of it, that ask each other as actors do; the DHT is a note."""

    def __init__(self, menu: Menu) -> None:
        self.menu = menu
        self.dht = FakeDht()
        head, worker = FakePlace("executor"), FakePlace("executor-worker-0")
        worker.identity_, worker.node = head.identity_, head.node
        self.node = ExecutorNode(head.place)
        cast(Any, worker).ask = self._ask
        self.worker = Worker(worker.place, HERE.port, HERE)
        self.serving = SimpleNamespace(engines=menu, book=SimpleNamespace(publish=lambda *_: None))

    async def _ask(self, fellow: str, method: str, *arguments: Any, seconds: float) -> Any:
        return await getattr(self.node, method)(*arguments)

    @property
    def announced(self) -> list[str]:
        return self.dht.announced[-1][0] if self.dht.announced else []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        naming = SimpleNamespace(heard=lambda _: None)
        works = (
            self.node._announce(cast(Any, self.dht), cast(Any, FakeRegistrar())),
            self.worker._follow_offer(cast(Any, self.serving)),
            self.worker._follow_menu(self.menu, cast(Any, naming)),
        )
        tasks = [asyncio.create_task(work) for work in works]
        try:
            async with asyncio.timeout(20):
                yield
            assert not any(task.done() for task in tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_model_that_is_pulled_later_is_offered_without_a_restart() -> None:
    async with mock(models=("a",)) as there, engine(there.url) as own:
        menu = Menu([own], 60)
        await menu.look()
        network = Network(menu)
        async with network.running():
            await until(lambda: network.announced == ["a"])
            there.behaviour = replace(there.behaviour, models=("a", "b"))
            await menu.look()
            await until(lambda: network.announced == ["a", "b"])
            there.behaviour = replace(there.behaviour, models=("b",))
            await menu.look()
            await until(lambda: network.announced == ["b"])


async def test_a_backend_that_starts_later_is_offered_then_and_the_others_meanwhile() -> None:
    port = free_port()
    async with (
        mock(models=("there",)) as there,
        engine(f"http://127.0.0.1:{port}", name="late") as late,
        engine(there.url) as other,
    ):
        menu = Menu([late, other], 60)
        await menu.look()
        network = Network(menu)
        async with network.running():
            await until(lambda: network.announced == ["there"])
            async with mock(models=("late",), port=port):
                await menu.look()
                await until(lambda: network.announced == ["late", "there"])
                assert b"[DONE]" in await read(late.stream("chat", "late", ask()))
            await menu.look()
            await menu.look()
            await until(lambda: network.announced == ["there"])


async def test_a_provider_at_its_limit_is_not_asked_again_before_it_said() -> None:
    async with mock(requests_per_minute=1) as there, engine(there.url, {"mock": model()}) as own:
        await own.look()
        gate = Gate(own.limits, msgspec.structs.replace(SETTINGS, queue_seconds=0.01))

        async def one() -> None:
            async with gate.place():
                await read(own.stream("chat", "mock", ask()))

        await one()
        with pytest.raises(RetryElsewhere) as told:
            await one()
        assert told.value.code == "backend_busy"
        with pytest.raises(RetryElsewhere) as refused:
            await one()
        assert refused.value.code == "busy"
        assert refused.value.retry_after is not None
        assert 0 < refused.value.retry_after <= 60
        assert there.stats.requests == 2
