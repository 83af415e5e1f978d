"""A request made fit for a backend by its top-level keys; their values stay bytes. It never decodes a prompt."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from lloom.core.api.prompts import Prompts, split
from lloom.core.api.request import Operation
from lloom.core.errors import CallerFault

Fields = dict[str, Raw]

LIMITS: Final = ("max_tokens", "max_completion_tokens")
COMPLETION_TOKENS: Final = 16
"""The limit of a completion that names none (OpenAI)."""

_SAMPLING: Final = "temperature top_p n stop seed presence_penalty frequency_penalty logit_bias logprobs"
_STANDARD: Final[dict[Operation, str]] = {
    "chat": (
        f"{_SAMPLING} messages model stream stream_options max_tokens max_completion_tokens top_logprobs response_format "
        "tools tool_choice parallel_tool_calls reasoning_effort"
    ),
    "completions": f"{_SAMPLING} prompt model stream stream_options max_tokens suffix echo",
    "embeddings": "input model dimensions encoding_format",
}
STANDARD: Final = {operation: frozenset(names.split()) for operation, names in _STANDARD.items()}
"""Fields of OpenAI's requests that only shape the answer."""

_PRIVATE: Final = (
    # OpenAI
    "service_tier store metadata web_search_options moderation best_of prediction",
    # OpenRouter: which other model answers, by whom, with what tools
    "models route provider plugins preset",
    # Groq, Together: tools and models beside the one that is asked
    "compound_custom search_settings safety_model",
    # llama.cpp: limits above all others, what else is loaded, others' places
    "n_predict n_cmpl lora id_slot",
    # vLLM: before whom, from where, several times as much work, prompts and tokens that no text shows
    "priority kv_transfer_params ec_transfer_params vllm_xargs use_beam_search return_token_ids request_id",
    "chat_template prompt_embeds",
    # SGLang: the same, and code
    "lora_path rid bootstrap_host bootstrap_port bootstrap_room return_hidden_states custom_logit_processor custom_params",
    "embed_overrides",
)
PRIVATE: Final = frozenset(" ".join(_PRIVATE).split())
"""Fields that act on the account of whoever owns the key, or cost what no answer shows. A stranger does not set them."""


class _Message(Struct):
    role: str = ""


_decoder = msgspec.json.Decoder(Fields)
_messages = msgspec.json.Decoder(list[Raw])
_message = msgspec.json.Decoder(_Message)
_whole = msgspec.json.Decoder(int | None)
_prompts: msgspec.json.Decoder[Prompts] = msgspec.json.Decoder(Prompts)
_TRUE: Final = Raw(b"true")
_USAGE: Final = Raw(b'{"include_usage":true}')
_BASE64: Final = Raw(b'"base64"')
_ABSENT: Final = frozenset({b"null", b"false", b'""'})


def fields(body: bytes) -> Fields:
    """The top-level keys of `body`; CallerFault if it is no JSON object."""
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise CallerFault(f"the request body is not a JSON object: {error}", code="invalid_json") from error


def encode(content: Fields) -> bytes:
    """The JSON of `content`."""
    return msgspec.json.encode(content)


def put(content: Fields, name: str, value: Any) -> None:
    """Sets one key."""
    content[name] = Raw(msgspec.json.encode(value))


def address(operation: Operation, content: Fields, model: str) -> None:
    """Directs the request to the backend's `model`: to be streamed with a usage chunk at the end, vectors as base64."""
    put(content, "model", model)
    if operation == "embeddings":
        drop(content, ("stream", "stream_options"))
        content["encoding_format"] = _BASE64
    else:
        content["stream"] = _TRUE
        content["stream_options"] = _USAGE


def keep(content: Fields, names: Collection[str]) -> None:
    """Drops every key that is not in `names`."""
    for name in content.keys() - names:
        del content[name]


def drop(content: Fields, names: Collection[str]) -> None:
    """Drops the keys in `names`."""
    for name in frozenset(names).intersection(content):  # of many names, those of the few keys
        del content[name]


def given(content: Fields, name: str) -> bool:
    """Whether `name` asks for anything."""
    return bytes(content.get(name, b"null")).strip() not in _ABSENT


def limit(operation: Operation, content: Fields, most: int) -> int | None:
    """Lowers the wanted tokens to `most` where they are above; the limit that holds, None if the request has none.
    Completions have `max_tokens` only: a backend may pass over the other, so that goes.

    CallerFault when a limit is not a whole number from 1 (from 0 for completions, which may just repeat the prompt).
    """
    least = 1
    if operation == "completions":
        least = 0
        drop(content, ("max_completion_tokens",))
    found: list[int] = []
    for name in LIMITS:
        wanted = whole(content, name, least)
        if wanted is not None:
            found.append(min(wanted, most))
            put(content, name, found[-1])
    return min(found, default=None)


def prompt_count(operation: Operation, content: Fields) -> int:
    """How many prompts there are; CallerFault if they are none."""
    if operation == "chat":
        return 1
    name = "prompt" if operation == "completions" else "input"
    try:
        return len(split(name, _prompts.decode(content.get(name, b"null"))))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise CallerFault(f"{name} must be a text, or its tokens", code="invalid_type", param=name) from error


def answer_count(operation: Operation, content: Fields) -> int:
    """How many answers are asked for; CallerFault if that is no number."""
    return (whole(content, "n") or 1) * prompt_count(operation, content)


def call_limit(content: Fields, name: str) -> None:
    """Has the limit of tokens under `name` alone, whichever of LIMITS the caller used."""
    given_limits = [content.pop(each) for each in LIMITS if given(content, each)]
    drop(content, LIMITS)
    if given_limits:
        content[name] = given_limits[-1]


def prefilled(content: Fields) -> bool:
    """Whether the last message of a chat is the assistant's own, which is to be continued."""
    try:
        messages = _messages.decode(content.get("messages", b"[]"))
        return bool(messages) and _message.decode(messages[-1]).role == "assistant"
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise CallerFault("messages must be a list of messages", code="invalid_type", param="messages") from error


def whole(content: Fields, name: str, least: int = 1) -> int | None:
    """The whole number from `least` under `name`, None if it is absent or null; else CallerFault."""
    if name not in content:
        return None
    try:
        value: int | None = _whole.decode(content[name])
    except msgspec.DecodeError as error:
        raise CallerFault(f"{name} must be a whole number", code="invalid_type", param=name) from error
    if value is not None and value < least:
        raise CallerFault(f"{name} must be at least {least}", code="invalid_value", param=name)
    return value
