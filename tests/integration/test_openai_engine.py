from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import web

from lloom.adapters.llm import Engine, engines, upstream
from lloom.adapters.llm.mock_server import MockServer
from lloom.adapters.llm.openai import OpenAIEngine
from lloom.core.errors import CallerFault, ConfigError, LloomError, RetryElsewhere
from lloom.core.settings import MockBackend, Model, OpenAIBackend
from tests.integration.llm_support import (
    NO_FAULTS,
    ask,
    complete,
    embed,
    events,
    mock,
    model,
    read,
    text,
    texts,
    until,
    usage,
)

MOST = 16
"""Models that are offered without being named."""
KEY = "sk-proj-abcdefgh12345678"


def backend(base_url: str, models: Mapping[str, Model | None] | None = None, **fields: Any) -> OpenAIBackend:
    chosen = dict(models or {"mock": model()})
    known = {
        "provider": None,
        "parallel": 8,
        "requests_per_minute": None,
        "tokens_per_minute": None,
        "key_env": None,
        "limit_field": "max_tokens",
        "prefill_fields": {},
        "connect_seconds": 5,
        "idle_seconds": 30,
        **fields,
    }
    return OpenAIBackend(base_url=base_url, models=chosen, **known)


@asynccontextmanager
async def started(engine: Engine) -> AsyncIterator[Engine]:
    await engine.start()
    await engine.look()
    try:
        yield engine
    finally:
        await engine.close()


@asynccontextmanager
async def running(server: MockServer, **fields: Any) -> AsyncIterator[Engine]:
    async with started(OpenAIEngine("vllm", backend(f"{server.url}/v1", **fields), MOST)) as engine:
        yield engine


async def failing(fault: str, **fields: Any) -> LloomError:
    """What the engine makes of a fault of the mock."""
    async with mock() as server, running(server, models={"mock": model(f"mock@{fault}")}, **fields) as engine:
        with pytest.raises(LloomError) as raised:
            await read(engine.stream("chat", "mock", ask()))
        return raised.value


