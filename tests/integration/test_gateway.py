from __future__ import annotations

import asyncio
import json
import struct
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio

from lloom.adapters.gateway import Server
from lloom.adapters.machine.log import REQUEST
from lloom.core.api.request import ApiRequest
from lloom.core.errors import CallerFault, ConfigError, PeerFault, RetryElsewhere
from lloom.core.identity import checksum
from lloom.core.messages import FROM_EXECUTOR, Done
from lloom.core.sse import END, Splitter, event, payload
from tests.integration.gateway_support import (
    EXECUTOR,
    FIRST,
    HELLO,
    REST,
    SETTINGS,
    Reply,
    Running,
    ScriptedAnswer,
    ScriptedRouter,
    ask,
    chunk,
    read_chunk,
    read_head,
    read_reply,
    running,
)

# One server for most tests: uvicorn takes a third of a second to stop.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[Running]:
    async with running() as up:
        yield up


@pytest.fixture
def gateway(shared: Running) -> Running:
    fresh = ScriptedRouter()
    vars(shared.router).update(vars(fresh))
    shared.health.update(status="ok", problem=None)
    return shared


@pytest_asyncio.fixture(loop_scope="module")
async def client(gateway: Running) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as found:
        yield found


def payloads(reply: Reply) -> list[bytes]:
    return [data for event in Splitter().feed(reply.body) if (data := payload(event))]


# --- answers


async def test_a_plain_answer_is_folded_from_the_stream(gateway: Running) -> None:
    reply = await gateway.ask()
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.json["choices"][0] == {
        "index": 0,
        "message": {"role": "assistant", "content": "Hello", "refusal": None},
        "logprobs": None,
        "finish_reason": "stop",
    }
    assert reply.json["usage"]["total_tokens"] == 5
    assert reply.headers["x-lloom-executor"] == checksum(EXECUTOR)
    assert reply.headers["x-lloom-attempts"] == "2"


async def test_a_stream_passes_the_executors_bytes_on_and_says_who_served(gateway: Running) -> None:
    reply = await gateway.ask(stream=True)
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["x-lloom-executor"] == checksum(EXECUTOR)
    served = {"executor": checksum(EXECUTOR), "attempts": 2, "input_tokens": 3, "output_tokens": 2}
    comment = b": lloom " + json.dumps(served, separators=(",", ":")).encode() + END
    assert reply.body == FIRST + b"".join(REST) + comment + b"data: [DONE]\n\n"


async def test_the_usage_chunk_comes_only_when_asked_for(gateway: Running) -> None:
    reply = await gateway.ask(stream=True, stream_options={"include_usage": True})
    *_, last, end = payloads(reply)
    assert end == b"[DONE]"
    assert json.loads(last) == {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 7,
        "model": "m",
        "choices": [],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }
    assert b"usage" not in (await gateway.ask(stream=True)).body


async def test_the_body_reaches_the_router_as_it_came(gateway: Running) -> None:
    body = b'{ "model" : "M",\n"messages":[{"role":"user","content":"h\xc3\xa9"}],"x_unknown":[1.50]}'
    await gateway.post(body)
    assert [(request.body, request.model) for request in gateway.router.requests] == [(body, "m")]


async def test_events_of_ours_never_join_a_broken_off_line(gateway: Running) -> None:
    gateway.router.script = lambda _: ScriptedAnswer(parts=[b'data: {"choices":[]'])
    reply = await gateway.ask(stream=True)
    assert payloads(reply)[-2:] == [b'{"choices":[]', b"[DONE]"]


# --- the official client


async def test_the_official_client_gets_a_plain_answer(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="m", messages=HELLO)  # type: ignore[arg-type]
    assert answer.choices[0].message.content == "Hello"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2


