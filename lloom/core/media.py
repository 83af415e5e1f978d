"""How large pictures are, and how long sounds at most, by their first bytes. It decodes none."""

from __future__ import annotations

import base64
import binascii
import re
import struct
from typing import Final

HEAD: Final = 256 * 1024
"""Characters of base64 in which a size has to stand; cameras put previews before it."""
SLOWEST: Final = 1000
"""Bytes for a second of sound at least: MP3 begins at 8 kbit/s (ISO/IEC 13818-3)."""

Size = tuple[int, int]
"""Width and height in pixels."""

_DATA: Final = re.compile(r"data:[^,]{0,256};base64,", re.IGNORECASE)
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG's markers of a frame: SOF0 to SOF15 without DHT, JPG, DAC (ITU T.81, table B.1)."""
_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without a length."""
_FORM: Final = struct.Struct("<4sI4s")
_WAVE: Final = struct.Struct("<HHII")


def picture(url: str) -> Size | None:
    """The size of a PNG, GIF, JPEG or WebP in a `data:` URL; None for what is elsewhere, or nothing of these."""
    found = _DATA.match(url)
    if found is None:
        return None
    data = _decoded(url[found.end() : found.end() + HEAD])
    for magic, read in _READERS:
        if data.startswith(magic):
            try:
                width, height = read(data)
            except (struct.error, IndexError, ValueError):
                return None
            return (width, height) if width and height else None
    return None


def seconds(data: str) -> float:
    """The longest that a sound in base64 can last: what a WAV says, else by the slowest MP3."""
    size = len(data) * 3 // 4
    head = _decoded(data[:64])
    if head.startswith(b"RIFF") and head[8:16] == b"WAVEfmt ":
        rate: int = _WAVE.unpack_from(head, 20)[3] if len(head) >= 20 + _WAVE.size else 0
        return size / max(rate, SLOWEST)
    return size / SLOWEST


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text[: len(text) // 4 * 4])
    except (binascii.Error, ValueError):
        return b""


def _png(data: bytes) -> Size:
    """PNG, 11.2.2: the header is the first chunk."""
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _gif(data: bytes) -> Size:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _jpeg(data: bytes) -> Size:
    """ITU T.81, B.2.2: the frame's header, behind any number of other segments."""
    at = 2
    while True:
        if data[at] != 0xFF:
            raise ValueError("no marker where one has to be")
        kind = data[at + 1]
        if kind == 0xFF:  # filled up
            at += 1
        elif kind in _ALONE:
            at += 2
        elif kind in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        else:
            at += 2 + max(2, struct.unpack_from(">H", data, at + 2)[0])


def _webp(data: bytes) -> Size:
    """Google's container specification; lossy frames as in RFC 6386, 9.1."""
    _, _, form = _FORM.unpack_from(data)
    kind = data[12:16]
    if form != b"WEBP":
        raise ValueError("another RIFF")
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits: int = struct.unpack_from("<I", data, 21)[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise ValueError("no picture begins here")


_READERS: Final = ((b"\x89PNG\r\n\x1a\n", _png), (b"GIF8", _gif), (b"\xff\xd8", _jpeg), (b"RIFF", _webp))
