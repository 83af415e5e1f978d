"""What completions and embeddings are made of: one text or several, as text or as tokens. It never counts any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from msgspec import Meta

from lloom.core.api.reading import contradiction

TOKEN_BYTES: Final = 8
"""What a token stands for that is given by its number: no text has fewer tokens for its bytes."""

Token = Annotated[int, Meta(ge=0, lt=1 << 32)]
Prompt = str | list[Token]
Prompts = str | list[str | Token | list[Token]]
"""One text, one text as tokens, or several of either."""


def split(param: str, prompts: Prompts) -> list[Prompt]:
    """The texts in the field `param`, one by one. CallerFault for a list that is empty, or mixes kinds."""
    if isinstance(prompts, str):
        return [prompts]
    texts = [each for each in prompts if isinstance(each, str)]
    lists = [each for each in prompts if isinstance(each, list)]
    tokens = [each for each in prompts if isinstance(each, int)]
    if not prompts:
        raise contradiction(param, "the list is empty.")
    if len(prompts) not in (len(texts), len(lists), len(tokens)):
        raise contradiction(param, "a list has texts, tokens, or lists of tokens, and not more than one of these.")
    return [tokens] if tokens else [*texts, *lists]


def longest(prompts: Sequence[Prompt]) -> int:
    """UTF-8 bytes of the longest text."""
    return max(len(each.encode()) if isinstance(each, str) else TOKEN_BYTES * len(each) for each in prompts)
