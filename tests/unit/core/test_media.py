"""Sizes of pictures and lengths of sounds, read from bytes that this test makes."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.core.media import picture, seconds

SIDE = st.integers(1, 16_383)


def url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + b"\x08\x06\x00\x00\x00"


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\x00\x00\x00"


def jpeg(width: int, height: int) -> bytes:
    """With what a camera puts before the frame: fill bytes, EXIF with a preview of another size, tables."""
    preview = b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 11, 8, 120, 160, 1) + bytes(3) + b"\xff\xd9"
    exif = b"\xff\xe1" + struct.pack(">H", 2 + len(preview)) + preview
    tables = b"\xff\xc4" + struct.pack(">H", 6) + bytes(4)
    return b"\xff\xd8\xff" + exif + tables + b"\xff\xc2" + struct.pack(">HBHHB", 17, 8, height, width, 3)


def webp(kind: bytes, payload: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 100) + b"WEBP" + kind + struct.pack("<I", 90) + payload


def lossy(width: int, height: int) -> bytes:
    return webp(b"VP8 ", b"\x00\x00\x00\x9d\x01\x2a" + struct.pack("<HH", width | 0x4000, height))


def lossless(width: int, height: int) -> bytes:
    return webp(b"VP8L", b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14 | 1 << 28))


def extended(width: int, height: int) -> bytes:
    return webp(b"VP8X", bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little"))


@pytest.mark.parametrize("made", [png, gif, jpeg, lossy, lossless, extended])
@given(width=SIDE, height=SIDE)
def test_the_size_stands_in_the_header(made: Callable[[int, int], bytes], width: int, height: int) -> None:
    assert picture(url(made(width, height))) == (width, height)


@pytest.mark.parametrize(
    "where",
    [
        "https://example.org/cat.png",
        "data:image/png,raw",
        url(b""),
        url(b"<svg/>"),
        url(png(0, 5)),
        url(png(5, 5)[:17]),
        url(jpeg(5, 5)[:-12]),
        url(b"\xff\xd8" + b"\xff" * 10_000),
        url(webp(b"ALPH", bytes(40))),
        "data:image/png;base64,****",
    ],
)
def test_of_anything_else_no_size_is_known(where: str) -> None:
    assert picture(where) is None


@given(st.sampled_from([b"\x89PNG\r\n\x1a\n", b"GIF8", b"\xff\xd8", b"RIFF", b""]), st.binary(max_size=64), st.text())
def test_no_bytes_do_harm(magic: bytes, rest: bytes, tail: str) -> None:
    picture(url(magic + rest) + tail)
    assert seconds(base64.b64encode(magic + rest).decode() + tail) >= 0


def test_a_wave_says_how_fast_it_is_and_anything_else_is_taken_for_the_slowest() -> None:
    rate, length = 32_000, 2.5
    head = b"RIFF" + struct.pack("<I", 0) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16_000, rate, 2, 16)
    data = base64.b64encode(head + bytes(int(rate * length))).decode()
    assert seconds(data) == pytest.approx(length, abs=0.01)
    assert seconds(base64.b64encode(bytes(8_000)).decode()) == pytest.approx(8, abs=0.01)
