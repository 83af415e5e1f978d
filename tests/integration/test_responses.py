"""/v1/responses as OpenAI's official client uses it, through the real gateway with scripted answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio
from pydantic import BaseModel

from lloom.core.errors import CallerFault, RetryElsewhere
from lloom.core.identity import checksum
from lloom.core.sse import Splitter
from tests.integration.gateway_support import (
    EXECUTOR,
    REST,
    Running,
    ScriptedAnswer,
    ScriptedRouter,
    chunk,
    running,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASK: dict[str, Any] = {"model": "m", "input": "hello"}
TOOL: dict[str, Any] = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    "strict": False,
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
async def client(gateway: Running) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as found:
        yield found


def called() -> ScriptedAnswer:
    def call(**function: str) -> dict[str, Any]:
        return {"tool_calls": [{"index": 0, "function": function}]}

    first = {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "get_weather"}}]}
    parts = [chunk(call(arguments='{"place":')), chunk(call(arguments='"Paris"}')), chunk({}, "tool_calls")]
    return ScriptedAnswer(chunk({"role": "assistant", "content": ""}) + chunk(first), parts)


async def test_the_official_client_gets_a_response(client: openai.AsyncOpenAI) -> None:
    response = await client.responses.create(**ASK)
    assert (response.output_text, response.status) == ("Hello", "completed")
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (3, 2, 5)
    assert response._request_id == response.id.removeprefix("resp_")


async def test_the_official_client_streams(client: openai.AsyncOpenAI) -> None:
    async with client.responses.stream(**ASK) as stream:
        events = [each async for each in stream]
        final = await stream.get_final_response()
    assert [each.delta for each in events if each.type == "response.output_text.delta"] == ["Hel", "lo"]
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    assert final.output_text == "Hello"


async def test_the_synchronous_client_works_too(gateway: Running) -> None:
    def talk() -> tuple[str, list[str]]:
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
            plain = client.responses.create(**ASK)
            stream = client.responses.create(**ASK, stream=True)
            return plain.output_text, [each.type for each in stream]

    text, events = await asyncio.to_thread(talk)
    assert text == "Hello"
    assert (events[0], events[-1]) == ("response.created", "response.completed")


@pytest.mark.parametrize("stream", [False, True])
async def test_tools_go_out_and_calls_come_back(gateway: Running, client: openai.AsyncOpenAI, stream: bool) -> None:
    gateway.router.script = lambda _: called()
    asked = {**ASK, "tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False}
    if stream:
        async with client.responses.stream(**asked) as events:
            response = await events.get_final_response()
    else:
        response = await client.responses.create(**asked)
    call = response.output[0]
    assert call.type == "function_call"
    assert (call.call_id, call.name, call.arguments) == ("call_1", "get_weather", '{"place":"Paris"}')

    gateway.router.script = lambda _: ScriptedAnswer()
    items = [
        {"role": "user", "content": "hello"},
        *[item.to_dict() for item in response.output],
        {"type": "function_call_output", "call_id": call.call_id, "output": "15 degrees"},
    ]
    await client.responses.create(model="m", input=items, tools=[TOOL])  # type: ignore[arg-type, list-item]
    request = gateway.router.requests[-1]
    assert request.features == {"tools"}
    assert [message["role"] for message in json.loads(request.body)["messages"]] == ["user", "assistant", "tool"]


async def test_an_answer_in_a_schema_is_parsed(gateway: Running, client: openai.AsyncOpenAI) -> None:
    class Weather(BaseModel):
        degrees: int

    gateway.router.script = lambda _: ScriptedAnswer(
        chunk({"content": '{"degrees":'}), [chunk({"content": "15}"}, "stop")]
    )
    response = await client.responses.parse(**ASK, text_format=Weather)
    assert response.output_parsed == Weather(degrees=15)
    assert gateway.router.requests[0].features == {"json_schema"}


async def test_the_official_client_sees_our_errors_as_its_own(gateway: Running, client: openai.AsyncOpenAI) -> None:
    gateway.router.script = lambda _: CallerFault("no m", status=404, code="model_not_found", param="model")
    with pytest.raises(openai.NotFoundError, match="no m"):
        await client.responses.create(**ASK)
    with pytest.raises(openai.BadRequestError, match="web_search") as built_in:
        await client.responses.create(**ASK, tools=[{"type": "web_search"}])
    assert built_in.value.param == "tools[0].type"
    with pytest.raises(openai.BadRequestError, match="nothing is stored") as stored:
        await client.responses.create(**ASK, previous_response_id="resp_1")
    assert stored.value.code == "unsupported_parameter"
    gateway.router.script = lambda _: ScriptedAnswer(parts=[RetryElsewhere("it broke", code="stalled")])
    events = [each async for each in await client.responses.create(**ASK, stream=True)]
    assert events[-1].type == "response.failed"
    assert events[-1].response.error is not None
    assert events[-1].response.error.message == "it broke"


async def test_the_official_client_counts_tokens(gateway: Running, client: openai.AsyncOpenAI) -> None:
    asked = {"model": "small", "input": "hello"}
    one = await client.responses.input_tokens.count(**asked)
    tool = {"type": "function", "name": "get_weather", "parameters": {"type": "object", "properties": {}}}
    more = await client.responses.input_tokens.count(**asked, instructions="Be brief.", tools=[tool])
    assert one.object == "response.input_tokens"
    assert 1 < one.input_tokens < more.input_tokens
    with pytest.raises(openai.NotFoundError, match="no executor announces it"):
        await client.responses.input_tokens.count(**{**asked, "model": "nobody/has-it"})
    with pytest.raises(openai.BadRequestError, match="'input'"):
        await client.responses.input_tokens.count(model="small")
    assert not gateway.router.requests


async def test_nothing_is_stored(client: openai.AsyncOpenAI) -> None:
    response = await client.responses.create(**ASK, store=True)
    assert response.model_extra is not None
    assert response.model_extra["store"] is False
    for ask in (client.responses.retrieve, client.responses.delete, client.responses.cancel):
        with pytest.raises(openai.NotFoundError, match="nothing is stored"):
            await ask(response.id)


async def test_who_served_stands_in_headers_and_in_a_comment(gateway: Running) -> None:
    reply = await gateway.post(json.dumps({**ASK, "stream": True}).encode(), path="/v1/responses")
    assert reply.headers["x-lloom-executor"] == checksum(EXECUTOR)
    *_, told, end = Splitter().feed(reply.body)
    assert told.startswith(b": lloom {")
    assert end.startswith(b"event: response.completed")
    assert b"[DONE]" not in reply.body


async def test_a_plain_answer_that_breaks_off_is_an_error(gateway: Running) -> None:
    gateway.router.script = lambda _: ScriptedAnswer(parts=REST[:1])
    reply = await gateway.post(json.dumps(ASK).encode(), path="/v1/responses")
    assert (reply.status, reply.error["code"]) == (502, "bad_stream")
