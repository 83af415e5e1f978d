"""What all groups of settings are made of: bounded numbers, and a group that knows its keys. Never a group itself."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
LONGEST_SECONDS: Final = 3_600
"""What one request may take at most: executors remember each order until its deadline."""
RequestSeconds = Annotated[float, Meta(gt=0, le=LONGEST_SECONDS)]
Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Tokens = Annotated[int, Meta(ge=1, le=2**53)]
Port = Annotated[int, Meta(ge=0, le=65_535)]
Share = Annotated[float, Meta(ge=0, le=1)]
Price = Annotated[int, Meta(ge=0, le=2**62)]
"""Smallest units of the payment token per million tokens."""

Money = Annotated[int, Meta(ge=0)]
"""Smallest units of the payment token."""


class Group(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all groups: an unknown key is an error, not a silent nothing."""
