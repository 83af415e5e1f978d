"""Models and aliases as OpenAI and Anthropic list them, in one: keys of both, and what they have no word for under `lloom`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from lloom.core.identity import NodeId
from lloom.core.offer import ModelOffer

Offered = tuple[NodeId, ModelOffer]
"""Who offers what."""

_UNKNOWN_TIME: Final = "1970-01-01T00:00:00Z"
"""What Anthropic's API says where it does not know either."""


def page(models: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The list, which is never cut into pages."""
    ends = {"first_id": models[0]["id"], "last_id": models[-1]["id"]} if models else {"first_id": None, "last_id": None}
    return {"object": "list", "data": models, "has_more": False, **ends}


def listing(
    offered: Iterable[Offered], aliases: Mapping[str, Iterable[Offered]], reputation: Callable[[NodeId], float]
) -> list[dict[str, Any]]:
    """One object for each model and each alias, by name. Prices are smallest units of the payment token per million tokens,
    reputations what this client holds of executors, from 0 to 1.
    """
    models: defaultdict[str, list[Offered]] = defaultdict(list)
    for executor, offer in offered:
        models[offer.id].append((executor, offer))
    told = {name: _model(name, by, reputation) for name, by in models.items()}
    for alias, meant in aliases.items():
        by = list(meant)
        # Instead of a model of that name, if there is one: who asks for it gets what the alias stands for.
        told[alias] = _model(alias, by, reputation)
        told[alias]["lloom"]["alias_of"] = list(dict.fromkeys(offer.id for _, offer in by))
    return [told[name] for name in sorted(told)]


def _model(name: str, by: Sequence[Offered], reputation: Callable[[NodeId], float]) -> dict[str, Any]:
    executors, offers = {executor for executor, _ in by}, [offer for _, offer in by]
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "lloom",
        "type": "model",
        "display_name": name,
        "created_at": _UNKNOWN_TIME,
        "lloom": {
            "executors": len(executors),
            "context": max(offer.context for offer in offers),
            "max_output": max(offer.max_output for offer in offers),
            "operations": sorted({operation for offer in offers for operation in offer.operations}),
            "features": sorted({feature for offer in offers for feature in offer.features}),
            "input_price": _range(offer.input_price for offer in offers),
            "output_price": _range(offer.output_price for offer in offers),
            "reputation": _range(round(reputation(executor), 2) for executor in executors),
        },
    }


def _range(numbers: Iterable[float]) -> dict[str, float]:
    known = list(numbers)
    return {"min": min(known), "max": max(known)}
