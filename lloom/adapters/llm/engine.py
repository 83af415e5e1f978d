"""What every backend looks like to a Worker. It never talks to one itself."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Collection, Mapping
from typing import Protocol

from lloom.core import tokens
from lloom.core.api.request import Operation
from lloom.core.errors import ConfigError, RetryElsewhere
from lloom.core.lineup import Common, Lineup, Served, is_pattern, lineup
from lloom.core.offer import canonical
from lloom.core.rates import Limits
from lloom.core.settings import Model


class Engine(Protocol):
    """One configured backend. `start` comes first; it may be started again after `close`."""

    name: str
    limits: Limits

    async def start(self) -> None:
        """Makes ready. ConfigError when the backend cannot work as configured."""
        ...

    async def look(self) -> Lineup:
        """What is served now, as far as the backend says; may be asked again at any time.

        RetryElsewhere when the backend is not there, or serves nothing for another reason that may pass.
        """
        ...

    def stream(self, operation: Operation, model: str, body: bytes) -> AsyncGenerator[bytes, None]:
        """The answer to `body` (JSON) as SSE bytes, cut anywhere, the usage chunk and `[DONE]` included.

        `model` is one of the offered ids, `operation` one that it is offered for. `aclose()`, or cancelling the task that
        waits for the next bytes, stops the generation. Raises RetryElsewhere when this backend failed, CallerFault when the
        request would fail anywhere.
        """
        ...

    async def close(self) -> None:
        """Lets go of connections and memory; running streams break off."""
        ...


def catalogue(backend: str, models: Mapping[str, Model | None], able: Collection[Operation]) -> dict[str, Model | None]:
    """The configured models by canonical id, patterns as they are; checked. ConfigError names what is wrong.

    `able`: what the backend can do.
    """
    if not models:
        raise ConfigError(f"llm.{backend}.models is empty: name at least one model")
    found: dict[str, Model | None] = {}
    for name, model in models.items():
        where = f"llm.{backend}.models.{name}"
        try:
            key = name if is_pattern(name) else canonical(name)
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from error
        if key in found:
            raise ConfigError(f"{where}: listed twice (upper and lower case are the same model)")
        if model is not None and model.encoding is not None and model.encoding not in tokens.ENCODINGS:
            raise ConfigError(f"{where}.encoding: {model.encoding!r} is none of {', '.join(sorted(tokens.ENCODINGS))}")
        if model is not None and (unable := [each for each in model.operations or () if each not in able]):
            raise ConfigError(f"{where}.operations: this backend does not do {' or '.join(unable)}")
        found[key] = model
    return found


def named(backend: str, models: Mapping[str, Model], able: Collection[Operation], parallel: int) -> Lineup:
    """What a backend serves that is within this process, and lists nothing of itself."""
    return lineup(Common(backend, parallel, 0), catalogue(backend, models, able), {}, lambda _: None)


def pick(served: Mapping[str, Served], model: str) -> Served:
    """The model that is asked for; RetryElsewhere if it has just been withdrawn."""
    found = served.get(model)
    if found is None:
        raise RetryElsewhere(f"The model {model} is not served here any more.", status=404, code="model_not_found")
    return found


def secret(backend: str, variable: str | None) -> str | None:
    """The API key in the environment variable of that name, None if none is wanted; ConfigError if it is not set."""
    if variable is None:
        return None
    value = os.environ.get(variable, "").strip()
    if not value:
        raise ConfigError(f"llm={backend} needs an API key: set the environment variable {variable}")
    if not value.isascii() or not value.isprintable():
        raise ConfigError(f"the API key in {variable} has characters that no key has: copy it again")
    return value
