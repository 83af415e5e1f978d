"""Who gets a request: filters, then who is ready, then a policy. It draws from the `rng` it is given and asks nobody."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from lloom.core.api.request import ApiRequest
from lloom.core.identity import NodeId
from lloom.core.reputation.score import UNKNOWN
from lloom.core.routing.affinity import fraction
from lloom.core.routing.candidate import Candidate, Choice, Entrant, Nobody
from lloom.core.routing.filters import Misfit, misfit, nobody_fits
from lloom.core.routing.outcomes import Outcomes, Place
from lloom.core.routing.policies import POLICIES, Contest
from lloom.core.routing.readiness import Later, Tier, readiness
from lloom.core.routing.rules import Rules
from lloom.core.routing.score import Scale, alone, scale

_UNKNOWN_SECONDS: Final = 1.0
"""When to ask again where nothing is known."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The rules for a model, and what is remembered of all."""

    rules: Rules
    outcomes: Outcomes

    def choose(
        self,
        candidates: Sequence[Candidate],
        request: ApiRequest,
        tried: Collection[Place],
        now: float,
        rng: Random,
    ) -> Choice | Nobody:
        """The candidate to ask next, other than those `tried`. `now` counts seconds on any steady clock."""
        fit = self.fit(candidates, request)
        if isinstance(fit, Nobody):
            return fit
        failed = {executor for executor, _, _ in tried}
        left = [each for each in fit if each.place not in tried] if tried else fit
        ready: dict[Tier, list[Entrant]] = {}
        later: list[tuple[Entrant, Later]] = []
        for each in self.entrants(left, now):
            stand = self.readiness(each, failed)
            if isinstance(stand, Later):
                later.append((each, stand))
            else:
                ready.setdefault(stand, []).append(each)
        if ready:
            return self._among(ready[min(ready)], len(fit), request, first_try=not tried, now=now, rng=rng)
        resort = _last_resort(later)
        return self._choice(resort, len(fit), exploring=False) if resort else self._nobody_now(fit, later, now)

    def entrants(self, candidates: Sequence[Candidate], now: float) -> list[Entrant]:
        """Each, and how it stands at `now`."""
        return [Entrant(each, self.outcomes.standing(each.place, now)) for each in candidates]

    def readiness(self, entrant: Entrant, failed: Collection[NodeId]) -> Tier | Later:
        """As `readiness`, by these rules."""
        return readiness(entrant, failed, heedless=not self.rules.reputation)

    def scale(self, among: Sequence[Entrant], wanted: int | None) -> Scale:
        """What `among`, at least one, are compared by; `wanted`: as in `scale`."""
        usual = self.outcomes.length(among[0].candidate.terms.id)
        return scale(among, usual, wanted, reputation=self.rules.reputation)

    def fit(self, candidates: Sequence[Candidate], request: ApiRequest) -> list[Candidate] | Nobody:
        """Those who could take `request` if they were well."""
        rules = self.rules
        named = candidates
        if rules.policy == "pinned":
            named = [each for each in candidates if each.executor in rules.pinned]
        if not named:
            return Nobody(f"None of the executors that routing.executors names offers {request.model}.")
        misfits: dict[NodeId, Misfit] = {}
        able = []
        for each in named:
            why = misfit(each, request, rules.limits)
            if why is None:
                able.append(each)
            else:
                misfits[each.executor] = why
        return able or nobody_fits(misfits, request)

    def _among(
        self, ready: list[Entrant], of: int, request: ApiRequest, *, first_try: bool, now: float, rng: Random
    ) -> Choice:
        """Those that answered us, or of whom others say so, if there are any; and newcomers now and then, first.

        Identities are free, and many of them may be nobody: no request may fail of them, and few should wait for one.
        """
        pinned = self.rules.policy == "pinned"
        exploring = first_try and not pinned and self._explores(request.affinity, now, rng)
        all_count = exploring or pinned or len(ready) == 1
        among = ready if all_count else [each for each in ready if each.standing.hope > UNKNOWN] or ready
        if len(among) == 1:
            return self._choice(among[0], of, exploring=exploring)
        contest = Contest(among, self.scale(among, request.max_output), self.rules, request.affinity, exploring)
        chosen = POLICIES[self.rules.policy](contest, rng)
        return Choice(chosen.entrant.candidate, self.rules.policy, chosen.score, of, exploring)

    def _explores(self, key: bytes, now: float, rng: Random) -> bool:
        """All requests of one conversation do, or none: else newcomers would cost others their caches.

        The share falls with what newcomers are worth: who floods the network with identities that are nobody is soon ignored.
        """
        drawn, most = fraction(key) if key else rng.random(), self.rules.explore
        return drawn < most and drawn < most * min(1.0, 2 * self.outcomes.newcomers(now)) ** 2

    def _choice(self, chosen: Entrant, of: int, *, exploring: bool) -> Choice:
        """Of the only one there is."""
        score = alone(chosen, reputation=self.rules.reputation, hopeful=exploring)
        return Choice(chosen.candidate, self.rules.policy, score, of, exploring)

    def _nobody_now(self, fit: Sequence[Candidate], later: Sequence[tuple[Entrant, Later]], now: float) -> Nobody:
        """Everybody was tried, rests, or has enough to do."""
        who, model = _count(len({each.executor for each in fit})), fit[0].terms.id
        soonest = min((self._seconds(each, stand) for each, stand in later), default=None)
        if not any(stand.busy for _, stand in later):
            wait = min(self.outcomes.rests(each.place, now) for each in fit) if soonest is None else soonest
            reason = f"{who} of {model} failed a moment ago; the next try is due in {wait:.0f} s."
            return Nobody(reason, retry_after=wait, soon=bool(later))
        texts = [stand.text for _, stand in later]
        parts = "; ".join(f"{texts.count(text)} {text}" for text in dict.fromkeys(texts))
        return Nobody(f"{who} of {model} is busy: {parts}.", "busy", retry_after=soonest, soon=True)

    def _seconds(self, each: Entrant, stand: Later) -> float:
        """Until it can be asked; where requests of ours have to end first, as long as the next one takes to, on average."""
        if stand.seconds is not None:
            return stand.seconds
        whole = self.scale([each], None).seconds(each)
        return _UNKNOWN_SECONDS if whole is None else whole / max(1, each.standing.load)


def _last_resort(later: Sequence[tuple[Entrant, Later]]) -> Entrant | None:
    """Of those that should rest the one with the least rest left: it may be back, and the caller has nobody else.

    One request at a time finds that out; the others are not made to wait for it.
    """
    idle = [(wait.seconds or 0.0, number) for number, (_, wait) in enumerate(later) if not wait.hopeless]
    return later[min(idle)[1]][0] if idle else None


def _count(number: int) -> str:
    return "The only executor" if number == 1 else f"Every one of {number} executors"
