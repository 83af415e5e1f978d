"""The main job, with separate processes and the real model: a prompt in, an answer out."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import psutil
import pytest
from conftest import EMBEDDING, MOCK, MODEL, Network
from support import ROOT, command_line, environment

from lloom.core.billing.receipt import Receipt, Status, read_receipt
from lloom.core.identity import parse_address

QUESTION = [{"role": "user", "content": "Explain gravity in one sentence."}]

LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")

pytestmark = pytest.mark.timeout(300)


def curl(*arguments: str) -> str:
    """What curl prints."""
    return subprocess.run(
        ["curl", "-sS", "-N", *arguments], capture_output=True, text=True, check=True, timeout=120
    ).stdout


def test_the_real_model_answers_curl(network: Network) -> None:
    body = json.dumps({"model": MODEL, "messages": QUESTION, "temperature": 0, "max_tokens": 24})
    url = f"{network.gateway}/v1/chat/completions"
    answer = json.loads(curl(url, "-H", "Content-Type: application/json", "-d", body))
    assert "choices" in answer, answer
    assert "ravity" in answer["choices"][0]["message"]["content"]
    streamed = curl(url, "-H", "Content-Type: application/json", "-d", json.dumps(json.loads(body) | {"stream": True}))
    assert streamed.startswith("data: {")
    assert "data: [DONE]\n\n" in streamed


def test_the_openai_client_gets_the_same_answer_streamed_and_plain(network: Network) -> None:
    with network.openai() as client:
        plain = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, max_tokens=24)
        chunks = list(
            client.chat.completions.create(
                model=MODEL,
                messages=QUESTION,
                temperature=0,
                max_tokens=24,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == plain.choices[0].message.content
    assert plain.choices[0].finish_reason in ("stop", "length")
    assert plain.usage is not None
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    but_what_was_cached = {"prompt_tokens_details": None}  # a probe of the validator may have come in between
    assert chunks[-1].usage.model_copy(update=but_what_was_cached) == plain.usage.model_copy(update=but_what_was_cached)
    assert plain.usage.completion_tokens <= 24


async def test_the_async_client_runs_many_at_once(network: Network) -> None:
    async with network.async_openai() as client:

        async def ask(number: int) -> tuple[str, str]:
            messages = [{"role": "user", "content": f"Say the number {number}."}]
            plain = await client.chat.completions.create(model=MOCK, messages=messages)
            parts = [
                chunk.choices[0].delta.content or ""
                async for chunk in await client.chat.completions.create(model=MOCK, messages=messages, stream=True)
                if chunk.choices
            ]
            return plain.choices[0].message.content or "", "".join(parts)

        for plain, streamed in await asyncio.gather(*(ask(number) for number in range(24))):
            assert plain == streamed


def test_tools_pass_through(network: Network) -> None:
    tool = {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
    with network.openai() as client:
        answer = client.chat.completions.create(
            model=MOCK,
            messages=[{"role": "user", "content": "What is the weather in Paris?"}],
            tools=[tool],
            tool_choice="required",
        )
    calls = answer.choices[0].message.tool_calls
    assert calls
    assert calls[0].function.name == "get_weather"
    assert isinstance(json.loads(calls[0].function.arguments), dict)
    assert answer.choices[0].finish_reason == "tool_calls"


def test_the_real_model_continues_a_text_streamed_and_plain(network: Network) -> None:
    asked: dict[str, Any] = {"model": MODEL, "prompt": "The capital of France is", "temperature": 0, "max_tokens": 4}
    with network.openai() as client:
        plain = client.completions.create(**asked)
        chunks = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert plain.choices[0].text.startswith(" Paris")
    assert plain.choices[0].finish_reason == "length"
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == plain.choices[0].text
    assert plain.usage is not None
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == plain.usage.total_tokens == 5 + 4


def test_embeddings_are_the_same_as_floats_and_as_base64(network: Network) -> None:
    texts = [f"Sentence number {number}." for number in range(100)]
    with network.openai() as client:
        usual = client.embeddings.create(model=EMBEDDING, input=texts)  # base64, by this client
        floats = client.embeddings.create(model=EMBEDDING, input=texts, encoding_format="float")
        short = client.embeddings.create(model=EMBEDDING, input=[[1, 2, 3], [4]], dimensions=8)
        with pytest.raises(openai.BadRequestError, match="does not do embeddings"):
            client.embeddings.create(model=MODEL, input="one")
        with pytest.raises(openai.BadRequestError, match="does not do chat"):
            client.chat.completions.create(model=EMBEDDING, messages=QUESTION)
    assert [item.embedding for item in usual.data] == [item.embedding for item in floats.data]
    assert len({tuple(item.embedding) for item in usual.data}) == 100
    assert usual.usage == floats.usage
    assert ([len(item.embedding) for item in short.data], short.usage.prompt_tokens) == ([8, 8], 4)


def test_the_other_dialects_get_the_same_answer(network: Network) -> None:
    asked = {"model": MODEL, "messages": QUESTION, "max_tokens": 24}
    steady = {"temperature": 0}
    with network.openai() as client, anthropic.Anthropic(base_url=network.gateway, api_key="unused") as other:
        chat = client.chat.completions.create(**asked, **steady)
        response = client.responses.create(model=MODEL, input=QUESTION, max_output_tokens=24, **steady)
        message = other.messages.create(**asked, extra_body=steady)
        with other.messages.stream(
            **(asked | {"max_tokens": 1 << 20}), stop_sequences=["."], extra_body=steady
        ) as stream:
            streamed = stream.get_final_message()
    assert chat.usage is not None
    assert chat.choices[0].message.content == response.output_text == message.content[0].text
    assert message.usage.output_tokens == chat.usage.completion_tokens
    assert "ravity" in streamed.content[0].text


def test_tools_pass_through_the_other_dialects(network: Network) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    question = [{"role": "user", "content": "get_weather in Paris"}]
    with network.openai() as client, anthropic.Anthropic(base_url=network.gateway, api_key="unused") as other:
        function = {"type": "function", "name": "get_weather", "parameters": schema}
        call = client.responses.create(model=MOCK, input=question, tools=[function]).output[0]
        tool = {"name": "get_weather", "input_schema": schema}
        use = other.messages.create(model=MOCK, messages=question, tools=[tool], max_tokens=999).content[0]
    assert (call.type, call.name, use.type, use.name) == ("function_call", "get_weather", "tool_use", "get_weather")
    assert json.loads(call.arguments) == use.input
    assert set(use.input) == {"city"}


def test_models_are_those_of_both_executors(network: Network) -> None:
    with network.openai() as client:
        models = {model.id: model for model in client.models.list()}
        assert client.models.retrieve(MODEL).id == MODEL
    assert set(models) == {MODEL, MOCK, EMBEDDING}
    terms = {name: model.model_extra["lloom"]["executors"] for name, model in models.items() if model.model_extra}
    assert terms == {MODEL: 1, MOCK: 2, EMBEDDING: 2}


def test_health_and_metrics(network: Network) -> None:
    health = httpx.get(f"{network.gateway}/health").json()
    assert health["status"] == "ok"
    assert health["peers"] >= 3
    metrics = httpx.get(f"{network.gateway}/metrics").text
    assert "lloom_http_requests_total" in metrics
    assert 'lloom_evidence_total{kind="answer",right="true"}' in metrics
    assert 'lloom_reputations{standing="doubted"} 0.0' in metrics


def test_what_a_caller_gets_wrong_is_told_and_disturbs_nobody(network: Network) -> None:
    url = f"{network.gateway}/v1/chat/completions"
    json_type = {"content-type": "application/json"}
    for content, status, word in [
        (b"{", 400, "JSON"),
        (b'{"model": "mock-small", "messages": []}', 400, "messages"),
        (b'{"model": 7, "messages": [{"role": "user", "content": "x"}]}', 400, "model"),
        (b'{"model": "smollm3-135m", "messages": [{"role": "user", "content": "x"}]}', 404, MODEL),
        (b'{"model": "mock-small", "messages": [{"role": "user", "content": "' + b"x" * 17_000_000 + b'"}]}', 413, ""),
    ]:
        answer = httpx.post(url, content=content, headers=json_type, timeout=60)
        assert answer.status_code == status, answer.text
        assert word in answer.json()["error"]["message"]
    with network.openai() as client:
        client.chat.completions.create(model=MOCK, messages=QUESTION)


def test_the_one_shot_asks_the_running_client(network: Network) -> None:
    """No second Ray: the command ends without having had a child."""
    prompt = "a, \"b\" = ${oc.env:HOME} {c: [d]} \\ 'e' 😀\nf"
    found = lloom("role=client", f"home={network.homes / 'client'}", f"model={MOCK}", f"prompt={prompt}", "output=json")
    answer = json.loads(found.stdout)
    assert answer["text"]
    assert answer["served"]["input_tokens"] > 0
    assert "Ray" not in found.stderr


def test_the_one_shot_reads_standard_input_and_tells_who_served(network: Network) -> None:
    home = f"home={network.homes / 'client'}"
    found = lloom("role=client", home, f"model={MODEL}", "prompt=-", stdin="Explain gravity in one sentence.")
    assert found.stdout.strip()
    assert network.address in found.stderr
    assert "tokens" in found.stderr


def test_command_models_lists_what_is_served(network: Network) -> None:
    found = lloom("role=client", "command=models", f"home={network.homes / 'client'}")
    rows = found.stdout.splitlines()
    assert [row.split()[:2] for row in rows[1:]] == [[EMBEDDING, "2"], [MOCK, "2"], [MODEL, "1"]]


def test_command_models_explains_who_would_be_asked(network: Network) -> None:
    found = lloom("role=client", "command=models", f"explain={MODEL}", f"home={network.homes / 'client'}")
    head, row = found.stdout.splitlines()
    assert head.split()[:3] == ["executor", "model", "verdict"]
    assert row.split()[0] == network.address
    assert row.split()[2] == MODEL
    assert "closed" in row


def lloom(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lloom", *words]
    found = subprocess.run(
        command, input=stdin, capture_output=True, text=True, env=environment(), cwd=ROOT, timeout=120, check=False
    )
    assert found.returncode == 0, found.stderr
    return found


def test_nothing_but_bridge_and_dht_follows_network_host(network: Network) -> None:
    """The executor's network.host is 127.0.0.2: whatever listens elsewhere than there must do so on 127.0.0.1."""
    for process in (network.validator, network.ours, network.client):
        sockets = [
            address for each in (psutil.Process(process.popen.pid), *process.family()) for address in listening(each)
        ]
        elsewhere = {(address.ip, address.port) for address in sockets if address.ip not in LOOPBACK}
        assert len(sockets) > 5
        if process is network.ours:
            assert {ip for ip, _ in elsewhere} == {"127.0.0.2"}
            assert len({port for _, port in elsewhere}) == 1
        else:
            assert not elsewhere


