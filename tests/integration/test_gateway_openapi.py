"""Requests after OpenAI's own OpenAPI description, right and wrong ones, against the real ASGI application.

Schemathesis makes them: every boundary of every field (its coverage phase), and some at random, the same ones every time. Nothing
may be a 5xx, and what is accepted must be right by OpenAI's description, null standing for a field left out.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import Case
from schemathesis.core import NotSet
from schemathesis.generation.meta import TestPhase

from lloom.adapters.gateway import Gateway, Health
from lloom.core.sse import Splitter, payload
from tests.integration.gateway_support import HELLO, SETTINGS, ScriptedRouter

IDENTIFIER = {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"}


def described() -> dict[str, Any]:
    """OpenAI's description, with what it says in words only, and what we take beyond it."""
    document: dict[str, Any] = json.loads((Path(__file__).parent / "openai_chat.json").read_text())
    known = document["components"]["schemas"]
    for name in ("FunctionObject", "ChatCompletionFunctions"):
        known[name]["properties"]["name"] = IDENTIFIER
    known["CustomToolChatCompletions"]["properties"]["custom"]["properties"]["name"] = IDENTIFIER
    known["ResponseFormatJsonSchema"]["properties"]["json_schema"]["properties"]["name"] = IDENTIFIER
    known["ResponseModalities"]["anyOf"][0]["minItems"] = 1
    known["Metadata"]["anyOf"][0] |= {
        "maxProperties": 16,
        "propertyNames": {"maxLength": 64},
        "additionalProperties": {"type": "string", "maxLength": 512},
    }
    fields = known["CreateChatCompletionRequest"]["allOf"][1]["properties"]
    fields["logit_bias"] |= {
        "propertyNames": {"pattern": "^(0|[1-9][0-9]{0,17})$"},
        "additionalProperties": {"type": "integer", "minimum": -100, "maximum": 100},
    }
    for limit in ("max_tokens", "max_completion_tokens"):
        fields[limit] |= {"minimum": 1, "maximum": (1 << 32) - 1}
    fields["tools"]["maxItems"] = 128
    fields["seed"] |= {"minimum": -(1 << 63), "maximum": (1 << 63) - 1}  # the file has them rounded
    image = known["ChatCompletionRequestMessageContentPartImage"]["properties"]["image_url"]["properties"]["url"]
    image["pattern"] = "^(https?://[^\\s]|data:[^\\s])"
    del image["format"]
    # A message of role function may have the content null, which stands for none here.
    known["ChatCompletionRequestFunctionMessage"]["required"].remove("content")
    known["ChatCompletionRequestToolMessageContentPart"]["oneOf"].append(
        {"$ref": "#/components/schemas/ChatCompletionRequestMessageContentPartImage"}
    )
    video = {
        "type": "object",
        "properties": {"url": {"type": "string", "pattern": image["pattern"]}},
        "required": ["url"],
    }
    known["ChatCompletionRequestUserMessageContentPart"]["oneOf"].append(
        {
            "type": "object",
            "properties": {"type": {"type": "string", "enum": ["video_url"]}, "video_url": video},
            "required": ["type", "video_url"],
        }
    )
    return document


def narrowed(document: dict[str, Any]) -> dict[str, Any]:
    """The same where simple fields do not contradict each other: else a wrong one would be refused for another."""
    narrow = copy.deepcopy(document)
    fields = narrow["components"]["schemas"]["CreateChatCompletionRequest"]["allOf"][1]["properties"]
    fields["stream"] = fields["logprobs"] = {"enum": [True]}
    fields["tools"]["minItems"] = 1
    narrow["components"]["schemas"]["ModelIdsShared"] = {
        "enum": ["m"]
    }  # what is no name is a 404, whatever else is wrong
    return narrow


DOCUMENT = described()
RIGHT = jsonschema_rs.validator_for(
    {"$ref": "#/components/schemas/CreateChatCompletionRequest", "components": DOCUMENT["components"]}
)
schema = schemathesis.openapi.from_dict(narrowed(DOCUMENT))
schema.config.phases.update(phases=["coverage", "fuzzing"])

SEEN: Counter[tuple[bool, int]] = Counter()
"""How many right and wrong ones were answered with which status."""


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


