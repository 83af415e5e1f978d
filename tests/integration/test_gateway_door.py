"""Who may use the gateway, and how much of it: keys, allowances, web pages, and what is refused before it is a request."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio

from lloom.adapters.asking import AskFailed
from lloom.adapters.asking import Gateway as Asking
from lloom.adapters.gateway import Guests
from lloom.adapters.gateway.metered import BESIDES
from lloom.core.allowance import DAY, Allowance
from lloom.core.api.request import ApiRequest
from lloom.core.errors import RetryElsewhere
from lloom.core.messages import Done
from lloom.core.pocket import Coin, Pocket
from lloom.core.routing.explain import Verdict
from lloom.core.settings import GatewayKey
from lloom.core.token import digest
from tests.integration.gateway_support import (
    FIRST,
    HELLO,
    OTHER,
    REST,
    Running,
    ScriptedAnswer,
    ScriptedRouter,
    ask,
    offer,
    read_reply,
    running,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

OWN = "sk-lloom-own"


class Book(list[tuple[str, int, int]]):
    """What the gateway says was spent."""

    @property
    def used(self) -> list[int]:
        return [tokens for _, _, tokens in self]


def guests(book: Book | None = None, **keys: dict[str, Any]) -> Guests:
    """Keys are their names, spelt backwards."""
    allowances = [
        Allowance(name, GatewayKey(sha256=digest(name[::-1].encode()).hex(), **terms), {}, 0.0)
        for name, terms in keys.items()
    ]
    return Guests(allowances, OWN, lambda *row: None if book is None else book.append(row))


def bearer(key: str) -> str:
    return f"authorization: Bearer {key}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[Running]:
    async with running(
        guests=guests(alice={}, bob={"models": ["big/*"], "metrics": True}), cors=("https://app.example",)
    ) as up:
        yield up


@pytest.fixture
def gateway(shared: Running) -> Running:
    vars(shared.router).update(vars(ScriptedRouter()))
    return shared


# --- keys


@pytest.mark.parametrize("header", [bearer("ecila"), "authorization: bearer  ecila ", "x-api-key: ecila", bearer(OWN)])
async def test_who_shows_a_key_is_served(gateway: Running, header: str) -> None:
    assert (await gateway.ask(header)).status == 200


@pytest.mark.parametrize(
    "header",
    [
        "accept: */*",
        bearer("wrong"),
        bearer("alice"),
        bearer(""),
        "authorization: Basic ecila",
        "authorization: ecila",
        "x-api-key: ",
        bearer(digest(b"ecila").hex()),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/nowhere"])
async def test_who_shows_none_or_a_wrong_one_is_not(gateway: Running, header: str, path: str) -> None:
    reply = await gateway.post(ask(), header, path=path)
    assert (reply.status, reply.error["code"], reply.error["type"]) == (401, "invalid_api_key", "invalid_request_error")
    assert reply.headers["www-authenticate"] == 'Bearer realm="lloom"'
    assert "ecila" not in reply.error["message"]
    assert gateway.router.requests == []


async def test_a_body_is_not_even_read_from_who_has_no_key(gateway: Running) -> None:
    reply = await gateway.http("POST /v1/chat/completions HTTP/1.1\nhost: localhost\ncontent-length: 9")
    assert reply.status == 401


async def test_the_official_client_sends_its_key_as_it_is_wanted(gateway: Running) -> None:
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="ecila", max_retries=0) as client:
        answer = await client.chat.completions.create(model="m", messages=HELLO)  # type: ignore[arg-type]
        assert answer.choices[0].message.content == "Hello"
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()


async def test_our_own_commands_come_in_by_the_key_of_the_house(gateway: Running) -> None:
    def talk() -> tuple[str | None, str | None, str]:
        known, stranger = Asking(gateway.url, 20, OWN), Asking(gateway.url, 20)
        with pytest.raises(AskFailed, match="did not show a key"):
            stranger.models()
        return known.node(), stranger.node(), known.ask("m", "hi", lambda _: None).text

    node, hidden, text = await asyncio.to_thread(talk)
    assert (node is not None, hidden, text) == (True, "", "Hello")


async def test_without_a_key_health_tells_no_more_than_that(gateway: Running) -> None:
    assert (await gateway.get("/health")).json == {"status": "ok"}
    gateway.health["status"] = "starting"
    assert (await gateway.get("/health")).status == 503
    gateway.health["status"] = "ok"
    assert (await gateway.get("/health", bearer("ecila"))).json["peers"] == 3
    assert (await gateway.get("/health", bearer("wrong"))).status == 401


async def test_who_has_a_key_may_come_through_a_proxy_that_hands_on_its_own_name(gateway: Running) -> None:
    head = "GET /v1/models HTTP/1.1\nhost: llm.example.org"
    assert (await gateway.http(f"{head}\n{bearer('ecila')}")).status == 200
    assert (await gateway.http(head)).status == 401


async def test_metrics_are_for_the_keys_that_may_see_them(gateway: Running) -> None:
    assert (await gateway.get("/metrics")).status == 401
    assert (await gateway.get("/metrics", bearer("ecila"))).error["code"] == "forbidden"
    for key in ("bob", OWN):
        text = (await gateway.get("/metrics", bearer(key if key == OWN else key[::-1]))).body
        assert b"lloom_http_requests_total" in text
        assert OWN.encode() not in text


async def test_a_key_sees_and_asks_only_its_models(gateway: Running) -> None:
    listed = (await gateway.get("/v1/models", bearer("bob"[::-1]))).json["data"]
    assert [model["id"] for model in listed] == ["big/model:7b"]
    assert len((await gateway.get("/v1/models", bearer("ecila"))).json["data"]) == 2
    assert (await gateway.get("/v1/models/small", bearer("bob"[::-1]))).status == 404
    assert (await gateway.ask(bearer("bob"[::-1]), model="Big/model:7b")).status == 200
    refused = await gateway.ask(bearer("bob"[::-1]), model="small")
    assert (refused.status, refused.error["code"], refused.error["param"]) == (404, "model_not_found", "model")
    assert len(gateway.router.requests) == 1


async def test_a_key_sees_the_aliases_that_it_may_ask_by() -> None:
    router = ScriptedRouter(nicknames={"nick": [(OTHER, offer("small"))], "small": [(OTHER, offer("big/model:7b"))]})
    async with running(router, guests(alice={}, bob={"models": ["nick"]})) as gateway:
        listed = (await gateway.get("/v1/models", bearer("ecila"))).json["data"]
        assert [(model["id"], model["lloom"].get("alias_of")) for model in listed] == [
            ("big/model:7b", None),
            ("nick", ["small"]),
            ("small", ["big/model:7b"]),
        ]
        assert [model["id"] for model in (await gateway.get("/v1/models", bearer("bob"[::-1]))).json["data"]] == [
            "nick"
        ]
        assert (await gateway.ask(bearer("bob"[::-1]), model="nick")).status == 200
        assert (await gateway.get("/v1/models/Nick", bearer("bob"[::-1]))).json["owned_by"] == "lloom"
        assert (await gateway.get("/v1/models/small", bearer("bob"[::-1]))).status == 404


# --- allowances


async def test_too_many_requests_are_told_when_to_come_again() -> None:
    async with running(guests=guests(alice={"requests_per_minute": 2}, bob={})) as gateway:
        for left in ("1", "0"):
            reply = await gateway.ask(bearer("ecila"))
            assert (reply.status, reply.headers["x-ratelimit-remaining-requests"]) == (200, left)
        reply = await gateway.ask(bearer("ecila"), stream=True)
        assert (reply.status, reply.error["code"], reply.error["type"]) == (
            429,
            "rate_limit_exceeded",
            "rate_limit_error",
        )
        assert 1 <= int(reply.headers["retry-after"]) <= 30
        assert reply.headers["x-ratelimit-limit-requests"] == "2"
        assert (await gateway.ask(bearer("bob"[::-1]))).status == 200
        assert (await gateway.ask(bearer(OWN))).status == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_tokens_are_settled_by_what_the_executor_counted(stream: bool) -> None:
    book = Book()
    async with running(guests=guests(book, alice={"tokens_per_day": 150})) as gateway:
        gateway.router.script = lambda _: ScriptedAnswer(done=Done(30, 20))
        assert (await gateway.ask(bearer("ecila"), stream=stream)).status == 200
        assert (await gateway.ask(bearer("ecila"), stream=stream, max_tokens=98)).status == 200
        refused = await gateway.ask(bearer("ecila"), stream=stream, max_tokens=50)
        assert (refused.status, refused.error["code"], refused.error["type"]) == (429, *["insufficient_quota"] * 2)
        assert int(refused.headers["retry-after"]) <= 86_400
        assert (await gateway.ask(bearer("ecila"), stream=stream, max_tokens=48)).status == 200
        assert book.used == [50, 100, 150]
        assert (await gateway.ask(bearer("ecila"), stream=stream, max_tokens=1)).status == 429


async def test_a_limit_that_only_had_to_be_named_sets_no_more_aside_than_none() -> None:
    async with running(guests=guests(alice={"tokens_per_day": 150})) as gateway:
        body = {"model": "m", "messages": HELLO, "max_tokens": 32_000}
        named = await gateway.post(json.dumps(body).encode(), bearer("ecila"), path="/v1/messages")
        assert named.status == 200
        assert (await gateway.ask(bearer("ecila"), max_tokens=32_000)).status == 429


async def test_who_has_no_key_is_told_in_the_words_of_the_endpoint(gateway: Running) -> None:
    reply = await gateway.post(b"{}", path="/v1/messages")
    assert (reply.status, reply.json["error"]["type"]) == (401, "authentication_error")


async def test_an_answer_that_breaks_off_costs_what_came_of_it() -> None:
    book = Book()
    async with running(guests=guests(book, alice={})) as gateway:
        gateway.router.script = lambda _: ScriptedAnswer(parts=[REST[0], RetryElsewhere("it broke")])
        await gateway.ask(bearer("ecila"), stream=True, max_tokens=10_000)
        assert book.used == [2 + 3]
        gateway.router.script = lambda _: RetryElsewhere("nobody", status=503)
        await gateway.ask(bearer("ecila"), stream=True)
        assert book.used == [5, 5]


@pytest.mark.parametrize("stream", [True, False])
async def test_an_executor_cannot_use_up_a_key_by_a_false_count(stream: bool) -> None:
    book = Book()
    async with running(guests=guests(book, alice={})) as gateway:
        most = (1 << 32) - 1
        gateway.router.script = lambda _: ScriptedAnswer(done=Done(most, most))
        await gateway.ask(bearer("ecila"), stream=stream)
        assert book.used == [len(ask(stream=stream)) + BESIDES + len(FIRST + b"".join(REST))]


async def test_who_leaves_pays_for_what_came_and_frees_its_place() -> None:
    book = Book()
    answer_of: list[ScriptedAnswer] = []

    def script(_: Any) -> ScriptedAnswer:
        answer_of.append(ScriptedAnswer(parts=[asyncio.Event()]))
        return answer_of[-1]

    async with running(ScriptedRouter(script), guests(book, alice={"concurrent": 1})) as gateway:
        body = ask(stream=True)
        async with gateway.connected() as (reader, writer):
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nx-api-key: ecila\r\n")
            writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
            await reader.readuntil(FIRST)
            busy = await gateway.ask(bearer("ecila"))
            assert (busy.status, busy.error["code"], busy.headers["retry-after"]) == (429, "rate_limit_exceeded", "1")
        await answer_of[0].closed.wait()
        gateway.router.script = lambda _: ScriptedAnswer()
        while (await gateway.ask(bearer("ecila"))).status == 429:  # the gateway hears of it a moment later
            pass
        assert book.used[0] == 2 + 2


async def test_a_place_is_held_while_the_body_comes_so_that_slow_bodies_are_bounded_too() -> None:
    async with running(guests=guests(alice={"concurrent": 1})) as gateway, gateway.connected() as (_, writer):
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nx-api-key: ecila\r\ncontent-length: 9\r\n\r\n{"
        )
        while (await gateway.ask(bearer("ecila"))).status != 429:
            pass


async def test_whom_a_key_would_be_sent_to_is_explained_by_its_own_money() -> None:
    asked: list[ApiRequest] = []

    class Explained(ScriptedRouter):
        async def explain(self, request: ApiRequest) -> list[Verdict]:
            asked.append(request)
            return []

    async with running(Explained(), guests(alice={"metrics": True}, bob={})) as gateway:
        for key, status in (("ecila", 200), ("bob"[::-1], 403), (OWN, 200)):
            assert (await gateway.get("/lloom/routing/m", bearer(key))).status == status
    assert [each.caller for each in asked] == ["alice", ""]


async def test_money_that_lacks_is_told_with_its_limit_and_when_it_is_there_again() -> None:
    pocket = Pocket("alice", GatewayKey(sha256="0" * 64, money_per_day=5), {"coin": {int(time.time() // DAY): 4}})

    def script(request: Any) -> ScriptedAnswer:
        assert request.caller == "alice"
        pocket.hold(Coin("coin", "base"), 2, time.time())
        raise AssertionError

    for stream in (False, True):
        async with running(ScriptedRouter(script), guests(alice={})) as gateway:
            refused = await gateway.ask(bearer("ecila"), stream=stream)
            assert (refused.status, refused.error["code"], refused.error["type"]) == (429, *["insufficient_quota"] * 2)
            assert "money_per_day" in refused.error["message"]
            assert 1 <= int(refused.headers["retry-after"]) <= DAY


# --- web pages


async def test_a_page_of_a_named_origin_may_ask_after_its_preflight(gateway: Running) -> None:
    preflight = await gateway.http(
        "OPTIONS /v1/chat/completions HTTP/1.1\nhost: localhost\norigin: https://app.example\n"
        "access-control-request-method: POST\naccess-control-request-headers: authorization,x-stainless-os\n"
        "access-control-request-private-network: true"
    )
    assert preflight.status == 200
    assert preflight.headers["access-control-allow-origin"] == "https://app.example"
    assert "x-stainless-os" in preflight.headers["access-control-allow-headers"]
    assert preflight.headers["access-control-allow-private-network"] == "true"
    reply = await gateway.ask("origin: https://app.example", bearer("ecila"), stream=True)
    assert (reply.status, reply.headers["access-control-allow-origin"]) == (200, "https://app.example")
    shown = {name.strip() for name in reply.headers["access-control-expose-headers"].split(",")}
    assert {name for name in reply.headers if name.startswith(("x-lloom-", "x-request"))} <= shown
    refused = await gateway.ask("origin: https://app.example")
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, "https://app.example")


async def test_a_page_of_another_origin_may_not(gateway: Running) -> None:
    preflight = await gateway.http(
        "OPTIONS /v1/chat/completions HTTP/1.1\nhost: localhost\norigin: https://evil.example\n"
        "access-control-request-method: POST"
    )
    assert preflight.status == 400
    reply = await gateway.ask("origin: https://evil.example", bearer("ecila"))
    assert "access-control-allow-origin" not in preflight.headers | reply.headers


# --- what is no request


async def test_a_connection_that_never_asks_is_closed() -> None:
    async with running(body_seconds=0.01) as gateway, gateway.connected() as (reader, writer):
        writer.write(b"GET /health HTTP/1.1\r\nx: ")
        assert (await read_reply(reader)).status == 408
        assert await reader.read() == b""


async def test_what_is_no_http_is_told_so_in_openais_words(gateway: Running) -> None:
    async with gateway.connected() as (reader, writer):
        writer.write(b"\x16\x03\x01\x02\x00\x01 hello\r\n\r\n")
        reply = await read_reply(reader)
        assert (reply.status, reply.error["type"]) == (400, "invalid_request_error")
