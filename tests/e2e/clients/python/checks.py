"""What the scripts beside it share: where the gateway is, and how they are run. Each runs in .venv-clients, by itself."""

from __future__ import annotations

import os
from collections.abc import Callable

from pydantic import BaseModel

GATEWAY = os.environ["GATEWAY"]
REAL, MOCK, EMBEDDING = os.environ["REAL"], os.environ["MOCK"], os.environ["EMBEDDING"]
"""The built-in model, the mock, and the mock's embeddings."""

QUESTION = [{"role": "user", "content": "Explain gravity in one sentence."}]
ADDITION = 'call add {"a": 2, "b": 40}'
"""The mock does as it is told; then it says what came of it."""
SUM = "add gave: 42"


class Thing(BaseModel):
    """An answer in a form."""

    name: str
    size: int
    tags: list[str]


def run(*checks: Callable[[], None]) -> None:
    """All of them, each told by its name once it held."""
    for check in checks:
        check()
        print("ok", check.__name__.replace("_", " "))