@pytest.fixture(scope="module")
def gateway(runner: asyncio.Runner) -> Gateway:
    def tell() -> Health:
        return Health(status="ok", node="0x", role="client", version="1", network="test", peers=1)

    return Gateway(ScriptedRouter(), tell, SETTINGS)


async def ask(app: Gateway, method: str, body: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    """One exchange, without a server: status, headers, body."""
    sent: list[dict[str, Any]] = []
    coming = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        return coming.pop() if coming else await asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": method, "path": "/v1/chat/completions", "headers": headers, "query_string": b""}
    await app(scope, receive, send)
    start, *parts = sent
    return start["status"], dict(start["headers"]), b"".join(part["body"] for part in parts)


def consistent(body: dict[str, Any]) -> dict[str, Any]:
    """The same without what is right by the description and yet contradicts something else, which it cannot say."""
    named = {each["function"]["name"] for each in body.get("tools") or [] if each["type"] == "function"}
    named |= {each["custom"]["name"] for each in body.get("tools") or [] if each["type"] == "custom"}
    chosen = body.get("tool_choice")
    wrong = {
        "tool_choice": isinstance(chosen, dict) or (chosen == "required" and not named),
        "parallel_tool_calls": not named,
        "function_call": isinstance(body.get("function_call"), dict),
        "stream_options": not body.get("stream"),
        "top_logprobs": not body.get("logprobs"),
        "max_tokens": body.get("max_completion_tokens") is not None,
        "modalities": body.get("audio") is None,
    }
    kept = {key: value for key, value in body.items() if not wrong.get(key)}
    return kept | {
        "messages": [answered(message) for message in body["messages"] if message["role"] != "tool"] or HELLO
    }


def answered(message: dict[str, Any]) -> dict[str, Any]:
    """The same without calls that nobody answers, and files of which there is nothing."""
    parts = message.get("content")
    if message["role"] == "assistant":
        return {**message, "tool_calls": [], "content": parts or ""}
    if message["role"] == "function":
        return {**message, "content": parts}
    if isinstance(parts, list):
        parts = [each | {"file": {"file_id": "f"}} if each["type"] == "file" else each for each in parts]
    return {**message, "content": parts}


def whole_numbers(value: Any) -> Any:
    """The same with 1 for 1.0, which JSON Schema takes for an integer and we do not."""
    if isinstance(value, dict):
        return {key: whole_numbers(each) for key, each in value.items()}
    if isinstance(value, list):
        return [whole_numbers(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value


@schema.parametrize()
@settings(
    max_examples=25,
    phases=[Phase.explicit, Phase.generate],  # shrinking such requests takes minutes
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_no_request_breaks_the_gateway_and_no_nonsense_passes_it(
    case: Case, gateway: Gateway, runner: asyncio.Runner
) -> None:
    assert case.meta is not None
    right = case.meta.generation.mode.value == "positive"
    asked = whole_numbers(consistent(case.body)) if right else case.body
    body = b"" if isinstance(asked, NotSet) else asked if isinstance(asked, bytes) else json.dumps(asked).encode()
    status, headers, answer = runner.run(ask(gateway, case.method, body))
    SEEN[right, status] += 1
    assert b"x-request-id" in headers
    if case.method != "POST":
        assert (status, headers[b"allow"]) == (405, b"POST")
    if status != 200:
        assert 400 <= status < 500
        assert set(json.loads(answer)["error"]) == {"message", "type", "param", "code"}
        # Random ones find contradictions that `consistent` does not know.
        assert not (right and case.meta.phase.name is TestPhase.COVERAGE), answer
    else:
        RIGHT.validate(without_nulls(json.loads(body)))
        check_answer(json.loads(body), answer)


def check_answer(asked: dict[str, Any], answer: bytes) -> None:
    if asked.get("stream"):
        assert [data for event in Splitter().feed(answer) if (data := payload(event))][-1] == b"[DONE]"
    else:
        assert json.loads(answer)["object"] == "chat.completion"


def test_the_requests_were_not_all_of_one_kind() -> None:
    assert SEEN[True, 200] > 200
    assert SEEN[False, 400] > 1000
