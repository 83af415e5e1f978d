from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lloom.core import metering
from lloom.core.api.request import Operation
from lloom.core.continuation.record import MAX_TEXT, Head, Record
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.sse import END, Splitter, event, payload


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish}
    return event(msgspec.json.encode({"id": "c1", "created": 7, "model": "m", "choices": [choice], **more}))


def seen(*chunks: bytes, choices: int = 1, operation: Operation = "chat") -> Record:
    record = Record(choices, operation)
    for each in chunks:
        record.feed(each)
    return record


@given(st.lists(st.text(max_size=9), max_size=9), st.data())
def test_however_it_is_cut_the_same_events_pass_and_the_same_text_is_kept(
    words: list[str], data: st.DataObject
) -> None:
    whole = b"".join(chunk({"content": word}) for word in words)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=9)))
    record, passed = Record(), b""
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        block = record.feed(whole[start:end])
        assert not block or block.endswith(b"\n\n")
        passed += block
    assert (passed, record.text) == (whole, "".join(words))


TEXT = st.none() | st.text(max_size=5)
CHOICE = st.fixed_dictionaries(
    {},
    optional={
        "index": st.integers(0, 1),
        "text": TEXT,
        "finish_reason": st.sampled_from([None, "stop"]),
        "delta": st.fixed_dictionaries(
            {},
            optional={
                "content": TEXT,
                "reasoning": TEXT,
                "refusal": TEXT,
                "tool_calls": st.sampled_from([None, [], {}, [{"index": 0, "id": "a", "function": {"name": "f"}}]]),
                "function_call": st.sampled_from([None, [], {}, {"name": "f"}]),
            },
        ),
    },
)


@example("chat", [[{"delta": {"tool_calls": {}}}]])
@example("chat", [[{"delta": {"function_call": []}}]])
@given(st.sampled_from(["chat", "completions"]), st.lists(st.lists(CHOICE, max_size=2), max_size=5))
def test_what_is_whole_is_what_is_paid_for(operation: Operation, chunks: list[list[dict[str, Any]]]) -> None:
    record, events = Record(2, operation), [event(msgspec.json.encode({"choices": choices})) for choices in chunks]
    record.feed(b"".join(events))
    record.check()
    if record.whole:
        assert record.text == metering.text(operation, [payload(each.removesuffix(END)) for each in events])


def test_the_first_chunk_names_the_answer() -> None:
    assert seen(chunk(), chunk({"content": "a"}, id="c2")).head == Head("c1", 7, "m")


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "x"},
        {"reasoning_content": "x"},
        {"reasoning": "x"},
        {"refusal": "no"},
        {"tool_calls": [{"index": 0}]},
        {"function_call": {"name": "f"}},
    ],
)
def test_an_answer_begins_with_what_the_model_wrote(delta: dict[str, Any]) -> None:
    assert seen(chunk(delta)).begun


@pytest.mark.parametrize(
    "delta",
    [
        {},
        {"role": "assistant"},
        {"role": "assistant", "content": "", "tool_calls": [], "function_call": {}},
        {"content": None, "tool_calls": None},
    ],
)
def test_a_role_or_nothing_is_no_beginning(delta: dict[str, Any]) -> None:
    assert not seen(chunk(delta), chunk(finish="stop")).begun


def test_a_vector_or_a_completions_text_is_a_beginning() -> None:
    assert seen(event(b'{"index":0,"embedding":"AAAA"}')).begun
    assert seen(event(b'{"choices":[{"index":0,"text":"a"}]}'), operation="completions").begun
    assert not seen(event(b'{"choices":[{"index":0,"text":""}],"embedding":null}')).begun


def test_an_end_is_noticed() -> None:
    assert not seen(chunk()).finished
    assert not seen(chunk({"content": "a"})).finished
    assert seen(chunk({"content": "a"}), chunk(finish="stop")).finished


def test_an_answer_ends_with_the_last_of_its_choices() -> None:
    record = seen(chunk({"content": "a"}), chunk({"content": "b"}, index=1), chunk(finish="stop", index=1), choices=2)
    assert not record.finished
    record.feed(chunk(finish="length"))
    assert record.finished


