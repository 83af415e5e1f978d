from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import openai
import pytest

from lloom.core import odds, tokens
from lloom.core.settings import Faults
from tests.integration.llm_support import ask, events, finish, mock, text, until, usage

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                "days": {"type": "integer"},
            },
        },
    },
}


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


async def post(session: aiohttp.ClientSession, url: str, body: bytes, **headers: str) -> tuple[int, bytes]:
    async with session.post(f"{url}/v1/chat/completions", data=body, headers=headers) as response:
        return response.status, await response.read()


async def test_the_same_question_gets_the_same_answer_and_another_one_another(session: aiohttp.ClientSession) -> None:
    async with mock() as server:
        first = await post(session, server.url, ask("one"))
        assert first == await post(session, server.url, ask("one"))
        assert first != await post(session, server.url, ask("two"))


async def test_it_tells_how_likely_its_tokens_were_and_another_model_tells_otherwise(
    session: aiohttp.ClientSession,
) -> None:
    async def told(model: str, **fields: Any) -> list[Any]:
        _, body = await post(session, server.url, ask("one", model=model, logprobs=True, top_logprobs=5, **fields))
        choices = (
            [choice for chunk in events(body) for choice in chunk["choices"]]
            if fields.get("stream")
            else msgspec.json.decode(body)["choices"]
        )
        return [entry for choice in choices if choice["logprobs"] for entry in choice["logprobs"]["content"]]

    async with mock(tokens=20) as server:
        plain, streamed = await told("mock-small"), await told("mock-small", stream=True)
        other = await told("mock-large")
        _, without = await post(session, server.url, ask("one"))
    assert plain == streamed
    assert len(plain) == 20
    assert {len(entry["top_logprobs"]) for entry in plain} == {5}
    assert (
        "".join(entry["token"] for entry in plain) == msgspec.json.decode(without)["choices"][0]["message"]["content"]
    )
    assert msgspec.json.decode(without)["choices"][0]["logprobs"] is None
    one, same, two = map(odds.read, (plain, streamed, other))
    assert odds.alike(one, same)
    assert odds.alike(one, two) is False


async def test_usage_is_what_the_tokens_count(session: aiohttp.ClientSession) -> None:
    async with mock(tokens=37) as server:
        _, body = await post(session, server.url, ask("How many?"))
    answer = msgspec.json.decode(body)
    assert answer["usage"]["completion_tokens"] == 37
    assert tokens.count(answer["choices"][0]["message"]["content"], "o200k_base") == 37
    asked = tokens.count_messages([{"role": "user", "content": "How many?"}], [], "o200k_base")
    assert answer["usage"]["prompt_tokens"] == asked


async def test_a_stream_says_what_the_plain_answer_says(session: aiohttp.ClientSession) -> None:
    async with mock() as server:
        _, plain = await post(session, server.url, ask())
        _, streamed = await post(session, server.url, ask(stream=True, stream_options={"include_usage": True}))
    answer, chunks = msgspec.json.decode(plain), events(streamed)
    assert text(chunks) == answer["choices"][0]["message"]["content"]
    assert len(chunks) == 1 + 20 + 1 + 1
    assert usage(chunks) == answer["usage"]
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


async def test_a_stream_has_a_usage_chunk_only_if_asked(session: aiohttp.ClientSession) -> None:
    async with mock() as server:
        _, streamed = await post(session, server.url, ask(stream=True))
    assert all("usage" not in chunk and chunk["choices"] for chunk in events(streamed))


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_a_limit_ends_the_answer_and_says_so(session: aiohttp.ClientSession, field: str) -> None:
    async with mock() as server:
        _, body = await post(session, server.url, ask(**{field: 3}))
        _, whole = await post(session, server.url, ask(**{field: 20}))
    answer = msgspec.json.decode(body)
    assert (answer["choices"][0]["finish_reason"], answer["usage"]["completion_tokens"]) == ("length", 3)
    assert msgspec.json.decode(whole)["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "choice",
    [{"tool_choice": "required"}, {"tool_choice": {"type": "function", "function": {"name": "get_weather"}}}, {}],
)
async def test_a_tool_is_called_when_asked_for(session: aiohttp.ClientSession, choice: dict[str, Any]) -> None:
    question = ask("Please use get_weather", tools=[WEATHER], stream=True, **choice)
    async with mock() as server:
        _, streamed = await post(session, server.url, question)
    chunks = events(streamed)
    deltas = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
    assert deltas[0]["function"]["name"] == "get_weather"
    assert deltas[0]["id"].startswith("call_")
    arguments = msgspec.json.decode("".join(call["function"]["arguments"] for call in deltas))
    assert arguments["unit"] == "celsius"
    assert isinstance(arguments["city"], str)
    assert isinstance(arguments["days"], int)
    assert finish(chunks) == "tool_calls"


async def test_a_tool_is_not_called_otherwise(session: aiohttp.ClientSession) -> None:
    async with mock() as server:
        for question in (ask("Hello", tools=[WEATHER]), ask("Use get_weather", tools=[WEATHER], tool_choice="none")):
            _, body = await post(session, server.url, question)
            assert msgspec.json.decode(body)["choices"][0]["finish_reason"] == "stop"