def listening(process: psutil.Process) -> list[Any]:
    """Where it listens; nowhere if it has ended meanwhile."""
    with suppress(psutil.NoSuchProcess):
        return [
            connection.laddr
            for connection in process.net_connections("inet")
            if connection.status in (psutil.CONN_LISTEN, psutil.CONN_NONE) and connection.laddr
        ]
    return []


def test_no_process_of_ray_carries_the_key(network: Network) -> None:
    family = network.ours.family()
    assert len(family) > 5
    rays = [
        member for member in family if "ray" in (words := command_line(member)).lower() and "lloom" not in words.split()
    ]
    assert len(rays) > 5
    for member in rays:
        with suppress(FileNotFoundError, ProcessLookupError):  # an idle worker ends at any time
            text = Path(f"/proc/{member.pid}/environ").read_text(errors="replace") + command_line(member)
            assert network.secret not in text
            assert "LLOOM_PRIVATE_KEY" not in text


def test_the_key_is_in_no_file(network: Network) -> None:
    for path in [*network.homes.rglob("*"), *Path("/tmp").glob("lloom-*/**/*")]:
        if path.is_file() and not path.is_symlink():
            with suppress(FileNotFoundError):  # a node replaces some
                assert network.secret.encode() not in path.read_bytes(), path