@asynccontextmanager
async def backend_that(answers: web.Handler, **fields: Any) -> AsyncIterator[Engine]:  # type: ignore[name-defined]
    """An engine over a backend of the test's own."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", answers)
    app.router.add_post("/v1/completions", answers)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with started(
            OpenAIEngine("vllm", backend(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", **fields), MOST)
        ) as engine:
            yield engine
    finally:
        await runner.cleanup()


async def test_an_answer_comes_through_as_the_backend_gave_it() -> None:
    async with mock() as server, running(server) as engine:
        chunks = events(await read(engine.stream("chat", "mock", ask())))
    assert len(text(chunks).split()) == 20
    assert usage(chunks)["completion_tokens"] == 20


async def test_the_terms_are_those_configured() -> None:
    models = {"Some/Model-7B": model("their-name", max_output=512, features=("tools",), input_price=3, output_price=5)}
    async with mock() as server, running(server, models=models) as engine:
        ((name, served),) = (await engine.look()).served.items()
    offer = served.offer
    assert (name, served.name) == (offer.id, "their-name")
    assert (offer.id, offer.context, offer.max_output, offer.parallel) == ("some/model-7b", 4096, 512, 8)
    assert (offer.backend, offer.features, offer.input_price, offer.output_price) == ("vllm", ("tools",), 3, 5)


@pytest.mark.parametrize("said", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("known", ["max_tokens", "max_completion_tokens"])
async def test_a_limit_is_called_what_the_backend_calls_it(said: str, known: str) -> None:
    async with _recording(limit_field=known) as (engine, seen):
        await read(engine.stream("chat", "mock", ask(**{said: 7})))
        await read(engine.stream("chat", "mock", ask(**{said: None})))
        await read(engine.stream("completions", "mock", complete("once", max_tokens=7)))
    limits = [{name: sent[name] for name in ("max_tokens", "max_completion_tokens") if name in sent} for sent in seen]
    assert limits == [{known: 7}, {}, {"max_tokens": 7}]


async def test_what_the_assistant_began_is_continued_where_that_must_be_said() -> None:
    begun = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    async with _recording(prefill_fields={"continue_final_message": True, "add_generation_prompt": False}) as (
        engine,
        seen,
    ):
        await read(engine.stream("chat", "mock", ask(messages=begun)))
        await read(engine.stream("chat", "mock", ask(messages=[*begun, begun[0]])))
        with pytest.raises(CallerFault):
            await read(engine.stream("chat", "mock", ask(messages=[1])))
    first, second = seen
    assert (first["continue_final_message"], first["add_generation_prompt"]) == (True, False)
    assert first["messages"] == begun
    assert "continue_final_message" not in second


@asynccontextmanager
async def _recording(**fields: Any) -> AsyncIterator[tuple[Engine, list[dict[str, Any]]]]:
    """An engine, and the requests that its backend gets."""
    seen: list[dict[str, Any]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(msgspec.json.decode(await request.read()))
        return web.Response(body=b"data: [DONE]\n\n", content_type="text/event-stream")

    async with backend_that(answer, **fields) as engine:
        yield engine, seen


async def test_the_request_is_rewritten_only_where_it_must_be() -> None:
    seen: list[tuple[Any, bytes]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.headers.get("authorization"), await request.read()))
        return web.Response(body=b"data: [DONE]\n\n", content_type="text/event-stream")

    body = (
        b'{"model":"x", "stream":false,"store":true,"service_tier":"priority","messages":[ {"a": 1.50}],"top_k" : 3 }'
    )
    async with backend_that(answer) as engine:
        await read(engine.stream("chat", "mock", body))
    ((key, sent),) = seen
    assert key is None
    assert b'[ {"a": 1.50}]' in sent
    expected = {
        "messages": [{"a": 1.5}],
        "model": "mock",
        "stream": True,
        "stream_options": {"include_usage": True},
        "top_k": 3,
    }
    assert msgspec.json.decode(sent) == expected


async def test_the_wanted_tokens_are_lowered_to_what_the_model_gives() -> None:
    async with mock() as server, running(server, models={"mock": model(max_output=4)}) as engine:
        for limit, expected in ((9, 4), (2, 2), (None, 20)):
            chunks = events(await read(engine.stream("chat", "mock", ask(max_tokens=limit))))
            assert usage(chunks)["completion_tokens"] == expected


@pytest.mark.parametrize("body", [b"", b"[1]", b'{"messages":', b"\xff", ask(max_tokens=0), ask(max_tokens="many")])
async def test_a_malformed_request_is_the_callers_fault_and_is_not_sent(body: bytes) -> None:
    async with mock() as server, running(server, models={"mock": model(max_output=4)}) as engine:
        with pytest.raises(CallerFault):
            await read(engine.stream("chat", "mock", body))
        assert server.stats.requests == 0


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_refused_request_is_the_callers_fault_in_the_backends_words(status: int) -> None:
    error = await failing(str(status))
    assert isinstance(error, CallerFault)
    assert (error.status, error.code, error.param) == (status, f"mock_{status}", "messages" if status == 422 else None)
    assert "asked to fail" in str(error)


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500])
async def test_neither_key_nor_account_of_the_executor_are_told(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    error = await failing(str(status), key_env="TEST_KEY")
    assert "sk-" not in str(error)
    assert "org-mock" not in str(error)


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("401", 502, "backend_account"),
        ("402", 502, "backend_account"),
        ("403", 502, "backend_account"),
        ("404", 404, "model_not_found"),
        ("408", 504, "backend_error"),
        ("409", 503, "backend_error"),
        ("429", 429, "backend_busy"),
        ("error", 502, "backend_error"),
        ("503", 503, "backend_error"),
        ("529", 503, "backend_error"),
        ("cut", 502, "backend_cut"),
    ],
)
async def test_a_failing_backend_means_trying_elsewhere(fault: str, status: int, code: str) -> None:
    error = await failing(fault)
    assert isinstance(error, RetryElsewhere)
    assert (error.status, error.code) == (status, code)
    assert error.retry_after == (7 if fault in ("429", "503") else None)


@pytest.mark.parametrize(
    "message", ["Your credit balance is too low", "API key not valid. Please pass a valid API key."]
)
async def test_a_400_that_is_about_the_account_is_not_the_callers_fault(message: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"error": {"message": message}}, status=400)

    async with backend_that(answer) as engine:
        with pytest.raises(RetryElsewhere) as raised:
            await read(engine.stream("chat", "mock", ask()))
    assert message not in str(raised.value)


@pytest.mark.parametrize("fault", ["stall", "pause"])
async def test_silence_is_given_up_after_a_while(fault: str) -> None:
    error = await failing(fault, idle_seconds=0.2)
    assert isinstance(error, RetryElsewhere)
    assert (error.status, error.code) == (504, "backend_stalled")


async def test_what_came_before_a_cut_is_delivered() -> None:
    async with mock() as server, running(server, models={"mock": model("mock@cut")}) as engine:
        got = b""

        async def reading() -> None:
            nonlocal got
            async for data in engine.stream("chat", "mock", ask()):
                got += data

        with pytest.raises(RetryElsewhere):
            await reading()
    assert 0 < got.count(b'"content"') < 20


async def test_an_answer_without_an_end_was_cut() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=b'data: {"choices":[{"finish_reason":null}]}\n\n', content_type="text/event-stream")

    async with backend_that(answer) as engine:
        with pytest.raises(RetryElsewhere, match="no end"):
            await read(engine.stream("chat", "mock", ask()))


@pytest.mark.parametrize("last", [b"data: [DONE]", b'data: {"choices":[{"finish_reason": "stop"}]}'])
async def test_an_answer_is_whole_that_says_so_in_either_way(last: bytes) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=b"data: {}\n\n" + last + b"\n\n", content_type="text/event-stream")

    async with backend_that(answer) as engine:
        assert (await read(engine.stream("chat", "mock", ask()))).endswith(last + b"\n\n")


@pytest.mark.parametrize("status", [200, 301, 400])
async def test_nonsense_is_no_answer(status: int) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>" * 100_000, status=status, headers={"location": "http://127.0.0.1:1/"})

    async with backend_that(answer) as engine:
        with pytest.raises(CallerFault if status == 400 else RetryElsewhere) as raised:
            await read(engine.stream("chat", "mock", ask()))
    assert "<html>" not in str(raised.value)


async def test_a_backend_that_is_not_there_is_unreachable() -> None:
    async with mock() as server, running(server) as engine:
        await server.close()
        for asked in (engine.look(), read(engine.stream("chat", "mock", ask()))):
            with pytest.raises(RetryElsewhere) as raised:
                await asked
            assert (raised.value.status, raised.value.code) == (503, "backend_unreachable")


async def test_a_backend_to_which_no_connection_can_be_had_is_unreachable() -> None:
    limits = {"parallel": 1, "connect_seconds": 1}
    async with mock(tokens=100_000, token_seconds=0.001) as server, running(server, **limits) as engine:
        async with aclosing(engine.stream("chat", "mock", ask())) as answer:
            await anext(answer)
            with pytest.raises(RetryElsewhere) as raised:
                await read(engine.stream("chat", "mock", ask()))
        assert (raised.value.status, raised.value.code) == (503, "backend_unreachable")


async def test_closing_the_answer_stops_the_generation() -> None:
    async with mock(tokens=100_000, token_seconds=0.001) as server, running(server) as engine:
        async with aclosing(engine.stream("chat", "mock", ask())) as answer:
            await anext(answer)
            assert server.stats.active == 1
        await until(lambda: server.stats.active == 0)
        assert server.stats.cancelled == 1


@pytest.mark.parametrize("fault", ["stall", "pause"])
async def test_cancelling_the_reader_stops_the_generation(fault: str) -> None:
    async with mock() as server, running(server, models={"mock": model(f"mock@{fault}")}) as engine:
        reading = asyncio.create_task(read(engine.stream("chat", "mock", ask())))
        await until(lambda: server.stats.active == 1)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await until(lambda: server.stats.active == 0)
        assert server.stats.cancelled == 1


async def test_a_connection_serves_again_after_a_whole_answer_and_never_after_a_broken_one() -> None:
    async with mock() as server, running(server, models={"mock": model(), "cut": model("mock@pause")}) as engine:
        for _ in range(3):
            await read(engine.stream("chat", "mock", ask()))
        assert len(server.connections) == 1
        async with aclosing(engine.stream("chat", "cut", ask())) as answer:
            await anext(answer)
        await read(engine.stream("chat", "mock", ask()))
        assert server.stats.cancelled == 1


async def test_a_missing_key_is_named_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_KEY", raising=False)
    with pytest.raises(ConfigError, match="TEST_KEY"):
        await OpenAIEngine("openai", backend("http://127.0.0.1:1", key_env="TEST_KEY"), MOST).start()


async def test_the_key_is_sent_to_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers.get("authorization"))
        return web.Response(body=b"data: [DONE]\n\n", content_type="text/event-stream")

    monkeypatch.setenv("TEST_KEY", f" {KEY}\n")
    async with backend_that(answer) as other:
        assert isinstance(other, OpenAIEngine)
        settings = msgspec.structs.replace(other._backend, key_env="TEST_KEY")
        async with started(OpenAIEngine("vllm", settings, MOST)) as engine:
            await read(engine.stream("chat", "mock", ask()))
    assert seen == [f"Bearer {KEY}"]


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"base_url": "localhost:1"}, "base_url"),
        ({"models": {"a": Model(context=1, encoding="gpt2")}}, "gpt2"),
        ({"models": {"A": model(), "a": model()}}, "twice"),
        ({"models": {"no model": model()}}, "no model"),
    ],
)
async def test_what_cannot_work_is_told_at_the_start(changed: dict[str, Any], what: str) -> None:
    settings = msgspec.structs.replace(backend("http://127.0.0.1:1"), **changed)
    with pytest.raises(ConfigError, match=what):
        await OpenAIEngine("vllm", settings, MOST).start()


async def test_the_mock_serves_as_a_backend_of_its_own() -> None:
    settings = MockBackend(
        models={"lloom-mock": model()},
        parallel=4,
        tokens=6,
        first_token_seconds=0,
        token_seconds=0,
        faults=NO_FAULTS,
        idle_seconds=5,
    )
    (engine,) = engines({"mock": settings}, MOST)
    await engine.start()
    offer = (await engine.look()).served["lloom-mock"].offer
    assert (offer.id, offer.parallel, offer.backend) == ("lloom-mock", 4, "mock")
    for _ in range(2):
        assert usage(events(await read(engine.stream("chat", "lloom-mock", ask()))))["completion_tokens"] == 6
    await engine.close()


async def test_a_redirect_does_not_carry_the_prompt_elsewhere() -> None:
    async with mock() as trap:

        async def answer(request: web.Request) -> web.Response:
            return web.Response(status=307, headers={"location": f"{trap.url}/v1/chat/completions"})

        async with backend_that(answer) as engine:
            with pytest.raises(RetryElsewhere):
                await read(engine.stream("chat", "mock", ask()))
        assert trap.stats.requests == 0


async def test_a_completion_comes_through_as_the_backend_gave_it() -> None:
    async with mock() as server, running(server) as engine:
        chunks = events(await read(engine.stream("completions", "mock", complete(["one", "two"], n=2, max_tokens=5))))
    assert {index: len(said.split()) for index, said in texts(chunks).items()} == {0: 5, 1: 5, 2: 5, 3: 5}
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert usage(chunks)["completion_tokens"] == 20


async def test_embeddings_come_as_a_stream_like_any_answer() -> None:
    async with mock() as server, running(server) as engine:
        *vectors, last = events(await read(engine.stream("embeddings", "mock", embed("one", "two", dimensions=8))))
    assert [vector["index"] for vector in vectors] == [0, 1]
    assert all(len(base64.b64decode(vector["embedding"])) == 8 * 4 for vector in vectors)
    assert usage([last])["prompt_tokens"] == 2


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("429", 429, "backend_busy"),
        ("error", 502, "backend_error"),
        ("cut", 502, "backend_cut"),
        ("malformed", 502, "backend_error"),
        ("stall", 504, "backend_stalled"),
    ],
)
async def test_a_failure_of_embeddings_is_explained_like_any_other(fault: str, status: int, code: str) -> None:
    wait = {"idle_seconds": 0.2} if fault == "stall" else {}
    async with mock() as server, running(server, models={"mock": model(f"mock@{fault}")}, **wait) as engine:
        with pytest.raises(RetryElsewhere) as raised:
            await read(engine.stream("embeddings", "mock", embed("one")))
    assert (raised.value.status, raised.value.code) == (status, code)


async def test_embeddings_without_end_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "MAX_WHOLE", 10)
    async with mock() as server, running(server) as engine:
        with pytest.raises(RetryElsewhere, match="no end") as raised:
            await read(engine.stream("embeddings", "mock", embed("one")))
        assert raised.value.code == "backend_cut"


async def test_cancelling_embeddings_lets_go_of_the_backend() -> None:
    async with mock() as server, running(server, models={"mock": model("mock@stall")}) as engine:
        reading = asyncio.create_task(read(engine.stream("embeddings", "mock", embed("one"))))
        await until(lambda: server.stats.active == 1)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await until(lambda: server.stats.active == 0)
