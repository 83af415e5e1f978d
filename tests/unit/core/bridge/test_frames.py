from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.core.bridge.frames import HEADER, MAX_DATA, MAX_STREAM, Decoder, Frame, Kind, encode
from lloom.core.errors import PeerFault

LIMIT = 1000

frames = st.builds(
    Frame,
    st.sampled_from(Kind),
    st.integers(0, MAX_STREAM),
    st.binary(max_size=64) | st.binary(min_size=900, max_size=LIMIT),
)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """`data` in pieces, some of them empty."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in pairwise(edges)]


@given(st.lists(frames, max_size=8), st.lists(st.integers(0, 1 << 16), max_size=12))
def test_frames_come_out_as_they_went_in_wherever_they_are_cut(sent: list[Frame], places: list[int]) -> None:
    decoder = Decoder(LIMIT)
    heard = [frame for piece in cut(b"".join(map(encode, sent)), places) for frame in decoder.feed(piece)]
    assert heard == sent


def test_a_trickle_of_single_bytes_gives_the_frame_with_its_last_byte() -> None:
    decoder = Decoder(LIMIT)
    data = encode(Frame(Kind.DATA, 7, b"x" * 50))
    assert [len(list(decoder.feed(data[i : i + 1]))) for i in range(len(data))] == [0] * (len(data) - 1) + [1]


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_any_bytes_give_frames_or_a_peer_fault(pieces: list[bytes]) -> None:
    decoder = Decoder(LIMIT)
    try:
        for piece in pieces:
            for frame in decoder.feed(piece):
                assert len(frame.payload) <= LIMIT
    except PeerFault:
        pass


@pytest.mark.parametrize(("kind", "most"), [(Kind.OPEN, LIMIT), (Kind.CONTROL, LIMIT), (Kind.DATA, MAX_DATA)])
def test_a_length_over_the_limit_is_refused_before_any_of_the_payload_is_there(kind: Kind, most: int) -> None:
    assert list(Decoder(LIMIT).feed(HEADER.pack(most, kind, 1))) == []
    with pytest.raises(PeerFault, match="too long"):
        list(Decoder(LIMIT).feed(HEADER.pack(most + 1, kind, 1)))


@pytest.mark.parametrize("byte", [0, len(Kind) + 1, 255])
def test_a_frame_of_unknown_kind_is_refused(byte: int) -> None:
    with pytest.raises(PeerFault, match="unknown kind"):
        list(Decoder(LIMIT).feed(HEADER.pack(0, byte, 1)))


def test_frames_before_a_bad_one_still_come_out() -> None:
    good = Frame(Kind.PING, 0, b"")
    heard = []
    with pytest.raises(PeerFault):  # noqa: PT012
        for frame in Decoder(LIMIT).feed(encode(good) + b"\xff" * 9):
            heard.append(frame)
    assert heard == [good]


def test_the_layout_on_the_wire_is_length_kind_stream_in_network_order() -> None:
    assert encode(Frame(Kind.DATA, 0x01020304, b"hi")) == b"\x00\x00\x00\x02" + b"\x04" + b"\x01\x02\x03\x04" + b"hi"
