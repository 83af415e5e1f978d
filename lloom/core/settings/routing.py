"""Who is asked, how long is waited, and what is different for some models."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from lloom.core.settings.base import Group, Price, RequestSeconds, Seconds, Share

Policy = Literal["balanced", "cheapest", "fastest", "pinned"]
Attempts = Annotated[int, Meta(ge=1, le=32)]
Continuations = Annotated[int, Meta(ge=0, le=32)]
Waiting = Annotated[int, Meta(ge=0, le=100_000)]


class ModelRouting(Group, frozen=True):
    """What of `routing` is different for some models; what is not said stays as it is."""

    policy: Policy | UnsetType = UNSET
    executors: tuple[str, ...] | UnsetType = UNSET
    allow: tuple[str, ...] | UnsetType = UNSET
    deny: tuple[str, ...] | UnsetType = UNSET
    attempts: Attempts | UnsetType = UNSET
    continuations: Continuations | UnsetType = UNSET
    first_token_seconds: Seconds | UnsetType = UNSET
    between_tokens_seconds: Seconds | UnsetType = UNSET
    total_seconds: RequestSeconds | UnsetType = UNSET
    max_input_price: Price | UnsetType | None = UNSET
    max_output_price: Price | UnsetType | None = UNSET
    affinity: Share | UnsetType = UNSET
    explore: Share | UnsetType = UNSET
    hedge_share: Share | UnsetType = UNSET
    reputation: Share | UnsetType = UNSET
    queue: Waiting | UnsetType = UNSET
    queue_seconds: Seconds | UnsetType = UNSET


class RoutingSettings(Group, frozen=True):
    policy: Policy
    executors: tuple[str, ...]
    """Only these addresses (policy=pinned)."""
    allow: tuple[str, ...]
    """Executors' addresses; empty: everybody."""
    deny: tuple[str, ...]
    attempts: Attempts
    continuations: Continuations
    """How often an answer that broke off is taken up by another executor."""
    first_token_seconds: Seconds
    """From the request to an executor to its first content."""
    between_tokens_seconds: Seconds
    total_seconds: RequestSeconds
    cooldown_seconds: Seconds
    """How long an executor that failed is passed over (doubles with every further failure)."""
    memory_seconds: Seconds
    """An outcome of so long ago weighs half of one of now."""
    directory_seconds: Seconds
    """Age at which what the directory knows of a model is asked anew, behind the answer."""
    negative_seconds: Seconds
    """How long it is remembered that nobody serves a model, or that an executor cannot be reached."""
    max_input_price: Price | None
    """Executors that take more for a million tokens are not asked; None: no limit."""
    max_output_price: Price | None
    grace_seconds: Seconds
    """How long the first usable executor of a lookup waits for others to choose from."""
    affinity: Share
    """How much worse than another one the executor may be that has the beginning of a prompt in its cache; 0: does not matter."""
    explore: Share
    """Of the requests: those for which newcomers count as well as others."""
    hedge_share: Share
    """Of the requests: those that may be sent to a second executor while the first one is unusually late."""
    reputation: Share
    """Of an executor's score: what is lost without any reputation; 0: reputations do not matter."""
    reputation_seconds: Seconds
    """Evidence about an executor of so long ago weighs half of that of now."""
    queue: Waiting
    """Requests for one model that may wait while all its executors are busy."""
    queue_seconds: Seconds
    aliases: dict[str, tuple[str, ...]]
    """Other names of models: what each stands for, in order of preference; patterns allowed."""
    models: dict[str, ModelRouting]
    """What is different for some models, by their ids or patterns of them."""
