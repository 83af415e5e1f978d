"""The workers of one executor and what they serve together. It knows no clock and signs nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain

from lloom.core.offer import Endpoint, ModelOffer


@dataclass(frozen=True, slots=True)
class Enlisted:
    """One worker: where it listens, what it serves, when it was heard of last (Unix seconds), its relays."""

    endpoint: Endpoint
    models: tuple[ModelOffer, ...]
    heard: float
    relays: tuple[Endpoint, ...] = ()

    def ways(self, direct: frozenset[int] | None) -> tuple[Endpoint, ...]:
        """Where it is reached if the ports in `direct` (None: all) can be dialled."""
        return (self.endpoint,) if direct is None or self.endpoint.port in direct else self.relays


class Roster:
    """Who works here now. A worker that falls silent for `patience` seconds is no longer offered."""

    __slots__ = ("_patience", "_workers")

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._workers: dict[str, Enlisted] = {}

    def enlist(self, worker: str, endpoint: Endpoint, models: tuple[ModelOffer, ...], now: float) -> bool:
        """Takes `worker` in; whether that changes what is offered."""
        before = self._workers.get(worker)
        self._workers[worker] = Enlisted(endpoint, models, now, before.relays if before else ())
        return before is None or (before.endpoint, before.models) != (endpoint, models)

    def heard(self, worker: str, now: float) -> bool:
        """Notes a sign of life; False if the worker is not known (it should enlist again)."""
        known = self._workers.get(worker)
        if known is None:
            return False
        self._workers[worker] = replace(known, heard=now)
        return True

    def relayed(self, worker: str, relays: tuple[Endpoint, ...]) -> bool:
        """Notes through which relays `worker` is reached; whether that is news. A worker that is not known has none."""
        known = self._workers.get(worker)
        if known is None or known.relays == relays:
            return False
        self._workers[worker] = replace(known, relays=relays)
        return True

    def expire(self, now: float) -> list[str]:
        """Drops the workers that fell silent; their names."""
        silent = [name for name, worker in self._workers.items() if worker.heard + self._patience < now]
        for name in silent:
            del self._workers[name]
        return silent

    def ports(self) -> frozenset[int]:
        """Where the workers listen."""
        return frozenset(worker.endpoint.port for worker in self._workers.values())

    def endpoints(self, direct: frozenset[int] | None = None) -> tuple[Endpoint, ...]:
        """Where the workers are reached, in a stable order: at a port in `direct` (None: any), else through relays."""
        return tuple(sorted(set(chain.from_iterable(worker.ways(direct) for worker in self._workers.values()))))

    def models(self) -> tuple[ModelOffer, ...]:
        """What they serve; terms of a model that several serve are those of the first by name."""
        ordered = (self._workers[name] for name in sorted(self._workers))
        found: dict[str, ModelOffer] = {}
        for model in chain.from_iterable(worker.models for worker in ordered):
            found.setdefault(model.id, model)
        return tuple(found[model] for model in sorted(found))