async def test_a_caller_that_hangs_up_stops_the_model(network: Network) -> None:
    """The executor's receipt says so: cancelled, fewer tokens than were asked for, and when.

    It takes less than 200 ms where nobody else computes. Others may here, and the whole answer would take half a minute.
    """
    hangups = [await hang_up(network) for _ in range(3)]  # the first also loads the tables to count tokens by
    print("the executor hung up on its model", *(f"{1000 * after:.0f} ms" for _, after in hangups), "after the caller")
    assert {receipt.status for receipt, _ in hangups} == {Status.CANCELLED}
    assert max(receipt.output_tokens for receipt, _ in hangups) < 750
    assert min(after for _, after in hangups) < 5


async def hang_up(network: Network) -> tuple[Receipt, float]:
    """The receipt of a long answer that its caller leaves at once, and how many seconds after that it was drawn up."""
    before = len(issued(network))
    async with network.async_openai() as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Tell me a long story."}], max_tokens=1500, stream=True
        )
        async for _ in stream:
            break
        left = time.time()
        await stream.close()
    await until(lambda: len(issued(network)) > before)
    receipt = read_receipt(issued(network)[-1])
    return receipt, receipt.finished_at / 1000 - left


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what another process does to its files, which tells nobody."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.1)


def issued(network: Network) -> list[bytes]:
    """The receipts that `ours` has issued to the client, in their order. The validator, which looks at it, gets some too."""
    client = parse_address(httpx.get(f"{network.gateway}/health").json()["node"])
    (path,) = (network.homes / "ours" / "executor").glob("ledger-*.sqlite")
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
        query = "SELECT receipt FROM issued WHERE instr(lane, ?) ORDER BY rowid"
        rows = [row[0] for row in db.execute(query, (bytes(client),))]
    db.close()
    return rows