async def test_the_official_client_streams(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="m",
        messages=HELLO,  # type: ignore[arg-type]
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [each async for each in stream]
    assert "".join(each.choices[0].delta.content or "" for each in chunks if each.choices) == "Hello"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 5


async def test_the_synchronous_client_works_too(gateway: Running) -> None:
    def talk() -> tuple[str | None, str]:
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
            plain = client.chat.completions.create(model="m", messages=HELLO)  # type: ignore[call-overload]
            stream = client.chat.completions.create(model="m", messages=HELLO, stream=True)  # type: ignore[call-overload]
            return plain.choices[0].message.content, "".join(each.choices[0].delta.content or "" for each in stream)

    assert await asyncio.to_thread(talk) == ("Hello", "Hello")


async def test_tools_go_out_and_tool_calls_come_back(gateway: Running, client: openai.AsyncOpenAI) -> None:
    calls = [
        {"tool_calls": [{"index": 0, "id": "t1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"x":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]},
    ]
    parts = [chunk(calls[1]), chunk(calls[2]), chunk({}, "tool_calls")]
    gateway.router.script = lambda _: ScriptedAnswer(chunk(calls[0]), parts)
    tools: Any = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    answer = await client.chat.completions.create(
        model="m",
        messages=HELLO,  # type: ignore[arg-type]
        tools=tools,
        tool_choice="required",
        parallel_tool_calls=False,
    )
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.tool_calls is not None
    function = answer.choices[0].message.tool_calls[0].function  # type: ignore[union-attr]
    assert (function.name, function.arguments) == ("f", '{"x":1}')
    request = gateway.router.requests[0]
    assert request.features == {"tools"}
    assert json.loads(request.body)["tools"] == tools


async def test_the_official_client_sees_our_errors_as_its_own(gateway: Running, client: openai.AsyncOpenAI) -> None:
    gateway.router.script = lambda _: CallerFault("no m", status=404, code="model_not_found", param="model")
    with pytest.raises(openai.NotFoundError) as missing:
        await client.chat.completions.create(model="m", messages=HELLO)  # type: ignore[arg-type]
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as wrong:
        await client.chat.completions.create(model="m", messages=[])
    assert wrong.value.param == "messages"
    gateway.router.script = lambda _: ScriptedAnswer(parts=[RetryElsewhere("it broke", code="stalled")])
    stream = await client.chat.completions.create(model="m", messages=HELLO, stream=True)  # type: ignore[arg-type]
    with pytest.raises(openai.APIError, match="it broke"):
        _ = [each async for each in stream]


async def test_the_official_client_lists_models(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["big/model:7b", "small"]
    assert (await client.models.retrieve("big/model:7b")).owned_by == "lloom"


# --- errors


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (CallerFault("bad", code="x", param="n"), 400, "invalid_request_error", "x"),
        (RetryElsewhere("busy", status=429, code="busy", retry_after=1.2), 429, "rate_limit_error", "busy"),
        (RetryElsewhere("none", status=503, code="no_executor"), 503, "server_error", "no_executor"),
        (PeerFault("liar"), 502, "server_error", "peer_fault"),
        (ValueError("secret detail"), 500, "server_error", "internal_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_errors_before_content_keep_their_status(
    gateway: Running, error: Exception, status: int, kind: str, code: str, stream: bool
) -> None:
    gateway.router.script = lambda _: error
    reply = await gateway.ask(stream=stream)
    assert (reply.status, reply.error["type"], reply.error["code"]) == (status, kind, code)
    assert "secret" not in reply.error["message"]
    assert reply.headers.get("retry-after") == ("2" if code == "busy" else None)


async def test_an_error_after_content_comes_in_band_without_an_end_mark(gateway: Running) -> None:
    answer = ScriptedAnswer(parts=[REST[0], RetryElsewhere("it fell silent", status=504, code="stalled")])
    gateway.router.script = lambda _: answer
    reply = await gateway.ask(stream=True)
    assert reply.status == 200
    *_, last = payloads(reply)
    assert json.loads(last) == {
        "error": {"message": "it fell silent", "type": "server_error", "param": None, "code": "stalled"}
    }
    assert answer.closed.is_set()


async def test_a_plain_answer_that_breaks_off_is_an_error(gateway: Running) -> None:
    gateway.router.script = lambda _: ScriptedAnswer(parts=[RetryElsewhere("it broke", status=502)])
    reply = await gateway.ask()
    assert (reply.status, reply.error["message"]) == (502, "it broke")


async def test_a_lie_about_usage_is_an_error_too(gateway: Running) -> None:
    gateway.router.script = lambda _: ScriptedAnswer(done=Done(1, 1, b"[]"))
    assert (await gateway.ask()).status == 502
    reply = await gateway.ask(stream=True, stream_options={"include_usage": True})
    assert b'"code":"bad_usage"' in payloads(reply)[-1]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff", b'{"model":"m","messages":[{"role":"user","content":NaN}]}', b"[" * 50_000]
)
async def test_malformed_json_is_a_400(gateway: Running, body: bytes) -> None:
    reply = await gateway.post(body)
    assert (reply.status, reply.error["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/v1", "/v1/chat/completions/", "/v2/models"])
async def test_there_is_nothing_else(gateway: Running, path: str) -> None:
    reply = await gateway.get(path)
    assert reply.status == 404
    assert path in reply.error["message"]


async def test_the_wrong_method_is_named(gateway: Running) -> None:
    reply = await gateway.get("/v1/chat/completions")
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert "GET /v1/chat/completions" in reply.error["message"]


# --- bodies


async def test_a_body_that_declares_to_be_too_large_is_refused_unread(gateway: Running) -> None:
    reply = await gateway.http(f"POST /v1/chat/completions HTTP/1.1\nhost: localhost\ncontent-length: {10**12}")
    assert (reply.status, reply.error["code"]) == (413, "request_too_large")


async def test_a_chunked_body_is_refused_while_it_comes(gateway: Running) -> None:
    async with gateway.connected() as (reader, writer):
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(SETTINGS.max_body // 1024 + 1):
            writer.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
        assert (await read_reply(reader)).status == 413


async def test_a_caller_that_sends_everything_first_still_gets_the_413(gateway: Running) -> None:
    body = b"x" * 8 * 1024 * 1024
    async with gateway.connected() as (reader, writer):
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n")
        writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        assert (await read_reply(reader)).status == 413
        writer.write(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert (await read_reply(reader)).status == 200


async def test_a_body_that_stops_coming_is_given_up() -> None:
    async with running(body_seconds=0.01) as gateway:
        reply = await gateway.http("POST /v1/chat/completions HTTP/1.1\nhost: localhost\ncontent-length: 9")
        assert (reply.status, reply.error["code"]) == (408, "request_timeout")


# --- time


async def test_the_status_waits_for_the_first_content(gateway: Running) -> None:
    gate = asyncio.Event()
    gateway.router.script = lambda _: (gate, RetryElsewhere("all are busy", status=429))
    asking = asyncio.create_task(gateway.ask(stream=True))
    await gateway.router.arrived.wait()
    assert not asking.done()
    gate.set()
    assert (await asking).status == 429


async def test_a_long_wait_sends_the_status_and_then_comments() -> None:
    gate = asyncio.Event()
    router = ScriptedRouter(lambda _: (gate, ScriptedAnswer()))
    async with running(router, hold_headers_seconds=0.001, keep_alive_seconds=0.001) as gateway:
        async with gateway.connected() as (reader, writer):
            body = ask(stream=True)
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n")
            writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
            status, headers = await read_head(reader)
            assert status == 200
            assert "x-lloom-executor" not in headers
            assert [await read_chunk(reader) for _ in range(3)] == [b": waiting\n\n"] * 3
            gate.set()
            rest = b""
            while part := await read_chunk(reader):
                rest += part
        assert rest.replace(b": waiting\n\n", b"").startswith(FIRST)
        assert b'"attempts":2' in rest


async def test_an_error_after_a_long_wait_comes_in_band() -> None:
    gate = asyncio.Event()
    router = ScriptedRouter(lambda _: (gate, RetryElsewhere("all are busy", status=429, code="busy")))
    async with running(router, hold_headers_seconds=0.001) as gateway, gateway.connected() as (reader, writer):
        body = ask(stream=True)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n")
        writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
        assert (await read_head(reader))[0] == 200
        gate.set()
        assert await read_chunk(reader) == b": waiting\n\n"
        assert b'"code":"busy"' in await read_chunk(reader)
        assert await read_chunk(reader) == b""


async def test_silence_within_an_answer_is_filled_but_never_within_an_event() -> None:
    first, second = asyncio.Event(), asyncio.Event()
    start, end = REST[0][:20], REST[0][20:]
    router = ScriptedRouter(lambda _: ScriptedAnswer(parts=[first, start, second, end, REST[1]]))
    async with running(router, keep_alive_seconds=0.001) as gateway, gateway.connected() as (reader, writer):
        body = ask(stream=True)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n")
        writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
        await read_head(reader)
        assert await read_chunk(reader) == FIRST
        assert await read_chunk(reader) == b": waiting\n\n"
        first.set()
        while (part := await read_chunk(reader)) == b": waiting\n\n":
            pass
        assert part == start
        for _ in range(100):  # time for a comment, were one to be made
            await asyncio.sleep(0.0001)
        second.set()
        assert await read_chunk(reader) == end


@pytest.mark.parametrize("stream", [False, True])
async def test_leaving_while_waiting_cancels_the_search(gateway: Running, stream: bool) -> None:
    gateway.router.script = lambda _: (asyncio.Event(), None)
    body = ask(stream=stream)
    async with gateway.connected() as (_, writer):
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n")
        writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
        await gateway.router.arrived.wait()
    await gateway.router.cancelled.wait()


async def test_leaving_is_noticed_after_a_body_that_is_larger_than_what_is_read_at_once() -> None:
    router = ScriptedRouter(lambda _: (asyncio.Event(), None))
    async with running(router, max_body=1 << 22) as gateway:
        body = ask(messages=[{"role": "user", "content": "x" * (1 << 21)}])
        async with gateway.connected() as (_, writer):
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n")
            writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
            await router.arrived.wait()
        await router.cancelled.wait()


async def test_leaving_after_the_status_and_before_the_first_content_cancels_the_search() -> None:
    router = ScriptedRouter(lambda _: (asyncio.Event(), None))
    async with running(router, hold_headers_seconds=0.001, keep_alive_seconds=0.001) as gateway:
        async with gateway.connected() as (reader, writer):
            body = ask(stream=True)
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n")
            writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
            assert (await read_head(reader))[0] == 200
            assert await read_chunk(reader) == b": waiting\n\n"
        await router.cancelled.wait()


@pytest.mark.parametrize("hold", [20, 0.001])
async def test_a_deadline_that_passes_while_the_status_is_held_is_a_504_and_in_band_after_it(hold: float) -> None:
    gate = asyncio.Event()
    router = ScriptedRouter(lambda _: (gate, RetryElsewhere("too late", status=504, code="deadline")))
    async with running(router, hold_headers_seconds=hold) as gateway, gateway.connected() as (reader, writer):
        body = ask(stream=True)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n")
        writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
        await router.arrived.wait()
        if hold < 1:
            status, headers = await read_head(reader)
            assert (status, "retry-after" in headers) == (200, False)
            gate.set()
            assert await read_chunk(reader) == b": waiting\n\n"
            assert json.loads((await read_chunk(reader)).removeprefix(b"data: "))["error"]["code"] == "deadline"
            assert await read_chunk(reader) == b""
        else:
            gate.set()
            reply = await read_reply(reader)
            assert (reply.status, reply.error["code"]) == (504, "deadline")


@pytest.mark.parametrize("stream", [False, True])
async def test_leaving_within_an_answer_closes_it(gateway: Running, stream: bool) -> None:
    answer = ScriptedAnswer(parts=[asyncio.Event()])
    gateway.router.script = lambda _: answer
    body = ask(stream=stream)
    async with gateway.connected() as (reader, writer):
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n")
        writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
        await (reader.readuntil(FIRST) if stream else gateway.router.arrived.wait())
    await answer.closed.wait()


async def test_a_reader_that_never_reads_is_given_up_at_the_deadline(gateway: Running) -> None:
    answer = ScriptedAnswer(parts=[b"x" * 1024 * 1024] * 64)
    answer.deadline = asyncio.get_running_loop().time() + 0.2
    gateway.router.script = lambda _: answer
    body = ask(stream=True)
    async with gateway.connected() as (_, writer):
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n")
        writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
        await answer.closed.wait()


async def test_stopping_cuts_answers_that_do_not_end() -> None:
    answer = ScriptedAnswer(parts=[asyncio.Event()])
    async with running(ScriptedRouter(lambda _: answer)) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        body = ask(stream=True)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n")
        writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
        await reader.readuntil(FIRST)
    await answer.closed.wait()
    writer.close()
    await writer.wait_closed()


# --- who may call


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:8000"])
async def test_this_machines_names_are_served(gateway: Running, host: str) -> None:
    assert (await gateway.http(f"GET /health HTTP/1.1\nhost: {host}")).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.nip.io", "[::2]"]
)
async def test_other_names_are_a_rebinding_attack(gateway: Running, host: str) -> None:
    reply = await gateway.http(f"GET /v1/models HTTP/1.1\nhost: {host}")
    assert (reply.status, reply.error["code"]) == (403, "wrong_host")
    assert "127.0.0.1" in reply.error["message"]


async def test_a_web_page_cannot_post_what_needs_no_preflight(gateway: Running) -> None:
    head = "POST /v1/chat/completions HTTP/1.1\nhost: localhost\norigin: https://evil.example\ncontent-length: {}\n"
    body = ask()
    refused = await gateway.http(head.format(len(body)) + "content-type: text/plain", body)
    assert (refused.status, refused.error["code"]) == (415, "unsupported_media_type")
    served = await gateway.http(head.format(len(body)) + "content-type: application/json; charset=utf-8", body)
    assert served.status == 200
    preflight = await gateway.http(
        "OPTIONS /v1/chat/completions HTTP/1.1\nhost: localhost\norigin: https://evil.example"
    )
    assert preflight.status == 405
    assert "access-control-allow-origin" not in served.headers | preflight.headers


# --- ids, health, metrics


async def test_every_answer_has_a_request_id(gateway: Running) -> None:
    own = await gateway.ask("x-request-id: my-trace.1", stream=True)
    assert own.headers["x-request-id"] == "my-trace.1"
    made = [
        (await gateway.get(path, "x-request-id: bad id")).headers["x-request-id"] for path in ("/health", "/nothing")
    ]
    assert all(each.startswith("req_") for each in made)
    assert len(set(made)) == 2


async def test_what_is_logged_meanwhile_bears_the_request_id(gateway: Running) -> None:
    seen: list[str] = []

    def answer(_: ApiRequest) -> ScriptedAnswer:
        seen.append(REQUEST.get())
        return ScriptedAnswer()

    gateway.router.script = answer
    for name in ("one", "two"):
        await gateway.ask(f"x-request-id: {name}")
    assert seen == ["one", "two"]


async def test_models_tell_what_the_network_offers(gateway: Running) -> None:
    first, _ = (await gateway.get("/v1/models")).json["data"]
    assert first == {
        "id": "big/model:7b",
        "object": "model",
        "created": 0,
        "owned_by": "lloom",
        "type": "model",
        "display_name": "big/model:7b",
        "created_at": "1970-01-01T00:00:00Z",
        "lloom": {
            "executors": 2,
            "context": 2048,
            "max_output": 512,
            "operations": ["chat"],
            "features": ["tools"],
            "input_price": {"min": 5, "max": 9},
            "output_price": {"min": 0, "max": 0},
            "reputation": {"min": 0.5, "max": 0.75},
        },
    }
    assert (await gateway.get("/v1/models/Big/Model:7b")).json == first
    missing = await gateway.get("/v1/models/none")
    assert (missing.status, missing.error["code"]) == (404, "model_not_found")


async def test_health_is_a_503_until_the_node_is_ready(gateway: Running) -> None:
    ready = await gateway.get("/health")
    assert ready.status == 200
    assert ready.json == {
        "status": "ok",
        "node": checksum(EXECUTOR),
        "role": "client",
        "version": "1",
        "network": "test",
        "peers": 3,
        "problem": None,
    }
    gateway.health.update(status="starting", problem="nobody answers")
    starting = await gateway.get("/health")
    assert (starting.status, starting.json["problem"]) == (503, "nobody answers")


async def test_metrics_count_requests_and_tokens() -> None:
    async with running() as gateway:
        await gateway.ask()
        await gateway.ask(stream=True)
        await gateway.get("/v1/models/none")
        await gateway.get("/some/path")
        text = (await gateway.get("/metrics")).body.decode()
    for line in (
        'lloom_http_requests_total{path="/v1/chat/completions",status="200"} 2.0',
        'lloom_http_requests_total{path="/v1/models/{id:path}",status="404"} 1.0',
        'lloom_http_requests_total{path="none",status="404"} 1.0',
        'lloom_tokens_total{direction="output"} 4.0',
        "lloom_first_token_seconds_count 2.0",
        "lloom_requests_running 0.0",
    ):
        assert line in text


async def test_a_port_in_use_is_a_matter_of_configuration(gateway: Running) -> None:
    taken = type(SETTINGS)(**{**_fields(), "port": gateway.port})
    with pytest.raises(ConfigError, match=f"port {gateway.port}"):
        Server.start(gateway.gateway, taken)


def _fields() -> dict[str, Any]:
    return {name: getattr(SETTINGS, name) for name in SETTINGS.__struct_fields__}


async def test_a_request_of_an_executor_would_go_round_in_a_circle(gateway: Running) -> None:
    reply = await gateway.http(f"GET /v1/models HTTP/1.1\nhost: 127.0.0.1\n{FROM_EXECUTOR}: 1")
    assert (reply.status, reply.error["code"]) == (508, "loop")


# --- completions and embeddings


def said(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "text": text, "finish_reason": finish, "logprobs": None}
    whole = {"id": "c1", "object": "text_completion", "created": 7, "model": "m", "choices": [choice]}
    return event(json.dumps(whole).encode())


def vectors(*sent: list[float]) -> ScriptedAnswer:
    first, *rest = (
        event(b'{"object":"embedding","index":%d,"embedding":"%b"}' % (i, b64encode(struct.pack(f"<{len(v)}f", *v))))
        for i, v in enumerate(sent)
    )
    return ScriptedAnswer(first, list(rest), Done(5, 0, b'{"prompt_tokens":5,"total_tokens":5}'))


async def test_the_openai_client_completes_plainly_and_in_a_stream(
    gateway: Running, client: openai.AsyncOpenAI
) -> None:
    gateway.router.script = lambda _: ScriptedAnswer(said(" upon"), [said(" a time"), said("", "length")])
    plain = await client.completions.create(model="m", prompt="Once", max_tokens=3)
    assert (plain.choices[0].text, plain.choices[0].finish_reason, plain.object) == (
        " upon a time",
        "length",
        "text_completion",
    )
    assert plain.usage is not None
    assert plain.usage.total_tokens == 5
    stream = await client.completions.create(
        model="m", prompt="Once", max_tokens=3, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == " upon a time"
    assert chunks[-1].usage == plain.usage
    assert [request.operation for request in gateway.router.requests] == ["completions"] * 2


async def test_the_openai_client_embeds_in_either_form(gateway: Running, client: openai.AsyncOpenAI) -> None:
    sent = ([0.5, -0.25], [1.0, 0.0])
    gateway.router.script = lambda _: vectors(*sent)
    usual = await client.embeddings.create(model="m", input=["one", "two"], dimensions=2)
    assert [item.embedding for item in usual.data] == list(sent)
    floats = await client.embeddings.create(model="m", input=["one", "two"], encoding_format="float")
    assert [item.embedding for item in floats.data] == list(sent)
    assert (floats.usage.prompt_tokens, floats.usage.total_tokens, floats.model) == (5, 5, "m")
    forms = [json.loads(request.body).get("encoding_format") for request in gateway.router.requests]
    assert forms == ["base64", "float"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/completions", {"model": "m"}, "prompt"),
        ("/v1/completions", {"model": "m", "prompt": "a", "best_of": 2}, "best_of"),
        ("/v1/embeddings", {"model": "m", "input": []}, "input"),
        ("/v1/embeddings", {"model": "m", "input": "a", "encoding_format": "int8"}, "encoding_format"),
    ],
)
async def test_a_wrong_field_of_these_is_named_too(gateway: Running, path: str, body: Any, param: str) -> None:
    reply = await gateway.post(json.dumps(body).encode(), path=path)
    assert (reply.status, reply.error["param"]) == (400, param)
    assert gateway.router.requests == []


async def test_a_vector_too_few_is_the_executors_fault(gateway: Running) -> None:
    gateway.router.script = lambda _: vectors([1.0])
    reply = await gateway.post(b'{"model":"m","input":["one","two"]}', path="/v1/embeddings")
    assert (reply.status, reply.error["code"]) == (502, "bad_stream")
