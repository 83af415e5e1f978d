from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.core.errors import PeerFault
from lloom.core.sse import MAX_EVENT, Splitter, events, payload, payloads


@given(
    st.lists(st.sampled_from([b"a", b"\n", b"\r", b"\r\n", b"data: x", b"\n\n", b"\r\n\r\n"]), max_size=20), st.data()
)
def test_however_it_is_cut_the_same_events_come(parts: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(parts) + b"."
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=9)))
    splitter = Splitter()
    found = [
        event
        for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)
        for event in splitter.feed(whole[start:end])
    ]
    plain = whole.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    assert found == [event.lstrip(b"\n") for event in plain.split(b"\n\n")[:-1] if event.strip(b"\n")]


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (b"data: x", b"x"),
        (b"data:x", b"x"),
        (b"data: x\ndata:  y", b"x\n y"),
        (b"id: 1\ndata: x", b"x"),
        (b": comment", b""),
    ],
)
def test_what_an_event_says_is_in_its_data_lines(event: bytes, said: bytes) -> None:
    assert payload(event) == said


@given(
    st.lists(
        st.sampled_from([b"data: a\n\n", b"data:  b\n\n", b"data:c\n\n", b": d\n\n", b"data: e\ndata: f\n\n", b"\n"])
    )
)
def test_the_payloads_of_a_block_are_those_of_its_events(parts: list[bytes]) -> None:
    block = Splitter().block(b"".join(parts))
    assert payloads(block) == [payload(event) for event in events(block)]


def test_a_long_event_may_come_byte_by_byte() -> None:
    """Which took minutes when all that had come was looked through again for each of them."""
    splitter = Splitter()
    for _ in range(300_000):
        assert splitter.feed(b"x") == []
    assert splitter.feed(b"\n\n") == [b"x" * 300_000]


def test_an_event_without_end_is_its_senders_fault() -> None:
    splitter = Splitter()
    splitter.feed(b"x" * MAX_EVENT)
    with pytest.raises(PeerFault):
        splitter.feed(b"x")