async def test_every_receipt_reaches_the_clients_journal(network: Network) -> None:
    with network.openai() as client:
        client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=4)
    (path,) = (network.homes / "client" / "client").glob("ledger-*.sqlite")

    def kept() -> set[bytes]:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
            found = {row[0] for row in db.execute("SELECT receipt FROM kept")}
        db.close()
        return found

    assert issued(network)
    await until(lambda: set(issued(network)) <= kept())


def test_a_request_fails_over_while_an_executor_is_away(network: Network) -> None:
    """kill -9 of a Worker, of an ExecutorNode, of the validator: the next request succeeds, and each comes back."""
    with network.openai() as client:
        for process, kind in [
            (network.ours, "Worker"),
            (network.other, "Worker"),
            (network.ours, "ExecutorNode"),
            (network.validator, "ValidatorNode"),
            (network.ours, "Accounting"),
        ]:
            killed = process.actor(kind)
            killed.kill()
            for _ in range(4):
                client.chat.completions.create(model=MOCK, messages=QUESTION)
            process.wait_for("was killed and is back")
        answer = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=4)
        assert answer.choices[0].message.content


def test_the_chat_goes_on_without_an_executor_that_said_goodbye(network: Network) -> None:
    """The last test here: it stops one executor for good."""
    assert network.other.stop() == 0
    with network.openai() as client:
        for _ in range(8):
            client.chat.completions.create(model=MOCK, messages=QUESTION)
