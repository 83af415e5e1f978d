from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import msgspec
import pytest

from lloom.adapters.llm.litellm import LiteLLMEngine, _events
from lloom.adapters.llm.mock_server import MockServer
from lloom.adapters.llm.openai import OpenAIEngine
from lloom.core.errors import CallerFault, ConfigError, LloomError, RetryElsewhere
from lloom.core.settings import LiteLLMBackend, Model
from tests.integration.llm_support import (
    ask,
    complete,
    embed,
    events,
    finish,
    mock,
    model,
    read,
    text,
    texts,
    until,
    usage,
)
from tests.integration.test_openai_engine import backend as openai_backend

# LiteLLM 1.106 looks at every attribute of pydantic's models, deprecated ones too.
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the 'model_:pydantic.warnings.PydanticDeprecatedSince211")

KEY = "sk-proj-abcdefgh12345678"


def backend(**fields: Any) -> LiteLLMBackend:
    known = {
        "models": {"mock": model()},
        "parallel": 4,
        "requests_per_minute": None,
        "tokens_per_minute": None,
        "key_env": None,
        "base_url": None,
        "idle_seconds": 30,
        "options": {},
    }
    return LiteLLMBackend(**{**known, "provider": "hosted_vllm", **fields})


@asynccontextmanager
async def running(server: MockServer, **fields: Any) -> AsyncIterator[LiteLLMEngine]:
    engine = LiteLLMEngine("vllm", backend(base_url=f"{server.url}/v1", **fields), 16)
    await engine.start()
    await engine.look()
    try:
        yield engine
    finally:
        await engine.close()


async def failing(fault: str, **fields: Any) -> LloomError:
    async with mock() as server, running(server, models={"mock": model(f"mock@{fault}")}, **fields) as engine:
        with pytest.raises(LloomError) as raised:
            await read(engine.stream("chat", "mock", ask()))
        assert server.stats.requests == 1, "it tried again by itself"
        return raised.value


async def test_a_stream_is_in_openais_wire_form() -> None:
    async with mock() as server, running(server) as engine:
        chunks = events(await read(engine.stream("chat", "mock", ask())))
    assert len(text(chunks).split()) == 20
    assert finish(chunks) == "stop"
    assert usage(chunks)["completion_tokens"] == 20
    assert len({(chunk["id"], chunk["created"], chunk["object"]) for chunk in chunks}) == 1
    for chunk in chunks[:-1]:
        assert chunk["usage"] is None
        (choice,) = chunk["choices"]
        assert {"index", "delta", "finish_reason", "logprobs"} == set(choice)
        assert None not in choice["delta"].values()


async def test_it_says_what_the_raw_path_says() -> None:
    async with mock() as server, running(server) as engine:
        first = events(await read(engine.stream("chat", "mock", ask())))
        second = events(await read(engine.stream("chat", "mock", ask())))
    assert text(first) == text(second)


