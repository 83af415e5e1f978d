"""Scripted answers of the network, for the dialects that write them anew."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import strategies as st

from lloom.core.api.dialect import Asked, Served
from lloom.core.messages import Done
from lloom.core.sse import Splitter, event, payload

USED = Done(
    12,
    5,
    msgspec.json.encode(
        {
            "prompt_tokens": 12,
            "completion_tokens": 5,
            "total_tokens": 17,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 2},
        }
    ),
)
SERVED = Served("0x07", 1)


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None, **more}
    whole = {"id": "c1", "object": "chat.completion.chunk", "created": 7, "model": "m-1", "choices": [choice]}
    return event(msgspec.json.encode(whole))


def call(index: int, id: str | None = None, name: str | None = None, arguments: str | None = None) -> dict[str, Any]:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {"tool_calls": [{"index": index, **({"id": id} if id else {}), "function": function}]}


ROLE = chunk({"role": "assistant", "content": ""})
HELLO = [ROLE, chunk({"content": "Hel"}), chunk({"content": "lo"}), chunk({}, "stop")]
THOUGHT = [ROLE, chunk({"reasoning_content": "Hm"}), chunk({"reasoning_content": "m."}), *HELLO[1:]]
REFUSED = [ROLE, chunk({"refusal": "I will"}), chunk({"refusal": " not."}), chunk({}, "stop")]
CALLS = [
    ROLE,
    chunk({"content": "I'll look."}),
    chunk(call(0, "call_1", "get_weather", "")),
    chunk(call(0, arguments='{"location": "San')),
    chunk(call(0, arguments=' Francisco, CA"}')),
    chunk(call(1, "call_2", "get_time", "{}")),
    chunk({}, "tool_calls"),
]
CUT = [ROLE, chunk({"content": "Hel"}), chunk({}, "length")]
EMPTY = [ROLE, chunk({}, "stop")]
ANSWERS = {"hello": HELLO, "thought": THOUGHT, "refused": REFUSED, "calls": CALLS, "cut": CUT, "empty": EMPTY}

some_answer = st.sampled_from(list(ANSWERS.values()))


@st.composite
def cut_anywhere(draw: st.DrawFn) -> tuple[Sequence[bytes], list[bytes]]:
    """An answer, and its bytes in other pieces."""
    answer = draw(some_answer)
    whole = b"".join(answer)
    cuts = sorted(draw(st.sets(st.integers(0, len(whole)), max_size=12)) | {0, len(whole)})
    return answer, [whole[start:end] for start, end in pairwise(cuts)]


def streamed(asked: Asked, answer: Sequence[bytes], done: Done = USED) -> bytes:
    stream = asked.stream()
    return b"".join(map(stream.feed, answer)) + stream.end(done, SERVED)


def events(written: bytes) -> list[dict[str, Any]]:
    """The events in it, whose names must be their types."""
    found = []
    for each in Splitter().feed(written):
        if data := payload(each):
            content = msgspec.json.decode(data)
            assert each.startswith(b"event: " + content["type"].encode() + b"\n")
            found.append(content)
    return found


def folded(asked: Asked, answer: Sequence[bytes], done: Done = USED) -> dict[str, Any]:
    whole = asked.whole()
    for data in answer:
        whole.feed(data)
    return dict(msgspec.json.decode(whole.end(done)))