async def test_a_user_writes_down_what_is_called(session: aiohttp.ClientSession) -> None:
    script = user('call get_weather {"city":  "Paris"}')
    result = [{"role": "assistant", "content": None}, {"role": "tool", "content": "15 degrees"}]
    async with mock() as server:
        _, called = await post(session, server.url, ask(messages=[script], tools=[WEATHER], stream=True))
        _, told = await post(session, server.url, ask(messages=[script, *result], tools=[WEATHER], stream=True))
        _, other = await post(session, server.url, ask(messages=[script], tools=[WEATHER], tool_choice="none"))
    deltas = [call for chunk in events(called) for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
    assert "".join(call["function"]["arguments"] for call in deltas) == '{"city":  "Paris"}'
    assert (finish(events(called)), finish(events(told))) == ("tool_calls", "stop")
    assert text(events(told)) == "get_weather gave: 15 degrees"
    assert msgspec.json.decode(other)["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "form",
    [
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "a", "schema": {"properties": {"answer": {"type": "string"}}}}},
    ],
)
async def test_json_is_answered_when_wanted(session: aiohttp.ClientSession, form: dict[str, Any]) -> None:
    async with mock() as server:
        _, streamed = await post(session, server.url, ask(stream=True, response_format=form))
    assert list(msgspec.json.decode(text(events(streamed)))) == ["answer"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"messages":[]}', ask(n=2), ask(max_tokens=0)])
async def test_a_bad_request_is_a_400(session: aiohttp.ClientSession, body: bytes) -> None:
    async with mock() as server:
        status, answer = await post(session, server.url, body)
    assert status == 400
    assert msgspec.json.decode(answer)["error"]["type"] == "invalid_request_error"


async def test_faults_are_forced_by_header_and_by_model(session: aiohttp.ClientSession) -> None:
    async with mock() as server:
        assert (await post(session, server.url, ask(), **{"x-mock-fault": "error"}))[0] == 500
        assert (await post(session, server.url, ask(model="mock@418")))[0] == 418
        async with session.post(f"{server.url}/v1/chat/completions", data=ask(model="any@429")) as response:
            assert (response.status, response.headers["retry-after"]) == (429, "7")
        with pytest.raises(msgspec.DecodeError):
            msgspec.json.decode((await post(session, server.url, ask(model="mock@malformed")))[1])
        for stream in (True, False):
            with pytest.raises(aiohttp.ClientPayloadError):
                await post(session, server.url, ask(model="mock@cut", stream=stream))
        _, exaggerated = await post(session, server.url, ask(model="mock@wrong_usage"))
        assert msgspec.json.decode(exaggerated)["usage"]["completion_tokens"] == 200


async def test_drawn_faults_are_repeatable_and_keep_their_share(session: aiohttp.ClientSession) -> None:
    async def statuses() -> list[int]:
        faults = Faults(error=0.25, stall=0, cut=0, wrong_usage=0, seed=7)
        async with mock(faults=faults) as server:
            return [(await post(session, server.url, ask()))[0] for _ in range(200)]

    first = await statuses()
    assert first == await statuses()
    assert 30 <= first.count(500) <= 70


@pytest.mark.parametrize("fault", ["stall", "pause"])
async def test_a_reader_that_leaves_stops_the_answer(session: aiohttp.ClientSession, fault: str) -> None:
    async with mock() as server, asyncio.timeout(10):
        asking = asyncio.create_task(post(session, server.url, ask(model=f"mock@{fault}", stream=True)))
        await until(lambda: server.stats.active == 1)
        asking.cancel()
        await until(lambda: server.stats.active == 0)
        assert server.stats.cancelled == 1
        async with session.get(f"{server.url}/mock/stats") as response:
            assert (await response.json())["cancelled"] == 1


@pytest.mark.parametrize("together", [1, 8, 1000])
async def test_a_stream_leaves_in_pieces_of_so_many_events(session: aiohttp.ClientSession, together: int) -> None:
    async with mock() as one_by_one:
        _, expected = await post(session, one_by_one.url, ask(stream=True))
    async with mock(together=together) as server:
        async with session.post(f"{server.url}/v1/chat/completions", data=ask(stream=True)) as response:
            pieces = [piece async for piece, _ in response.content.iter_chunks()]
        assert server.stats.chunks == (count := expected.count(b"data: "))
    assert b"".join(pieces) == expected
    assert [piece.count(b"data: ") for piece in pieces if piece] == [
        min(together, count - start) for start in range(0, count, together)
    ]


@pytest.mark.parametrize("together", [1, 64])
async def test_a_slow_reader_holds_the_writer_back(together: int) -> None:
    async with mock(tokens=200_000, together=together) as server, asyncio.timeout(30):
        host, port = server.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        body = ask(stream=True)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await reader.readexactly(100)
        before = -1
        while server.stats.chunks != before:
            before = server.stats.chunks
            for _ in range(1000):
                await asyncio.sleep(0)
        assert 0 < server.stats.chunks < 200_000
        writer.close()


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with mock() as server, asyncio.timeout(10):
        host, port = server.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        body = ask(stream=True)
        chat = b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        writer.write(chat + b"GET /v1/models HTTP/1.1\r\nconnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
    assert 0 < answer.index(b"[DONE]") < answer.index(b'"owned_by"')


async def test_the_official_client_understands_it() -> None:
    async with mock() as server, openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        assert [m.id async for m in await client.models.list()] == ["mock"]
        vectors = await client.embeddings.create(model="mock", input=["one", "two", "one"], dimensions=8)
        one, two, again = [item.embedding for item in vectors.data]
        assert one == again != two
        assert len(one) == 8
        assert sum(x * x for x in one) == pytest.approx(1, abs=1e-6)
        with pytest.raises(openai.NotFoundError):
            await client.files.retrieve("file")


async def test_the_script_runs_from_anywhere_and_ends_cleanly(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "scripts" / "mock_llm_server.py"
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), "--port", "0", "--tokens", "5", cwd=tmp_path, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().strip()
    async with aiohttp.ClientSession() as session, session.post(f"{url}/chat/completions", data=ask()) as response:
        assert msgspec.json.decode(await response.read())["usage"]["completion_tokens"] == 5
    process.send_signal(signal.SIGINT)
    _, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")
