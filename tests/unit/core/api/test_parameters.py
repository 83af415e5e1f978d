"""Every documented parameter of OpenAI's chat completions: what it may say, and what it may not, alone or beside others."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lloom.core.api.chat import parse
from lloom.core.errors import CallerFault

HELLO = {"role": "user", "content": "hello"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}
CUSTOM = {"type": "custom", "custom": {"name": "c", "format": {"type": "text"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "4"}


def body(**fields: Any) -> bytes:
    return msgspec.json.encode({"model": "m", "messages": [HELLO], **fields})


def part(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [fields]}]}


def talk(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"messages": list(messages)}


@pytest.mark.parametrize(
    "fields",
    [
        {"stream": True, "n": 3},
        {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
        {"stop": "x"},
        {"stop": ["a", "b", "c", "d"]},
        {"logit_bias": {"50256": -100, "1": 100}},
        {"seed": -(1 << 63)},
        {"metadata": {f"k{number}": "v" * 512 for number in range(16)}},
        {"tools": [TOOL, CUSTOM], "tool_choice": {"type": "custom", "custom": {"name": "c"}}},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}, "parallel_tool_calls": True},
        {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [TOOL]}}},
        {"tools": [TOOL] * 128},
        {"functions": [{"name": "f"}], "function_call": {"name": "f"}},
        {"function_call": "none"},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a-B_9", "schema": {}, "strict": None}}},
        {"modalities": ["text"]},
        {"modalities": ["audio"], "audio": {"voice": {"id": "v"}, "format": "pcm16"}},
        {"prediction": {"type": "content", "content": [{"type": "text", "text": "x"}]}},
        {"reasoning_effort": "xhigh", "verbosity": "low", "service_tier": "flex", "store": False, "user": "u"},
        {"safety_identifier": "s" * 64, "prompt_cache_key": "k", "prompt_cache_retention": "24h"},
        {"prompt_cache_options": {"mode": "explicit", "ttl": "30m"}},
        {"web_search_options": {"user_location": {"type": "approximate", "approximate": {"country": "DE"}}}},
        {"moderation": {"model": "m", "policy": {"input": {"mode": "block"}}}},
        {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "chat_template_kwargs": {"thinking": False}},
        part(type="image_url", image_url={"url": "data:image/png;base64,AA==", "detail": "low"}),
        part(type="video_url", video_url={"url": "http://x/y.mp4"}),
        part(type="input_audio", input_audio={"data": "AA==", "format": "mp3"}),
        part(type="file", file={"file_id": "f"}),
        part(type="text", text="x", prompt_cache_breakpoint={"mode": "explicit"}),
        talk(
            {"role": "developer", "content": "x"}, {"role": "system", "content": [{"type": "text", "text": "x"}]}, HELLO
        ),
        talk(HELLO, CALLING, RESULT, {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}, HELLO),
        talk(HELLO, {**CALLING, "tool_calls": [CALL, {**CALL, "id": "c2"}]}, {**RESULT, "tool_call_id": "c2"}, RESULT),
        talk(HELLO, {"role": "assistant", "refusal": "no"}, {"role": "assistant", "audio": {"id": "a"}}, HELLO),
        talk(HELLO, {"role": "assistant", "function_call": {"name": "f", "arguments": ""}}),
        talk({"role": "function", "name": "f", "content": None}),
    ],
)
def test_what_openai_documents_is_taken(fields: dict[str, Any]) -> None:
    parse(body(**fields))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"stream": 1}, "stream"),
        ({"stream": True, "stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
        ({"stop": []}, "stop"),
        ({"stop": [1]}, "stop[0]"),
        ({"logit_bias": {"hello": 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"logit_bias": {"1": 0.5}}, "logit_bias"),
        ({"seed": 1 << 63}, "seed"),
        ({"seed": 0.5}, "seed"),
        ({"n": 129}, "n"),
        ({"frequency_penalty": 2.1}, "frequency_penalty"),
        ({"presence_penalty": "1"}, "presence_penalty"),
        ({"metadata": {f"k{number}": "v" for number in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: "v"}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        ({"metadata": {"k": 1}}, "metadata"),
        ({"tools": [TOOL] * 129}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "no spaces"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "x\n"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "n" * 65}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]}, "tools[0].function.parameters"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "custom", "custom": {"name": "c", "format": {"type": "xml"}}}]}, "tools[0].custom.format.type"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "custom", "custom": {"name": "f"}}}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"functions": []}, "functions"),
        ({"function_call": {"name": "f"}}, "functions"),
        ({"functions": [{"name": "f"}], "function_call": {"name": "g"}}, "function_call"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}}, "response_format.json_schema.name"),
        ({"modalities": []}, "modalities"),
        ({"modalities": ["smell"]}, "modalities[0]"),
        ({"modalities": ["audio"]}, "audio"),
        ({"audio": {"voice": "alloy", "format": "midi"}}, "audio.format"),
        ({"prediction": {"type": "content"}}, "prediction.content"),
        ({"reasoning_effort": "immense"}, "reasoning_effort"),
        ({"verbosity": "talkative"}, "verbosity"),
        ({"service_tier": "gold"}, "service_tier"),
        ({"store": "no"}, "store"),
        ({"user": 5}, "user"),
        ({"safety_identifier": "s" * 65}, "safety_identifier"),
        ({"prompt_cache_retention": "1h"}, "prompt_cache_retention"),
        ({"prompt_cache_options": {"ttl": "1h"}}, "prompt_cache_options.ttl"),
        ({"web_search_options": {"search_context_size": "all"}}, "web_search_options.search_context_size"),
        ({"moderation": {}}, "moderation.model"),
        (talk({"role": "user", "content": []}), "messages[0].content"),
        (talk({"role": "user", "content": None}), "messages[0].content"),
        (talk({"role": "system", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}),
         "messages[0].content[0].type"),
        (talk({"role": "system", "content": [{"text": "x"}]}), "messages[0].content[0].type"),
        (part(text="x"), "messages[0].content[0].type"),
        (part(type="text"), "messages[0].content[0].text"),
        (part(type="image_url"), "messages[0].content[0].image_url"),
        (part(type="image_url", image_url={"url": "file:///etc/passwd"}), "messages[0].content[0].image_url.url"),
        (part(type="image_url", image_url={"url": "ftp://x/y"}), "messages[0].content[0].image_url.url"),
        (part(type="image_url", image_url={"url": "http://x", "detail": "all"}), "messages[0].content[0].image_url.detail"),
        (part(type="input_audio", input_audio={"data": "", "format": "ogg"}), "messages[0].content[0].input_audio.format"),
        (part(type="file", file={"filename": "x"}), "messages[0].content[0].file.file_data"),
        (talk({"role": "user", "content": "x", "name": "n" * 65}), "messages[0].name"),
        (talk({"role": "assistant"}), "messages[0].content"),
        (talk({"role": "assistant", "tool_calls": []}), "messages[0].content"),
        (talk({"role": "function", "name": "f"}), "messages[0].content"),
        (talk({"role": "function", "content": "x"}), "messages[0].name"),
        (talk(HELLO, {**CALLING, "tool_calls": [{**CALL, "id": None}]}), "messages[1].tool_calls[0].id"),
        (talk(HELLO, {**CALLING, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f"}}]}),
         "messages[1].tool_calls[0].function.arguments"),
        (talk(HELLO, RESULT), "messages[1].role"),
        (talk(HELLO, CALLING, {**RESULT, "tool_call_id": "other"}), "messages[2].tool_call_id"),
        (talk(HELLO, CALLING, RESULT, RESULT), "messages[3].role"),
        (talk(HELLO, CALLING, HELLO), "messages[2]"),
        (talk(HELLO, CALLING), "messages"),
        (talk(HELLO, CALLING, {"role": "tool", "content": "4"}), "messages[2].tool_call_id"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(CallerFault) as caught:
        parse(body(**fields))
    assert (caught.value.status, caught.value.param) == (400, param)
    assert len(str(caught.value)) < 400
