from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.core.continuation.record import Head, Record
from lloom.core.continuation.splice import DIVERGED, Splice, ending
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.sse import DONE, Splitter, event, payload

HEAD = Head("c1", 7, "m")


def chunk(text: str | None, finish: str | None = None, **delta: Any) -> bytes:
    said = delta if text is None else {"content": text, **delta}
    choice = {"index": 0, "delta": said, "logprobs": None, "finish_reason": finish}
    return event(msgspec.json.encode({"id": "other", "created": 9, "model": "x", "choices": [choice], "usage": None}))


def joined(splice: Splice, *chunks: bytes) -> list[dict[str, Any]]:
    passed = b"".join(map(splice.feed, chunks))
    return [msgspec.json.decode(payload(found)) for found in Splitter().feed(passed)]


def text(chunks: list[dict[str, Any]]) -> str:
    return "".join(each["choices"][0]["delta"].get("content") or "" for each in chunks)


def test_the_rest_looks_like_the_beginning() -> None:
    splice = Splice(HEAD, "Once", "", ())
    chunks = joined(splice, chunk("", role="assistant"), chunk(" upon"), chunk(None, "stop"), event(DONE))
    assert [(each["id"], each["created"], each["model"]) for each in chunks] == [("c1", 7, "m")] * 2
    assert [each["choices"][0]["finish_reason"] for each in chunks] == [None, "stop"]
    assert text(chunks) == " upon"
    assert all("role" not in each["choices"][0]["delta"] for each in chunks)


def test_new_reasoning_is_left_out() -> None:
    chunks = joined(Splice(HEAD, "Once", "", ()), chunk(None, reasoning_content="hm"), chunk(" upon"))
    assert (len(chunks), text(chunks)) == (1, " upon")


@given(st.text(max_size=30), st.data())
def test_said_again_only_what_is_new_passes_however_it_comes(whole: str, data: st.DataObject) -> None:
    known = data.draw(st.integers(0, len(whole)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    splice = Splice(HEAD, whole[:known], whole[:known], ())
    parts = [chunk(whole[a:b]) for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert text(joined(splice, *parts)) == whole[known:]


def test_another_answer_is_no_continuation() -> None:
    with pytest.raises(RetryElsewhere) as caught:
        joined(Splice(HEAD, "Once upon", "Once upon", ()), chunk("Once "), chunk("more"))
    assert caught.value.code == DIVERGED
    for early in (
        chunk("Once", "stop"),
        chunk(None, tool_calls=[{"index": 0}]),
        chunk(None, function_call={"name": "f"}),
        chunk("Once", refusal="no"),
    ):
        with pytest.raises(RetryElsewhere):
            joined(Splice(HEAD, "Once upon", "Once upon", ()), early)


@given(st.text("abX", max_size=12), st.text("abX", max_size=12), st.sampled_from([("XX",), ("aXb", "bb"), ("X",), ()]))
def test_a_stop_string_over_the_joint_ends_the_answer_and_no_other_text_is_lost(
    before: str, after: str, stops: tuple[str, ...]
) -> None:
    splice = Splice(HEAD, before, "", stops)
    chunks = joined(splice, *map(chunk, after), chunk(None, "length"))
    starts = [(before + after).find(stop, max(0, len(before) - len(stop) + 1)) for stop in stops]
    over = [at for at, stop in zip(starts, stops, strict=True) if 0 <= at < len(before) < at + len(stop)]
    assert splice.stopped == bool(over)
    assert text(chunks) == ("" if over else after)
    assert chunks[-1]["choices"][0]["finish_reason"] == ("stop" if over else "length")


def test_a_chunk_that_is_none_is_its_senders_fault() -> None:
    with pytest.raises(PeerFault):
        Splice(HEAD, "a", "", ()).feed(event(b"nonsense"))


def test_two_choices_are_no_continuation_of_one() -> None:
    with pytest.raises(PeerFault):
        Splice(HEAD, "a", "a", ()).feed(event(b'{"choices":[{"index":0,"text":"a"},{"index":0,"text":"b"}]}'))


def test_what_has_no_choice_is_left_out() -> None:
    assert joined(Splice(HEAD, "a", "", ()), event(b'{"choices":[]}'), event(b'{"x":1}'), b": comment\n\n") == []


def test_an_end_of_our_own_is_a_chunk_like_the_others() -> None:
    record = Record()
    record.feed(ending(HEAD, "chat", "length"))
    assert (record.finished, record.head) == (True, HEAD)
    plain = msgspec.json.decode(payload(ending(HEAD, "completions", "length")))
    assert plain["object"] == "text_completion"
    assert plain["choices"][0]["text"] == ""
