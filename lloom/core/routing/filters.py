"""Who cannot take a request, and why. It never says who is better, nor who is well."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from lloom.core.api.request import ApiRequest, Operation
from lloom.core.identity import NodeId
from lloom.core.offer import ModelOffer
from lloom.core.routing.candidate import Candidate, Nobody

_BYTES_PER_TOKEN: Final = 8
"""Text has at least a token for so many bytes: only what surely exceeds a context is ruled out here."""

_PROMPTS: Final[dict[Operation, str]] = {"chat": "messages", "completions": "prompt", "embeddings": "input"}
"""The field of a request that holds its prompt."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why one offer cannot take a request. `limit`: the offer's, where the request exceeds one; `seconds`: until it is over."""

    kind: Literal["operation", "features", "context", "output", "denied", "payment", "quota", "price"]
    text: str
    limit: int = 0
    seconds: float | None = None


Problem = Callable[[Candidate, ApiRequest], Misfit | None]
"""Why a candidate that costs money cannot be paid for a request, however small; None if it can, as far as that is known."""

NO_CHAIN: Final = "costs money, and this node has no chain: give it one (chain=…, accounting=batched)"


def pays_nobody(_candidate: Candidate, _request: ApiRequest) -> Misfit | None:
    """The `Problem` of a node without money."""
    return Misfit("payment", f"that {NO_CHAIN}")


@dataclass(frozen=True, slots=True)
class Spending:
    """What may be paid: prices as in quotes, None: any."""

    max_input: int | None = None
    max_output: int | None = None
    problem: Problem = pays_nobody

    def misfit(self, candidate: Candidate, request: ApiRequest) -> Misfit | None:
        """Why the candidate is too dear, or cannot be paid."""
        if candidate.payment is None:
            return None
        problem = self.problem(candidate, request)
        if problem is not None:
            return problem
        quote = candidate.quote
        for price, limit, name in (
            (quote.input_price, self.max_input, "input"),
            (quote.output_price, self.max_output, "output"),
        ):
            if limit is not None and price > limit:
                return Misfit("price", f"that takes more than routing.max_{name}_price ({limit})")
        return None


@dataclass(frozen=True, slots=True)
class Limits:
    """Whom we ask at all: those in `allow` (empty: everybody) who are not in `deny`, and who can be paid."""

    allow: frozenset[NodeId] = frozenset()
    deny: frozenset[NodeId] = frozenset()
    spending: Spending = field(default_factory=Spending)

    def misfit(self, candidate: Candidate, request: ApiRequest) -> Misfit | None:
        """Why the candidate is not asked, whatever for; or not paid for `request`."""
        if candidate.executor in self.deny:
            return Misfit("denied", "that routing.deny names")
        if self.allow and candidate.executor not in self.allow:
            return Misfit("denied", "that routing.allow does not name")
        return self.spending.misfit(candidate, request)


def misfit(candidate: Candidate, request: ApiRequest, limits: Limits) -> Misfit | None:
    """The first reason for which `candidate` cannot take `request`; None if it can."""
    return _unfit(candidate.terms, request) or limits.misfit(candidate, request)


def nobody_fits(misfits: Mapping[NodeId, Misfit], request: ApiRequest) -> Nobody:
    """What the caller is told: `misfits` has a reason for every executor there is."""
    kinds = {misfit.kind for misfit in misfits.values()}
    limit = max(misfit.limit for misfit in misfits.values())
    if kinds == {"operation"}:
        reason = f"The model {request.model} does not do {request.operation}: no executor offers it for that."
        return Nobody(reason, "unsupported_operation", "model")
    if kinds == {"context"}:
        reason = f"The prompt is longer than {request.model} takes: its context is {limit} tokens."
        return Nobody(reason, "context_length_exceeded", _PROMPTS[request.operation])
    if kinds == {"output"}:
        return Nobody(f"{request.model} writes at most {limit} tokens in one answer.", "invalid_value", "max_tokens")
    texts = [misfit.text for misfit in misfits.values()]
    parts = [f"{texts.count(text)} {text}" for text in dict.fromkeys(texts)]
    reason = f"No executor of {request.model} can take this request: {'; '.join(parts)}."
    if kinds == {"features"}:  # clients would try a 503 again and again
        return Nobody(reason, "unsupported_feature")
    if kinds == {"price"}:
        return Nobody(reason, "price")
    if "quota" in kinds:
        waits = [misfit.seconds for misfit in misfits.values() if misfit.seconds is not None]
        return Nobody(reason, "insufficient_quota", retry_after=min(waits, default=None))
    return Nobody(reason, "payment_required" if kinds <= {"price", "payment"} else "no_executor")


def _unfit(terms: ModelOffer, request: ApiRequest) -> Misfit | None:
    if request.operation not in terms.operations:
        return Misfit("operation", f"without {request.operation}")
    lacking = request.features.difference(terms.features)
    if lacking:
        return Misfit("features", f"without {', '.join(sorted(lacking))}")
    if request.text_bytes // _BYTES_PER_TOKEN >= terms.context:
        return Misfit("context", f"with a context of {terms.context} tokens", terms.context)
    if request.max_output is not None and request.max_output > terms.max_output and not request.at_most:
        return Misfit("output", f"with at most {terms.max_output} output tokens", terms.max_output)
    return None
