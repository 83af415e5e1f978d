"""Whether a broken answer can be taken up, and what another executor is then asked. It never asks anybody."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from lloom.core.api import chunks
from lloom.core.api.request import ApiRequest
from lloom.core.continuation.record import Record
from lloom.core.messages import Done

Way = Literal["prefill", "regenerate"]
"""Go on after the text that is there already; or say all again, deterministically, and leave out what was said."""

_NULL: Final = Raw(b"null")

PREFILL: Final = "prefill"
"""The feature of a chat model that continues a last message of the assistant's."""


class _Message(Struct):
    role: str
    content: Raw = _NULL


class _Body(Struct):
    messages: list[Raw] | None = None
    prompt: Raw = _NULL
    n: int | None = None
    best_of: int | None = None
    temperature: float | None = None
    seed: int | None = None
    logprobs: Raw = _NULL
    response_format: dict[str, Any] | None = None
    echo: bool | None = None
    suffix: str | None = None
    stop: str | list[str] | None = None


_body = msgspec.json.Decoder(_Body)
_message = msgspec.json.Decoder(_Message)
_fields = msgspec.json.Decoder(dict[str, Raw])
_encode = msgspec.json.encode


def ways(request: ApiRequest, seen: Record) -> tuple[Way, ...]:
    """How `request` can go on after what was `seen` of its answer, the better way first; empty: it cannot."""
    if request.operation == "embeddings" or not seen.plain or seen.thinking or not seen.text:
        return ()
    asked = _body.decode(request.body)
    if request.choices != 1 or (asked.best_of or 1) != 1 or _is_set(asked.logprobs) or asked.echo or asked.suffix:
        return ()
    if asked.response_format is not None and asked.response_format.get("type", "text") != "text":
        return ()  # a grammar would begin anew
    found: list[Way] = []
    if _text_of(request, asked) is not None:
        found.append("prefill")
    if not seen.reasoned and (asked.temperature == 0 or asked.seed is not None):
        found.append("regenerate")
    return tuple(found)


def stops(request: ApiRequest) -> tuple[str, ...]:
    """The strings that end the answer."""
    stop = _body.decode(request.body).stop
    return tuple(each for each in ([stop] if isinstance(stop, str) else stop or ()) if each)


def follow_up(request: ApiRequest, said: str, used: int) -> ApiRequest:
    """What is asked of the next executor by the way of `prefill`: to go on after `said`, which had `used` tokens.

    ValueError if the limit of the request is used up.
    """
    fields = _fields.decode(request.body)
    asked = _body.decode(request.body)
    if request.operation == "completions":
        fields["prompt"] = Raw(_encode((_text_of(request, asked) or "") + said))
        needed = request.features
    else:
        fields["messages"] = Raw(_encode(_continued(asked.messages or [], said)))
        needed = request.features | {PREFILL}
    left = None if request.max_output is None else request.max_output - used
    if left is not None:
        if left < 1:
            raise ValueError("nothing is left of the limit")
        for name in ("max_tokens", "max_completion_tokens"):
            if _is_set(fields.get(name, _NULL)):
                fields[name] = Raw(_encode(left))
    return replace(
        request,
        body=_encode(fields),
        max_output=left,
        text_bytes=request.text_bytes + len(said.encode(errors="replace")),
        features=needed,
    )


def _continued(messages: list[Raw], said: str) -> list[Raw]:
    """`messages` with an assistant's one at the end that the model continues; there may be one already."""
    last = _message.decode(messages[-1])
    if last.role != "assistant":
        return [*messages, Raw(_encode({"role": "assistant", "content": said}))]
    fields = _fields.decode(messages[-1])
    fields["content"] = Raw(_encode((_string(last.content) or "") + said))
    return [*messages[:-1], Raw(_encode(fields))]


def _text_of(request: ApiRequest, asked: _Body) -> str | None:
    """The text that the answer follows, as far as it is one that can be made longer."""
    if request.operation == "completions":
        return _string(asked.prompt)
    last = _message.decode((asked.messages or [Raw(b'{"role":""}')])[-1])
    return _string(last.content) if last.role == "assistant" else ""


def _string(value: Raw) -> str | None:
    found = msgspec.json.decode(value)
    return found if isinstance(found, str) else None


def _is_set(value: Raw) -> bool:
    return bytes(value) not in (b"null", b"false")


def summed(way: Way, used: int, done: Done) -> Done:
    """What the whole answer amounts to, if its last part ended with `done`: the prompt once, and all tokens delivered.

    `used`: tokens of the text before that part. Who says all again counts them itself.
    """
    if way == "regenerate":
        return done
    inputs, outputs = max(0, done.input_tokens - used), done.output_tokens + used
    usage: dict[str, Any] = chunks.usage(done)
    usage.update(prompt_tokens=inputs, completion_tokens=outputs, total_tokens=inputs + outputs)
    return Done(inputs, outputs, _encode(usage))
