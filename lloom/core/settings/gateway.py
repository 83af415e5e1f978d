"""The client's HTTP endpoint, and what those may do who have a key to it: the hashes of keys, never keys."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from lloom.core.settings.base import Count, Group, Money, Port, Seconds, Tokens


class GatewayKey(Group, frozen=True):
    """What somebody may do who has a key to the gateway. What is left out has no limit."""

    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    """Of the key, in hexadecimal. A key has 256 random bits, so nothing can be learned from this."""
    models: tuple[str, ...] = ("*",)
    """Patterns of ids, as `fnmatch` reads them."""
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    """Prompt and answer."""
    concurrent: Count | None = None
    """Requests at once."""
    tokens_per_day: Tokens | None = None
    """A day of UTC."""
    tokens_per_month: Tokens | None = None
    """The last 30 days, this one included."""
    money_per_day: Money | None = None
    """Of each token that is paid in, on each chain: those amounts do not add up."""
    money_per_month: Money | None = None
    metrics: bool = False
    """May read /metrics, which show what all do."""


class GatewaySettings(Group, frozen=True):
    host: str
    port: Port
    max_body: Count
    """Largest accepted request body in bytes."""
    body_seconds: Seconds
    """Longest pause between two pieces of a body."""
    hold_headers_seconds: Seconds
    """The 200 is held back until content arrives or this has passed."""
    keep_alive_seconds: Seconds
    """Pause between SSE comments while nothing comes."""
    drain_seconds: Seconds
    header_bytes: Count
    """Of one request, its first line included."""
    keys: dict[Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")], GatewayKey]
    """By name; none: whoever reaches the gateway may use it."""
    assumed_output: Count
    """Tokens set aside for an answer whose length its caller did not limit."""
    replay_seconds: Seconds
    """How long an answer is kept for who asks again with the same Idempotency-Key."""
    replay_bytes: Count
    """Of all answers that are kept, of each endpoint."""
    cors: tuple[str, ...]
    """Origins whose web pages may use the gateway; `*`: all."""