@pytest.mark.parametrize(
    "odd",
    [
        chunk({"tool_calls": [{"index": 0, "id": "t"}]}),
        chunk({"function_call": {"name": "f"}}),
        chunk({"refusal": "no"}),
        chunk({"content": "b"}, index=1),
        chunk({"content": "x" * (MAX_TEXT + 1)}),
    ],
    ids=["tool", "function", "refusal", "second choice", "too long"],
)
def test_what_is_more_than_one_text_is_not_plain(odd: bytes) -> None:
    assert seen(chunk({"role": "assistant", "content": "", "tool_calls": None}), chunk({"content": "a"})).plain
    assert not seen(chunk({"content": "a"}), odd, choices=2).plain


def test_reasoning_is_told_from_the_answer() -> None:
    record = seen(chunk({"reasoning_content": "hm"}))
    assert (record.thinking, record.reasoned, record.text) == (True, True, "")
    record.feed(chunk({"content": "a"}))
    assert (record.thinking, record.reasoned, record.text) == (False, True, "a")


def test_completions_have_a_text_of_their_own() -> None:
    bare = event(b'{"choices":[{"index":0,"text":"a"}]}')
    assert seen(bare, operation="completions").text == "a"
    assert not seen(bare).begun


@pytest.mark.parametrize(
    "bad", [b"nonsense", b"[]", b'{"choices":{}}', b'{"choices":[{"delta":{"content":1}}]}', b"\xff"]
)
def test_what_is_no_chunk_never_passes(bad: bytes) -> None:
    record = Record()
    assert record.feed(chunk({"content": "a"}) + event(bad) + chunk({"content": "b"})) == chunk({"content": "a"})
    with pytest.raises(PeerFault):
        record.check()
    assert record.text == "a"
    record.cut()
    record.check()


def test_an_error_never_passes() -> None:
    record = Record()
    assert record.feed(event(b'{"error":{"message":"out of memory"}}')) == b""
    with pytest.raises(RetryElsewhere):
        record.check()


def test_comments_pass_and_marks_that_say_nothing_do_not() -> None:
    record = Record()
    assert record.feed(b": lloom\n\ndata: null\n\ndata: [DONE]\n\n" + chunk()) == b": lloom\n\n" + chunk()
    record.check()


PARTS = [
    chunk({"content": "a"}),
    chunk({"content": "b"}, finish="stop"),
    b"data:" + chunk().removeprefix(b"data: "),
    b'id: 1\ndata: {"choices":\ndata: []}\n\n',
    b": lloom\n\n",
    b"\n\n",
    b"\n",
    event(b"null"),
    event(b"[DONE]"),
    event(b"nonsense"),
    event(b"{},{}"),
    event(b'{"choices":[{"delta":{"content":"c'),
    event(b'd"}}]}'),
    event(b'{"error":{}}'),
    chunk({"content": "e"}, index=1),
]


def fault(record: Record) -> str | None:
    try:
        record.check()
    except RetryElsewhere as error:
        return f"{type(error).__name__}: {error}"
    return None


@given(st.lists(st.sampled_from(PARTS), max_size=6))
def test_of_many_events_the_same_pass_as_of_each_alone(parts: list[bytes]) -> None:
    record, alone, passed = Record(), Record(), b""
    for each in Splitter().feed(b"".join(parts)):
        alone.feed(each + END)
        if fault(alone):
            break
        passed += each + END if payload(each) not in (b"null", b"[DONE]") else b""
    assert (record.feed(b"".join(parts)), fault(record)) == (passed, fault(alone))
    assert (record.text, record.begun, record.finished) == (alone.text, alone.begun, alone.finished)


def test_events_pass_with_one_blank_line_each_however_many_came() -> None:
    assert seen().feed(chunk() + b"\n\n" * 1000 + chunk() + b"\n" * 999) == chunk() + chunk()


def test_an_answer_without_end_is_not_kept_without_end() -> None:
    record = Record()
    half = chunk({"content": "x" * (MAX_TEXT // 2)})
    assert all(record.feed(half) == half for _ in range(9))
    assert (len(record.text), record.plain) == (MAX_TEXT, False)


@pytest.mark.parametrize("index", [-1, 2])
def test_a_choice_that_nobody_asked_for_never_passes_nor_what_comes_with_it(index: int) -> None:
    both = [{"index": 0, "delta": {"content": "a"}}, {"index": index, "delta": {"content": "b"}}]
    record = Record(choices=2)
    assert record.feed(event(msgspec.json.encode({"choices": both}))) == b""
    with pytest.raises(PeerFault):
        record.check()
    assert record.text == ""
