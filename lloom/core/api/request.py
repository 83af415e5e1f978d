"""A request as far as routing must understand it; the body itself travels on as it came. It never changes a byte of it."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Operation = Literal["chat", "completions", "embeddings"]
"""What a model is asked to do: the three of OpenAI's endpoints that all others can be said in."""


class ApiRequest(Struct, frozen=True):
    """What routing knows of one request, whichever endpoint it came in by.

    `text_bytes` counts the UTF-8 bytes of the prompt's text, of the longest one where there are several; `features` are what an
    offer must have (see settings.Model).
    `max_output` may be more than a model writes only if `at_most`: its caller had to name a limit, and does not ask for so much.
    """

    operation: Operation
    body: bytes
    model: str
    stream: bool
    include_usage: bool
    choices: int
    max_output: int | None
    """Tokens of each choice; None: as many as the model gives."""
    text_bytes: int
    features: frozenset[str]
    at_most: bool = False
    affinity: bytes = b""
    """A hash of what the prompt shares with others, or of what the caller named so; empty: no cache is worth going back for."""
    caller: str = ""
    """Whose turn it is when callers have to wait; empty: one and the same."""
    prompts: int = 1
    """Texts of which each has to fit into the context."""
