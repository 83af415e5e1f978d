"""What an executor serves: its Workers and their backends. It holds names of keys, never keys."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from lloom.core.api.request import Operation
from lloom.core.settings.base import Count, Group, Price, RequestSeconds, Seconds

Feature = Literal["tools", "json", "json_schema", "vision", "audio", "reasoning", "logprobs", "prefill", "seed"]
"""What a model can do beyond plain chat."""


class Resources(Group, frozen=True):
    """What Ray reserves for one Worker."""

    num_cpus: Annotated[float, Meta(ge=0)]
    num_gpus: Annotated[float, Meta(ge=0)]


class ExecutorSettings(Group, frozen=True):
    workers: Annotated[int, Meta(ge=1, le=1024)]
    worker: Resources
    max_body: Count
    """Largest accepted request body in bytes."""
    bodies: Count
    """Bytes of all of them in a Worker's memory."""
    queue: Annotated[int, Meta(ge=0, le=100_000)]
    """Requests that may wait for a free place of a backend."""
    queue_seconds: Seconds
    request_seconds: RequestSeconds
    """Longest time one request may run."""
    requests_per_client: Count
    """Requests at once from one client; addresses cost nothing, so `parallel` bounds the whole."""
    replay_bytes: Annotated[int, Meta(ge=0, le=1_000_000_000)]
    """Bytes of answers in a Worker's memory; 0: none is kept."""
    replay_seconds: Seconds
    """How long an answer is kept that is over, and one that its client lost waits for that."""
    discovery_seconds: Seconds
    """Pause between two looks at what backends serve, and the longest one between two tries to reach one."""
    discovered_models: Annotated[int, Meta(ge=1, le=512)]
    """Models of one backend that are offered without being named."""


class Model(Group, frozen=True):
    """One model of a backend, or all that fit a pattern. None: as the patterns say that fit; else, of context, max_output and
    features, as the backend says, or as LiteLLM's map has it."""

    context: Count | None = None
    """Tokens, prompt and answer together."""
    max_output: Count | None = None
    name: str | None = None
    """What the backend calls it; None: as we do."""
    aliases: tuple[str, ...] = ()
    """Further ids in the network, under the same terms."""
    encoding: str | None = None
    """The tiktoken encoding it is billed by; o200k_base where nothing says another one."""
    operations: Annotated[tuple[Operation, ...], Meta(min_length=1, max_length=3)] | None = None
    """What it can be asked to do; chat where nothing says more."""
    features: tuple[Feature, ...] | None = None
    input_price: Price | None = None
    """Nothing where nothing says more."""
    output_price: Price | None = None


class OpenAIBackend(Group, frozen=True, tag_field="kind", tag="openai"):
    """Any endpoint that speaks OpenAI: bytes go through as they are."""

    base_url: str
    provider: str | None
    """What kind of server it is, in LiteLLM's words: says where it tells of its models, and what LiteLLM's map knows of them."""
    models: dict[str, Model | None]
    """By id in the network, or by a pattern (`*`) over what it lists; None: not offered."""
    parallel: Count
    requests_per_minute: Count | None
    """Of all Workers together, in even shares; None: no limit."""
    tokens_per_minute: Count | None
    key_env: str | None
    """Name of the variable with the API key; None: no key is sent."""
    limit_field: Literal["max_tokens", "max_completion_tokens"]
    """How a chat's limit is called there: OpenAI's newest models know the one only, most other servers the other."""
    prefill_fields: dict[str, bool]
    """What a chat bears besides if its last message is the assistant's, so that the model continues that."""
    connect_seconds: Seconds
    idle_seconds: Seconds
    """Longest silence within an answer."""


class LiteLLMBackend(Group, frozen=True, tag_field="kind", tag="litellm"):
    """Any provider of LiteLLM."""

    provider: str
    """LiteLLM's prefix: anthropic, cohere, gemini, bedrock …"""
    models: dict[str, Model | None]
    """By id in the network, or by a pattern (`*`) over what LiteLLM's map has of this provider; None: not offered."""
    parallel: Count
    requests_per_minute: Count | None
    tokens_per_minute: Count | None
    key_env: str | None
    base_url: str | None
    idle_seconds: Seconds
    options: dict[str, str | int | float | bool]
    """Further keyword arguments of `litellm.acompletion` (region names and the like; no secrets)."""


class SmolLM2Backend(Group, frozen=True, tag_field="kind", tag="smollm2"):
    """The built-in model, run by xllamacpp."""

    models: dict[str, Model]
    parallel: Count
    threads: Annotated[int, Meta(ge=0, le=1024)]
    """0: as many as there are cores."""
    idle_seconds: Seconds


class Faults(Group, frozen=True):
    """What the mock does wrong, for tests: each a share of the requests, from 0 to 1."""

    error: Annotated[float, Meta(ge=0, le=1)]
    """Answers 500."""
    stall: Annotated[float, Meta(ge=0, le=1)]
    """Accepts and never answers."""
    cut: Annotated[float, Meta(ge=0, le=1)]
    """Closes the connection in the middle of the answer."""
    wrong_usage: Annotated[float, Meta(ge=0, le=1)]
    """Reports ten times the tokens."""
    seed: int


class MockBackend(Group, frozen=True, tag_field="kind", tag="mock"):
    """A deterministic OpenAI-like server within the Worker."""

    models: dict[str, Model]
    parallel: Count
    tokens: Count
    """Tokens of an answer where the request does not limit it."""
    first_token_seconds: Annotated[float, Meta(ge=0)]
    token_seconds: Annotated[float, Meta(ge=0)]
    faults: Faults
    idle_seconds: Seconds


Backend = OpenAIBackend | LiteLLMBackend | SmolLM2Backend | MockBackend
