"""What every backend looks like to a Worker. It never talks to one itself."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Collection, Mapping
from typing import Protocol

from lloom.core import tokens
from lloom.core.api.request import Operation
from lloom.core.errors import ConfigError
from lloom.core.offer import ModelOffer, canonical
from lloom.core.settings import Model


class Engine(Protocol):
    """One configured backend. `start` comes first; it may be started again after `close`."""

    name: str

    async def start(self) -> tuple[ModelOffer, ...]:
        """Makes ready and tells what is served. ConfigError when the backend cannot work as configured."""
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


def catalogue(backend: str, models: Mapping[str, Model], able: Collection[Operation]) -> dict[str, Model]:
    """The configured models by canonical id, checked; ConfigError names what is wrong. `able`: what the backend can do."""
    if not models:
        raise ConfigError(f"llm.{backend}.models is empty: name at least one model")
    found: dict[str, Model] = {}
    for name, model in models.items():
        where = f"llm.{backend}.models.{name}"
        try:
            key = canonical(name)
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from error
        if key in found:
            raise ConfigError(f"{where}: listed twice (upper and lower case are the same model)")
        if model.encoding not in tokens.ENCODINGS:
            raise ConfigError(f"{where}.encoding: {model.encoding!r} is none of {', '.join(sorted(tokens.ENCODINGS))}")
        if unable := [each for each in model.operations if each not in able]:
            raise ConfigError(f"{where}.operations: this backend does not do {' or '.join(unable)}")
        found[key] = model
    return found


def offers(backend: str, models: Mapping[str, Model], parallel: int) -> tuple[ModelOffer, ...]:
    """The terms of a catalogue."""
    return tuple(
        ModelOffer(
            id=name,
            context=model.context,
            max_output=min(model.max_output or model.context, model.context),
            parallel=parallel,
            encoding=model.encoding,
            operations=model.operations,
            features=model.features,
            backend=backend,
            input_price=model.input_price,
            output_price=model.output_price,
        )
        for name, model in models.items()
    )


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
