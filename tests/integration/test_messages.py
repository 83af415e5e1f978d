"""/v1/messages as Anthropic's official client uses it, through the real gateway with scripted answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
import pytest_asyncio
from pydantic import BaseModel

from lloom.core.errors import CallerFault, RetryElsewhere
from lloom.core.identity import checksum
from lloom.core.sse import Splitter
from tests.integration.gateway_support import (
    EXECUTOR,
    FIRST,
    REST,
    Reply,
    Running,
    ScriptedAnswer,
    ScriptedRouter,
    chunk,
    read_chunk,
    read_head,
    running,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASK: dict[str, Any] = {"model": "m", "max_tokens": 64, "messages": [{"role": "user", "content": "hello"}]}
TOOL: dict[str, Any] = {
    "name": "get_weather",
    "input_schema": {"type": "object", "properties": {"place": {"type": "string"}}},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[Running]:
    async with running() as up:
        yield up


@pytest.fixture
def gateway(shared: Running) -> Running:
    vars(shared.router).update(vars(ScriptedRouter()))
    return shared


@pytest_asyncio.fixture(loop_scope="module")
async def client(gateway: Running) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key="none", max_retries=0) as found:
        yield found


def called(finish: str = "tool_calls") -> ScriptedAnswer:
    def call(**function: str) -> dict[str, Any]:
        return {"tool_calls": [{"index": 0, "function": function}]}

    first = {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "get_weather"}}]}
    parts = [chunk(call(arguments='{"place":')), chunk(call(arguments='"Paris"}')), chunk({}, finish)]
    return ScriptedAnswer(chunk({"role": "assistant", "content": ""}) + chunk(first), parts)


async def ask(gateway: Running, *headers: str, path: str = "/v1/messages", **fields: Any) -> Reply:
    return await gateway.post(json.dumps({**ASK, **fields}).encode(), *headers, path=path)


# --- the official client


async def test_the_official_client_gets_a_message(client: anthropic.AsyncAnthropic) -> None:
    message = await client.messages.create(**ASK)
    assert message.content[0].type == "text"
    assert message.content[0].text == "Hello"
    assert (message.stop_reason, message.usage.input_tokens, message.usage.output_tokens) == ("end_turn", 3, 2)
    assert message._request_id == message.id.removeprefix("msg_")


async def test_the_official_client_streams(client: anthropic.AsyncAnthropic) -> None:
    async with client.messages.stream(**ASK) as stream:
        assert [text async for text in stream.text_stream] == ["Hel", "lo"]
        whole = await stream.get_final_message()
    assert (whole.stop_reason, whole.usage.input_tokens, whole.usage.output_tokens) == ("end_turn", 3, 2)


async def test_the_synchronous_client_works_too(gateway: Running) -> None:
    def talk() -> tuple[Any, list[str]]:
        with anthropic.Anthropic(base_url=gateway.url, auth_token="none", max_retries=0) as client:
            plain = client.messages.create(**ASK)
            stream = client.messages.create(**ASK, stream=True)
            return plain.content[0], [each.type for each in stream]

    text, events = await asyncio.to_thread(talk)
    assert text.text == "Hello"
    assert (events[0], events[-1]) == ("message_start", "message_stop")


@pytest.mark.parametrize("stream", [False, True])
async def test_tools_go_out_and_uses_of_them_come_back(
    gateway: Running, client: anthropic.AsyncAnthropic, stream: bool
) -> None:
    gateway.router.script = lambda _: called()
    asked = {**ASK, "tools": [TOOL], "tool_choice": {"type": "tool", "name": "get_weather"}}
    if stream:
        async with client.messages.stream(**asked) as events:
            message = await events.get_final_message()
    else:
        message = await client.messages.create(**asked)
    assert message.stop_reason == "tool_use"
    use = message.content[0]
    assert use.type == "tool_use"
    assert (use.id, use.name, use.input) == ("call_1", "get_weather", {"place": "Paris"})

    gateway.router.script = lambda _: ScriptedAnswer()
    turn = [
        *ASK["messages"],
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "15 degrees"}]},
    ]
    await client.messages.create(**{**ASK, "messages": turn, "tools": [TOOL]})
    request = gateway.router.requests[-1]
    assert request.features == {"tools"}
    assert json.loads(request.body)["messages"][1:] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": '{"place":"Paris"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "15 degrees"},
    ]


async def test_the_official_client_runs_tools_though_nothing_is_kept_here(
    gateway: Running, client: anthropic.AsyncAnthropic
) -> None:
    """It asks for a thread first, and would send only what is new; refused rightly, it sends the whole conversation."""

    @anthropic.beta_async_tool
    async def get_weather(place: str) -> str:
        return f"15 degrees in {place}"

    answers = [called(), ScriptedAnswer()]
    gateway.router.script = lambda _: answers.pop(0)
    runner = client.beta.messages.tool_runner(**ASK, tools=[get_weather])
    last = await runner.until_done()
    assert last.content[0].text == "Hello"
    asked = [json.loads(request.body)["messages"] for request in gateway.router.requests]
    assert [len(messages) for messages in asked] == [1, 3]
    assert asked[1][2] == {"role": "tool", "tool_call_id": "call_1", "content": "15 degrees in Paris"}


async def test_an_answer_in_a_schema_is_parsed(gateway: Running, client: anthropic.AsyncAnthropic) -> None:
    class Weather(BaseModel):
        degrees: int

    gateway.router.script = lambda _: ScriptedAnswer(
        chunk({"content": '{"degrees":'}), [chunk({"content": "15}"}, "stop")]
    )
    message = await client.messages.parse(**ASK, output_format=Weather)
    assert message.parsed_output == Weather(degrees=15)
    assert gateway.router.requests[0].features == {"json_schema"}


async def test_the_official_client_sees_our_errors_as_its_own(
    gateway: Running, client: anthropic.AsyncAnthropic
) -> None:
    gateway.router.script = lambda _: CallerFault("no m", status=404, code="model_not_found", param="model")
    with pytest.raises(anthropic.NotFoundError, match="no m"):
        await client.messages.create(**ASK)
    with pytest.raises(anthropic.BadRequestError, match=r"web_search_20250305"):
        await client.messages.create(**ASK, tools=[{"type": "web_search_20250305", "name": "web_search"}])
    gateway.router.script = lambda _: RetryElsewhere("busy", status=429, code="busy", retry_after=3)
    with pytest.raises(anthropic.RateLimitError) as busy:
        await client.messages.create(**ASK, stream=True)
    assert busy.value.response.headers["retry-after"] == "3"
    assert busy.value.request_id
    gateway.router.script = lambda _: ScriptedAnswer(parts=[RetryElsewhere("it broke", code="stalled")])
    with pytest.raises(anthropic.APIStatusError, match="it broke"):
        async with client.messages.stream(**ASK) as stream:
            await stream.until_done()


async def test_the_official_client_counts_tokens(client: anthropic.AsyncAnthropic) -> None:
    asked: Any = {**ASK, "model": "big/model:7b"}
    del asked["max_tokens"]
    one = await client.messages.count_tokens(**asked)
    more = await client.messages.count_tokens(**asked, system="Be brief.", tools=[TOOL])
    assert 0 < one.input_tokens < more.input_tokens
    by_alias = await client.messages.count_tokens(**{**asked, "model": "nick"})
    assert by_alias.input_tokens == one.input_tokens
    with pytest.raises(anthropic.NotFoundError):
        await client.messages.count_tokens(**{**asked, "model": "nobody/has-it"})
    with pytest.raises(anthropic.BadRequestError, match="messages"):
        await client.messages.count_tokens(**{**asked, "messages": []})


async def test_the_official_client_lists_models(client: anthropic.AsyncAnthropic) -> None:
    assert [model.id async for model in client.models.list()] == ["big/model:7b", "small"]
    assert (await client.models.retrieve("small")).display_name == "small"


# --- on the wire


async def test_the_query_and_headers_of_agents_do_not_disturb(gateway: Running) -> None:
    reply = await ask(
        gateway,
        "x-api-key: k",
        "anthropic-version: 2023-06-01",
        "anthropic-beta: interleaved-thinking-2025-05-14,context-management-2025-06-27",
        "x-request-id: my-trace.1",
        path="/v1/messages?beta=true",
        thinking={"type": "enabled", "budget_tokens": 2048},
        context_management={"edits": []},
        metadata={"user_id": "u"},
    )
    assert reply.status == 200
    assert reply.headers["request-id"] == "my-trace.1"
    assert reply.headers["x-lloom-executor"] == checksum(EXECUTOR)
    assert reply.json["id"] == "msg_my-trace.1"


async def test_every_error_is_in_anthropics_words(gateway: Running) -> None:
    for reply, kind in [
        (await gateway.post(b"{", path="/v1/messages"), "invalid_request_error"),
        (await gateway.post(b"{", path="/v1/messages/count_tokens"), "invalid_request_error"),
        (await gateway.get("/v1/messages"), "invalid_request_error"),
        (await gateway.http("POST /v1/messages HTTP/1.1\nhost: evil.example\ncontent-length: 0"), "permission_error"),
    ]:
        assert set(reply.json) == {"type", "error", "request_id"}
        assert (reply.json["type"], reply.json["error"]["type"]) == ("error", kind)
        assert reply.json["request_id"] == reply.headers["request-id"]


async def test_who_served_stands_in_a_comment_before_the_end(gateway: Running) -> None:
    reply = await ask(gateway, stream=True)
    *_, told, end = Splitter().feed(reply.body)
    assert told.startswith(b": lloom {")
    assert end.startswith(b"event: message_stop")


async def test_a_plain_answer_that_breaks_off_is_an_error(gateway: Running) -> None:
    gateway.router.script = lambda _: ScriptedAnswer(parts=REST[:1])
    reply = await ask(gateway)
    assert (reply.status, reply.json["error"]["type"]) == (502, "api_error")
    stream = await ask(gateway, stream=True)
    assert stream.status == 200
    assert Splitter().feed(stream.body)[-1].startswith(b"event: error")


async def test_pings_fill_the_wait() -> None:
    gate = asyncio.Event()
    router = ScriptedRouter(lambda _: (gate, ScriptedAnswer()))
    async with running(router, hold_headers_seconds=0.001, keep_alive_seconds=0.001) as gateway:
        async with gateway.connected() as (reader, writer):
            body = json.dumps({**ASK, "stream": True}).encode()
            writer.write(b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\n")
            writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
            assert (await read_head(reader))[0] == 200
            assert await read_chunk(reader) == b'event: ping\ndata: {"type":"ping"}\n\n'
            gate.set()
            rest = b""
            while part := await read_chunk(reader):
                rest += part
        assert rest.count(b"event: message_start") == 1
        assert b"event: message_stop" in rest


async def test_bytes_cut_within_an_event_are_held_back_until_it_is_whole(gateway: Running) -> None:
    answer = FIRST + b"".join(REST)
    gateway.router.script = lambda _: ScriptedAnswer(answer[:-30], [answer[-30:-20], answer[-20:]])
    assert (await ask(gateway, stream=True)).body.count(b"text_delta") == 2
