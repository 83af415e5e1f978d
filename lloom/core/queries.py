"""Queries to a catalogue, answered page by page. It changes nothing and verifies nothing.

A page names the last thing that was looked at; the next one begins after that. So whatever stays in the catalogue is on exactly
one page, whatever else comes and goes meanwhile. A page costs a bounded amount of work, however much there is and however little
of it fits: strangers may ask for many.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from lloom.core.catalogue import Catalogue, Entry
from lloom.core.identity import NodeId
from lloom.core.messages import (
    MAX_PAGE,
    Answered,
    CatalogueCall,
    Listing,
    Models,
    ModelsPage,
    ModelSummary,
    Numbers,
    OffersPage,
    Search,
    Statistics,
)
from lloom.core.offer import ModelOffer

_OVERHEAD: Final = 64
"""Bytes of a listing beside its sealed parts, at most."""
_ROOM: Final = MAX_PAGE - 4096
_WORK: Final = 4000
"""Models that are looked at for one page: a few milliseconds."""
_POPULAR: Final = 16
"""Executors from which on the summary of a model is kept for a moment, as the statistics are."""
_KEPT_SECONDS: Final = 2.0
_SUMMARIES: Final = 4096
_BACKENDS: Final = 64
"""Backends in the statistics: the most frequent ones."""

Holds = Callable[[ModelOffer], bool]


class Answers:
    """Answers from `catalogue`. Only counts may be a moment old: what is listed is what there is."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._summaries: dict[str, tuple[float, ModelSummary | None]] = {}
        self._numbers: tuple[float, Numbers] | None = None

    def answer(self, call: CatalogueCall, now: float, validators: int = 1) -> Answered:
        """The page that `call` asks for. `validators`: how many there are, for the statistics."""
        match call.query:
            case Models():
                return self._models(call.after, call.limit, now)
            case Search() as query:
                return _search(self._catalogue, query, call, now)
            case Statistics():
                return self._statistics(now, validators)

    def _models(self, after: bytes, limit: int, now: float) -> ModelsPage:
        names = self._catalogue.names
        summaries: list[ModelSummary] = []
        work, room, last = _WORK, _ROOM, ""
        for index in range(bisect_right(names, after.decode(errors="replace")), len(names)):
            if len(summaries) == limit or work <= 0:
                return ModelsPage(tuple(summaries), last.encode(), len(names))
            work -= self._cost(names[index], now)
            if (summary := self._summary(names[index], now)) is not None:
                room -= len(msgspec.msgpack.encode(summary))
                if room < 0:
                    return ModelsPage(tuple(summaries), last.encode(), len(names))
                summaries.append(summary)
            last = names[index]
        return ModelsPage(tuple(summaries), b"", len(names))

    def _cost(self, name: str, now: float) -> int:
        return 1 if self._kept(name, now) else 1 + len(self._catalogue.by_model[name])

    def _kept(self, name: str, now: float) -> bool:
        kept = self._summaries.get(name)
        return kept is not None and 0 <= now - kept[0] < _KEPT_SECONDS

    def _summary(self, name: str, now: float) -> ModelSummary | None:
        if self._kept(name, now):
            return self._summaries[name][1]
        summary = _summary(self._catalogue, name, now)
        if len(self._catalogue.by_model[name]) >= _POPULAR:
            if len(self._summaries) >= _SUMMARIES:
                self._summaries.clear()
            self._summaries[name] = now, summary
        return summary

    def _statistics(self, now: float, validators: int) -> Numbers:
        if self._numbers is None or not 0 <= now - self._numbers[0] < _KEPT_SECONDS:
            self._numbers = now, numbers(self._catalogue, now, validators)
        return self._numbers[1]


def numbers(catalogue: Catalogue, now: float, validators: int) -> Numbers:
    """What `catalogue` holds, counted. `validators`: this one and those it hears from."""
    living = [entry for entry in catalogue.entries.values() if entry.living(now)]
    backends = Counter(backend for entry in living for backend in {model.backend for model in entry.offer.models})
    return Numbers(
        executors=len(living),
        models=len({model.id for entry in living for model in entry.offer.models}),
        workers=sum(len(entry.offer.endpoints) for entry in living),
        vouched=sum(entry.vouched(now) for entry in living),
        relayed=sum(all(endpoint.via for endpoint in entry.offer.endpoints) for entry in living),
        validators=validators,
        backends=dict(backends.most_common(_BACKENDS)),
    )


def _search(catalogue: Catalogue, query: Search, call: CatalogueCall, now: float) -> OffersPage:
    candidates, conditions = _candidates(catalogue, query), _conditions(query)
    listings: list[Listing] = []
    room, work, last = _ROOM, _WORK, b""
    for index in range(bisect_right(candidates, NodeId(call.after)), len(candidates)):
        entry = catalogue.entries[candidates[index]]
        if len(listings) == call.limit or work <= 0:
            return OffersPage(tuple(listings), last, len(candidates))
        work -= 1 + len(entry.offer.models)
        if _fits(entry, conditions, now):
            listing = Listing(candidates[index], entry.sealed, entry.statements(now))
            room -= len(listing.offer) + sum(map(len, listing.vouches)) + _OVERHEAD
            if room < 0 and listings:
                return OffersPage(tuple(listings), last, len(candidates))
            listings.append(listing)
        last = bytes(candidates[index])
    return OffersPage(tuple(listings), b"", len(candidates))


def _candidates(catalogue: Catalogue, query: Search) -> Sequence[NodeId]:
    """Who may fulfil `query`, sorted, by the most telling of its conditions."""
    if query.executors:
        return sorted({NodeId(executor) for executor in query.executors} & catalogue.entries.keys())
    return catalogue.by_model.get(query.model, []) if query.model else catalogue.order


def _fits(entry: Entry, conditions: Sequence[Holds], now: float) -> bool:
    """Whether one model of a living offer fulfils all `conditions`."""
    return entry.living(now) and any(all(holds(model) for holds in conditions) for model in entry.offer.models)


def _conditions(query: Search) -> list[Holds]:
    """What `query` wants of a model."""
    features, highest, dearest = set(query.features), query.input_price, query.output_price
    wanted: list[tuple[bool, Holds]] = [
        (bool(query.model), lambda model: model.id == query.model),
        (bool(features), lambda model: features <= set(model.features)),
        (bool(query.context), lambda model: model.context >= query.context),
        (highest is not None, lambda model: highest is None or model.input_price <= highest),
        (dearest is not None, lambda model: dearest is None or model.output_price <= dearest),
        (bool(query.backend), lambda model: model.backend == query.backend),
    ]
    return [holds for asked, holds in wanted if asked]


def _summary(catalogue: Catalogue, name: str, now: float) -> ModelSummary | None:
    """All living offers of one model in a line; None if there are none."""
    entries = (catalogue.entries[executor] for executor in catalogue.by_model[name])
    terms = [model for entry in entries if entry.living(now) and (model := entry.offer.model(name))]
    if not terms:
        return None
    features = sorted({feature for model in terms for feature in model.features})
    inputs, outputs = [model.input_price for model in terms], [model.output_price for model in terms]
    return ModelSummary(
        name,
        len(terms),
        max(model.context for model in terms),
        tuple(features[:32]),
        (min(inputs), max(inputs)),
        (min(outputs), max(outputs)),
    )
