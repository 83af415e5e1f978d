"""The network's models as OpenAI and Anthropic list them, in one: keys of both, and what they have no word for under `lloom`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from lloom.core.identity import NodeId
from lloom.core.offer import ModelOffer

_UNKNOWN_TIME: Final = "1970-01-01T00:00:00Z"
"""What Anthropic's API says where it does not know either."""


def page(models: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The list, which is never cut into pages."""
    ends = {"first_id": models[0]["id"], "last_id": models[-1]["id"]} if models else {"first_id": None, "last_id": None}
    return {"object": "list", "data": models, "has_more": False, **ends}


def listing(
    offered: Iterable[tuple[NodeId, ModelOffer]], reputation: Callable[[NodeId], float]
) -> list[dict[str, Any]]:
    """One object for each model, by name. Prices are smallest units of the payment token per million tokens, reputations what
    this client holds of executors, from 0 to 1.
    """
    models: defaultdict[str, dict[NodeId, ModelOffer]] = defaultdict(dict)
    for executor, offer in offered:
        models[offer.id][executor] = offer
    return [_model(name, models[name], reputation) for name in sorted(models)]


def _model(name: str, by: dict[NodeId, ModelOffer], reputation: Callable[[NodeId], float]) -> dict[str, Any]:
    offers = by.values()
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "lloom",
        "type": "model",
        "display_name": name,
        "created_at": _UNKNOWN_TIME,
        "lloom": {
            "executors": len(offers),
            "context": max(offer.context for offer in offers),
            "max_output": max(offer.max_output for offer in offers),
            "operations": sorted({operation for offer in offers for operation in offer.operations}),
            "features": sorted({feature for offer in offers for feature in offer.features}),
            "input_price": _range(offer.input_price for offer in offers),
            "output_price": _range(offer.output_price for offer in offers),
            "reputation": _range(round(reputation(executor), 2) for executor in by),
        },
    }


def _range(numbers: Iterable[float]) -> dict[str, float]:
    known = list(numbers)
    return {"min": min(known), "max": max(known)}
