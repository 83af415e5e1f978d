"""What the mock says of how likely its tokens were: always the same, and other numbers under another name of a model."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any


def entry(model: str, place: int, piece: str, others: Sequence[str], most: int) -> dict[str, Any]:
    """OpenAI's account of the token `piece`, the likeliest of its place, and of up to `most` - 1 of `others`, all in `model`."""
    rng = random.Random(f"{model} {place} {piece}")  # noqa: S311 - numbers, no secret
    found = [(piece, rng.uniform(0.3, 0.9))]
    for other in rng.sample([word for word in others if word != piece.strip()], max(0, most - 1)):
        left = 1 - sum(probability for _, probability in found)
        found.append((f" {other}", min(found[-1][1], left) / 2))
    tokens = [_token(*each) for each in found]
    return tokens[0] | {"top_logprobs": tokens[:most]}


def _token(piece: str, probability: float) -> dict[str, Any]:
    return {"token": piece, "logprob": math.log(probability), "bytes": list(piece.encode())}
