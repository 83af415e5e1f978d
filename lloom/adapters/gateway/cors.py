"""Which web pages may use the gateway from a browser (Fetch Standard, "CORS protocol"). Without origins it is not there."""

from __future__ import annotations

from typing import Final

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

_SHOWN: Final = (
    "idempotent-replayed",
    "request-id",
    "retry-after",
    "x-lloom-attempts",
    "x-lloom-executor",
    "x-lloom-routing",
    "x-request-id",
    *(f"x-ratelimit-{what}-{kind}" for what in ("limit", "remaining", "reset") for kind in ("requests", "tokens")),
)
"""Headers of answers that a page may read."""


def open_to(app: ASGIApp, origins: tuple[str, ...]) -> ASGIApp:
    """`app`, for pages of `origins` as well. Callers that are no browsers (no `Origin`) pass through untouched."""
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=("*",),  # OpenAI's client for browsers sends a dozen of its own
        allow_private_network=True,  # the page is on the internet, the gateway here
        expose_headers=_SHOWN,
    )
