"""Queries to a catalogue, answered page by page. It changes nothing and verifies nothing.

A page names the last thing on it; the next one begins after that. So whatever stays in the catalogue is on exactly one page,
whatever else comes and goes meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from lloom.core.catalogue import Catalogue
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
_BACKENDS: Final = 64
"""Backends in the statistics: the most frequent ones."""


def answer(catalogue: Catalogue, call: CatalogueCall, now: float, validators: int = 1) -> Answered:
    """The page that `call` asks for. `validators`: how many there are, for the statistics."""
    match call.query:
        case Models():
            return _models(catalogue, call.after, call.limit, now)
        case Search() as query:
            return _search(catalogue, query, call, now)
        case Statistics():
            return numbers(catalogue, now, validators)


def _models(catalogue: Catalogue, after: bytes, limit: int, now: float) -> ModelsPage:
    summaries = [summary for name in sorted(catalogue.by_model) if (summary := _summary(catalogue, name, now))]
    rest = [summary for summary in summaries if summary.id.encode() > after]
    last = rest[limit - 1].id.encode() if len(rest) > limit else b""
    return ModelsPage(tuple(rest[:limit]), last, len(summaries))


def _search(catalogue: Catalogue, query: Search, call: CatalogueCall, now: float) -> OffersPage:
    found = [each for each in _candidates(catalogue, query) if _fits(catalogue, each, query, now)]
    rest = [executor for executor in found if executor > call.after]
    listings: list[Listing] = []
    room = _ROOM
    for executor in rest[: call.limit]:
        entry = catalogue.entries[executor]
        listing = Listing(executor, entry.sealed, entry.statements(now))
        room -= len(listing.offer) + sum(map(len, listing.vouches)) + _OVERHEAD
        if room < 0 and listings:
            break
        listings.append(listing)
    last = bytes(listings[-1].executor) if len(listings) < len(rest) else b""
    return OffersPage(tuple(listings), last, len(found))


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


def _candidates(catalogue: Catalogue, query: Search) -> Sequence[NodeId]:
    """Who may fulfil `query`, sorted, by the most telling of its conditions."""
    if query.executors:
        return sorted({NodeId(executor) for executor in query.executors} & catalogue.entries.keys())
    return catalogue.by_model.get(query.model, []) if query.model else catalogue.order


def _fits(catalogue: Catalogue, executor: NodeId, query: Search, now: float) -> bool:
    """Whether one model of a living offer fulfils all that `query` wants of a model."""
    entry = catalogue.entries[executor]
    return entry.living(now) and any(_fulfils(model, query) for model in entry.offer.models)


def _fulfils(model: ModelOffer, query: Search) -> bool:
    return all(holds(model, query) for holds in _CONDITIONS)


_CONDITIONS: Final[tuple[Callable[[ModelOffer, Search], bool], ...]] = (
    lambda model, query: not query.model or model.id == query.model,
    lambda model, query: set(query.features) <= set(model.features),
    lambda model, query: model.context >= query.context,
    lambda model, query: query.input_price is None or model.input_price <= query.input_price,
    lambda model, query: query.output_price is None or model.output_price <= query.output_price,
    lambda model, query: not query.backend or model.backend == query.backend,
)


def _summary(catalogue: Catalogue, name: str, now: float) -> ModelSummary | None:
    """All living offers of one model in a line; None if there are none."""
    entries = (catalogue.entries[executor] for executor in catalogue.by_model[name])
    terms = [model for entry in entries if entry.living(now) and (model := entry.offer.model(name))]
    if not terms:
        return None
    features = sorted({feature for model in terms for feature in model.features})
    return ModelSummary(
        name,
        len(terms),
        max(model.context for model in terms),
        tuple(features[:32]),
        _span(model.input_price for model in terms),
        _span(model.output_price for model in terms),
    )


def _span(prices: Iterable[int]) -> tuple[int, int]:
    known = list(prices)
    return min(known), max(known)