async def test_tool_calls_come_through() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"type": "string"}}}}}
    async with mock() as server, running(server) as engine:
        chunks = events(await read(engine.stream("chat", "mock", ask(tools=[tool], tool_choice="required"))))
    calls = [call for chunk in chunks[:-1] for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
    assert calls[0]["function"]["name"] == "f"
    assert list(msgspec.json.decode("".join(call["function"]["arguments"] for call in calls))) == ["a"]
    assert finish(chunks) == "tool_calls"


async def test_the_wanted_tokens_are_lowered_to_what_the_model_gives() -> None:
    async with mock() as server, running(server, models={"mock": model(max_output=4)}) as engine:
        chunks = events(await read(engine.stream("chat", "mock", ask(max_tokens=9))))
    assert (usage(chunks)["completion_tokens"], finish(chunks)) == (4, "length")


async def test_a_caller_cannot_redirect_the_key_or_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    async with mock() as trap, mock() as server, running(server, key_env="TEST_KEY") as engine:
        aims = {
            "api_base": trap.url, "base_url": trap.url, "extra_headers": {"x-mock-fault": "500"}, "custom_llm_provider": "openai",
            "mock_response": "no", "fallbacks": ["x"], "extra_body": {"model": "mock@500"}, "num_retries": 3, "api_key": "x",
        }  # fmt: skip
        assert len(text(events(await read(engine.stream("chat", "mock", ask(**aims))))).split()) == 20
        assert (server.stats.requests, trap.stats.requests) == (1, 0)


@pytest.mark.parametrize(
    "body", [b"{", ask(messages=[]), ask(messages="hi"), ask(tools=[{"type": "mcp", "server_url": "x"}])]
)
async def test_a_malformed_request_is_the_callers_fault_and_is_not_sent(body: bytes) -> None:
    async with mock() as server, running(server) as engine:
        with pytest.raises(CallerFault):
            await read(engine.stream("chat", "mock", body))
        assert server.stats.requests == 0


async def test_a_refused_request_is_the_callers_fault_in_the_backends_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    error = await failing("422", key_env="TEST_KEY")
    assert isinstance(error, CallerFault)
    assert (error.status, error.code, error.param) == (422, "mock_422", "messages")


@pytest.mark.parametrize("status", [400, 401, 429, 500])
async def test_neither_key_nor_account_of_the_executor_are_told(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    error = await failing(str(status), key_env="TEST_KEY")
    assert "sk-" not in str(error)
    assert "org-mock" not in str(error)


@pytest.mark.parametrize(
    ("fault", "status", "code", "retry_after"),
    [
        ("401", 502, "backend_account", None),
        ("403", 502, "backend_account", None),
        ("404", 404, "model_not_found", None),
        ("429", 429, "backend_busy", 7),
        ("error", 502, "backend_error", None),
        ("503", 503, "backend_error", 7),
        ("cut", 502, "backend_cut", None),
    ],
)
async def test_a_failing_provider_means_trying_elsewhere(
    fault: str, status: int, code: str, retry_after: float | None
) -> None:
    error = await failing(fault)
    assert isinstance(error, RetryElsewhere)
    assert (error.status, error.code, error.retry_after) == (status, code, retry_after)


@pytest.mark.parametrize("fault", ["stall", "pause"])
async def test_silence_is_given_up_after_a_while(fault: str) -> None:
    error = await failing(fault, idle_seconds=1)
    assert isinstance(error, RetryElsewhere)
    assert error.code in ("backend_stalled", "backend_cut")


async def test_an_answer_may_take_longer_than_the_longest_silence() -> None:
    async with mock(tokens=20, token_seconds=0.15) as server, running(server, idle_seconds=2) as engine:
        assert len(text(events(await read(engine.stream("chat", "mock", ask())))).split()) == 20


async def test_a_provider_that_is_not_there_means_trying_elsewhere() -> None:
    async with mock() as server:
        pass
    async with running(server) as engine:
        with pytest.raises(RetryElsewhere):
            await read(engine.stream("chat", "mock", ask()))


async def test_closing_the_answer_stops_the_generation() -> None:
    async with mock(tokens=100_000, token_seconds=0.001) as server, running(server) as engine:
        async with aclosing(engine.stream("chat", "mock", ask())) as answer:
            await anext(answer)
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


async def test_a_hundred_equal_chunks_are_an_answer_too() -> None:
    import litellm

    chunk = litellm.ModelResponseStream(choices=[{"index": 0, "delta": {"content": "word"}}])  # type: ignore[list-item]
    assert litellm.REPEATED_STREAMING_CHUNK_LIMIT > 1_000_000
    (event,) = _events("chat", chunk, 1)
    assert event["choices"][0]["delta"] == {"content": "word"}


async def test_no_prompt_reaches_a_log(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    caplog.set_level(logging.DEBUG)
    async with mock() as server, running(server, models={"mock": model(), "bad": model("mock@500")}) as engine:
        await read(engine.stream("chat", "mock", ask("a-secret-question")))
        with pytest.raises(RetryElsewhere):
            await read(engine.stream("chat", "bad", ask("a-secret-question")))
    out, err = capfd.readouterr()
    assert "a-secret-question" not in caplog.text + out + err


async def test_an_unknown_provider_is_told_at_the_start() -> None:
    with pytest.raises(ConfigError, match="no provider 'nobody'"):
        await LiteLLMEngine("x", backend(provider="nobody"), 16).start()


@pytest.mark.parametrize("provider", ["hosted_vllm", "text-completion-openai"])
async def test_a_completion_is_in_openais_wire_form(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    async with mock() as server, running(server, provider=provider, key_env="TEST_KEY") as engine:
        chunks = events(await read(engine.stream("completions", "mock", complete(max_tokens=5, user="u"))))
    assert len(texts(chunks)[0].split()) == 5
    assert finish(chunks) == "length"
    assert usage(chunks)["completion_tokens"] == 5
    assert len({(chunk["id"], chunk["created"], chunk["object"]) for chunk in chunks}) == 1
    for chunk in chunks[:-1]:
        (choice,) = chunk["choices"]
        assert {"index", "text", "finish_reason", "logprobs"} == set(choice)


async def test_embeddings_are_what_the_raw_path_gives() -> None:
    body = embed("one", "two", dimensions=8, encoding_format="base64", api_base="http://127.0.0.1:1")
    async with mock() as server, running(server) as engine:
        *vectors, last = events(await read(engine.stream("embeddings", "mock", body)))
        raw = OpenAIEngine("raw", openai_backend(f"{server.url}/v1"), 16)
        await raw.start()
        await raw.look()
        expected = events(await read(raw.stream("embeddings", "mock", embed("one", "two", dimensions=8))))
        await raw.close()
    assert vectors == expected[:-1]
    assert usage([last])["prompt_tokens"] == 2


async def test_a_provider_that_refuses_embeddings_is_explained() -> None:
    async with mock() as server, running(server, models={"mock": model("mock@429")}) as engine:
        with pytest.raises(RetryElsewhere) as raised:
            await read(engine.stream("embeddings", "mock", embed("one")))
    assert (raised.value.status, raised.value.code) == (429, "backend_busy")


async def test_a_pattern_over_a_provider_of_litellm_stands_for_what_the_map_has() -> None:
    models = {"*": None, "command-r*": Model(input_price=5), "command-a-03-2025": Model(name="command-a-03-2025")}
    own = LiteLLMEngine("cohere", backend(provider="cohere_chat", models=models), 16)
    await own.start()
    found = await own.look()
    await own.close()
    assert {"command-a-03-2025", "command-r7b-12-2024", "command-r-08-2024"} <= set(found.served)
    assert all(name.startswith("command-") for name in found.served)
    assert found.served["command-r7b-12-2024"].offer.input_price == 5
    offer = found.served["command-a-03-2025"].offer
    assert (offer.context, offer.max_output) == (256000, 8000)
    assert set(offer.features) == {"tools", "seed"}, "LiteLLM passes no response_format on to Cohere"
