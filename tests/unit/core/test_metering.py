"""What a Meter passes on, and what it keeps."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.core import metering
from lloom.core.api.request import Operation
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.metering import Meter
from lloom.core.sse import event


def chunk(text: str | None = None, **more: object) -> bytes:
    choices = [] if text is None else [{"index": 0, "delta": {"content": text}, "finish_reason": None}]
    return event(json.dumps({"id": "x", "choices": choices} | more).encode())


USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
DONE = event(b"[DONE]")


def test_content_passes_and_usage_and_the_end_mark_do_not() -> None:
    meter = Meter("chat")
    out = meter.feed(chunk("a") + chunk("b", usage=None) + chunk(usage=USAGE) + DONE)
    assert out == chunk("a") + chunk("b", usage=None)
    assert json.loads(meter.usage) == USAGE
    assert meter.tokens() == (7, 2)
    assert meter.ended


def test_a_chunk_with_both_content_and_usage_passes_and_is_counted() -> None:
    meter = Meter("chat")
    both = chunk("end", usage=USAGE)
    assert meter.feed(both) == both
    assert meter.tokens() == (7, 2)


def test_of_a_usage_that_no_message_takes_only_the_numbers_are_passed_on() -> None:
    meter = Meter("chat")
    meter.feed(chunk(usage=USAGE | {"details": "x" * metering.MAX_USAGE, "total_tokens": 9}))
    assert json.loads(meter.usage) == {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    assert meter.tokens() == (7, 2)


def test_text_that_talks_of_usage_and_done_is_only_text() -> None:
    meter = Meter("chat")
    talk = chunk('"usage": {"prompt_tokens": 1} [DONE] "error": {}')
    assert meter.feed(talk) == talk
    assert not meter.usage
    assert not meter.ended


def test_blank_lines_alone_are_nothing_to_send() -> None:
    meter = Meter("chat")
    assert [meter.feed(b"\n\n"), meter.feed(b"\r\n" * 3), meter.feed(chunk("a"))] == [b"", b"", chunk("a")]


def test_a_stream_without_end_mark_is_known_as_cut() -> None:
    meter = Meter("chat")
    meter.feed(chunk("a"))
    assert not meter.ended


@pytest.mark.parametrize(
    ("delta", "text"),
    [
        ({"reasoning": "hm"}, "hm"),
        ({"reasoning": "hm", "reasoning_content": "hm"}, "hm"),
        ({"reasoning": "hm", "reasoning_details": [{"text": "hm"}]}, "hm"),
        ({"content": "", "reasoning_details": [{"data": "x"}]}, '[{"data": "x"}]'),
        ({"audio": {"id": "a", "data": "AAAA", "transcript": "hm"}}, "hm"),
        ({"refusal": "no"}, "no"),
        ({"function_call": {"name": "f"}}, '{"name": "f"}'),
        ({"content": "a", "reasoning": "b", "refusal": "c"}, "abc"),
        ({"content": "a", "tool_calls": [{"function": {"arguments": "b"}}, {"function": {"arguments": "c"}}]}, "abc"),
        ({"content": "a", "tool_calls": "no list"}, 'a"no list"'),
        ({"content": "a", "function_call": {"arguments": "b"}}, "ab"),
    ],
)
def test_all_that_a_model_writes_is_counted_once(delta: dict[str, object], text: str) -> None:
    meter = Meter("chat")
    passed = meter.feed(event(json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode()))
    assert meter.text(len(passed)) == text


def test_an_error_in_the_stream_asks_for_another_executor() -> None:
    with pytest.raises(RetryElsewhere):
        Meter("chat").feed(event(b'{"error": {"message": "out of memory"}}'))


@pytest.mark.parametrize(
    "usage",
    [
        b'{"prompt_tokens": "many"}',
        b'{"prompt_tokens": 1.5}',
        b'{"prompt_tokens": -1}',
        b'{"completion_tokens": null}',
        b'{"completion_tokens": 4294967296}',
        b'{"x": ' + b"[" * 100_000,
    ],
)
def test_a_usage_that_is_none_blames_the_backend(usage: bytes) -> None:
    with pytest.raises(PeerFault):
        Meter("chat").feed(event(b'{"choices": [], "usage": %s}' % usage))


def test_without_usage_the_text_is_kept_for_counting_up_to_the_byte_that_arrived() -> None:
    meter = Meter("chat")
    out = meter.feed(chunk("Hello") + chunk(" world"))
    assert meter.text(len(out)) == "Hello world"
    assert meter.text(len(chunk("Hello")) + 3) == "Hello"


def test_the_text_is_kept_beyond_the_usage_for_an_answer_that_does_not_arrive_whole() -> None:
    meter = Meter("chat")
    meter.feed(chunk("Hello") + chunk(" world") + chunk(usage=USAGE))
    assert meter.text(len(chunk("Hello"))) == "Hello"


def test_beyond_a_limit_nothing_is_kept_and_what_is_missing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metering, "KEPT_BYTES", 1)
    meter = Meter("chat")
    kept, lost = len(meter.feed(chunk("Hello"))), len(meter.feed(chunk(" world")))
    assert meter.text(kept + lost) == "Hello"
    assert meter.unkept(kept + lost) == lost
    assert meter.unkept(kept) == 0


def called(*pieces: object) -> str:
    """What is counted of a call that comes in `pieces`."""
    meter = Meter("chat")
    for piece in pieces:
        meter.feed(event(json.dumps({"choices": [{"index": 0, "delta": {"tool_calls": [piece]}}]}).encode()))
    return meter.text(1 << 20)


def test_of_a_call_its_beginning_counts_whole_and_after_that_its_arguments() -> None:
    first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "add", "arguments": ""}}
    rest = [{"index": 0, "function": {"arguments": each}} for each in ('{"a"', ": 1}")]
    assert called(first, *rest) == json.dumps(first) + '{"a": 1}'
    assert called(first, rest[0], first) == json.dumps(first) + '{"a"' + json.dumps(first)
    for odd in ({"function": 7}, 7):
        assert called(odd) == json.dumps(odd)


def test_of_a_call_of_a_custom_tool_its_text_counts() -> None:
    first = {"index": 0, "id": "call_1", "type": "custom", "custom": {"name": "run", "input": ""}}
    rest = [{"index": 0, "custom": {"input": each}} for each in ("print(", "1)")]
    assert called(first, *rest) == json.dumps(first) + "print(1)"
    assert called({"index": 0}, {"index": 0, "custom": None}, {"index": 0, "custom": {}}) == ""
    assert called({"custom": 7}) == '{"custom": 7}'


def test_so_does_the_older_form_of_a_call() -> None:
    meter = Meter("chat")
    for piece in ({"name": "add", "arguments": ""}, {"arguments": "{}"}):
        meter.feed(event(json.dumps({"choices": [{"index": 0, "delta": {"function_call": piece}}]}).encode()))
    assert meter.text(1 << 20) == '{"name": "add", "arguments": ""}{}'


@pytest.mark.parametrize(
    ("operation", "choices"),
    [("chat", [{"delta": {"content": [{"type": "thinking", "thinking": "hm"}]}}]), ("completions", [{"text": ["hm"]}])],
)
def test_what_stands_where_no_text_should_counts_whole(operation: Operation, choices: object) -> None:
    meter, odd = Meter(operation), json.dumps({"choices": choices})
    assert meter.text(len(meter.feed(event(odd.encode())))) == odd


@pytest.mark.parametrize("operation", ["chat", "completions"])
@pytest.mark.parametrize("empty", ["null", "{}", '{"choices": null}', '{"choices": [{"delta": null, "text": null}]}'])
def test_an_event_that_says_nothing_counts_for_nothing(operation: Operation, empty: str) -> None:
    meter = Meter(operation)
    assert meter.text(len(meter.feed(event(empty.encode())))) == ""


@pytest.mark.parametrize("value", ["\xff", "NaN", '"\\ud83d"'])
def test_what_is_not_quite_json_counts_whole(value: str) -> None:
    meter, odd = Meter("chat"), '{"choices": [{"delta": {"content": "a"}, "logprobs": ' + value + "}]}"
    assert meter.text(len(meter.feed(event(odd.encode())))) == odd


def test_what_is_no_object_counts_as_no_text() -> None:
    meter = Meter("chat")
    length = len(meter.feed(chunk("a") + event(b"[" * 100_000) + event(b"7") + chunk("b")))
    assert meter.text(length) == "ab"


@given(st.lists(st.text(max_size=20), max_size=8), st.data())
def test_any_cut_of_the_bytes_gives_the_same_answer(texts: list[str], data: st.DataObject) -> None:
    stream = b"".join(chunk(text) for text in texts) + chunk(usage=USAGE) + DONE
    meter, out = Meter("chat"), b""
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        out += meter.feed(stream[:size])
        stream = stream[size:]
    assert out == b"".join(chunk(text) for text in texts)
    assert meter.tokens() == (7, 2)


@pytest.mark.parametrize(
    ("delta", "says"),
    [
        ({"role": "assistant"}, False),
        ({"role": "assistant", "content": ""}, False),
        ({"content": None, "tool_calls": None}, False),
        ({"content": "a"}, True),
        ({"reasoning": "hm"}, True),
        ({"refusal": "no"}, True),
        ({"tool_calls": [{"index": 0, "id": "x", "function": {"name": "f", "arguments": ""}}]}, True),
    ],
)
def test_a_beginning_says_nothing(delta: dict[str, object], says: bool) -> None:
    meter = Meter("chat")
    block = meter.feed(event(json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}).encode()))
    assert (meter.says(len(block)), meter.ends()) == (says, False)


def test_what_says_something_late_is_found_where_so_much_was_sent() -> None:
    meter, empty = Meter("chat"), chunk("")
    block = meter.feed(empty * 200 + chunk("a"))
    assert (meter.says(len(block)), meter.says(len(empty) * 200)) == (True, False)


def test_a_vector_says_something() -> None:
    meter = Meter("embeddings")
    assert not meter.says(0)
    assert meter.says(len(meter.feed(event(b'{"object":"embedding","index":0,"embedding":"AAAA"}'))))


def test_why_a_choice_ends_is_seen() -> None:
    meter = Meter("completions")
    meter.feed(event(b'{"choices":[{"index":0,"text":"","finish_reason":"length"}]}') + event(b"nonsense"))
    assert meter.ends()
