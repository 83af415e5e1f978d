"""What one key of the gateway may still take: requests and tokens a minute, places, a budget. It never reads a clock.

`now` is any clock that never goes back, `wall` the Unix time; both in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Final

from lloom.core.api.reading import unknown_model
from lloom.core.errors import LimitReached
from lloom.core.settings import GatewayKey

DAY: Final = 86_400
MONTH: Final = 30
"""Days of the longer budget: this one and those before it, in UTC."""
_MINUTE: Final = 60
_SOON: Final = 1.0
"""Seconds until a request may be over."""


class Bucket:
    """`capacity` units at once, and `per_minute` to refill it. What is used is known afterwards, so it may be in debt."""

    __slots__ = ("_at", "_level", "_rate", "capacity")

    def __init__(self, capacity: float, per_minute: float, now: float) -> None:
        self.capacity = capacity
        self._level = float(capacity)
        self._rate = per_minute / _MINUTE
        self._at = now

    def level(self, now: float) -> float:
        """Units that are there; negative: owed."""
        return min(self.capacity, self._level + (now - self._at) * self._rate)

    def wait(self, amount: float, now: float) -> float:
        """Seconds until `amount` may be taken. More than the capacity needs a full bucket, and leaves a debt."""
        lacking = min(amount, self.capacity) - self.level(now)
        return max(0.0, lacking / self._rate)

    def take(self, amount: float, now: float) -> None:
        """Takes `amount`, whatever is there; a negative one is given back."""
        self._level = min(self.capacity, self.level(now) - amount)
        self._at = now


class Budget:
    """Tokens, or money, by the day (days since 1970, UTC), and what is reserved of them."""

    __slots__ = ("_reserved", "_spent")

    def __init__(self, spent: Mapping[int, int]) -> None:
        self._spent = dict(spent)
        self._reserved = 0

    def wait(self, tokens: int, limit: int, days: int, wall: float) -> float:
        """Seconds until `tokens` fit into `limit` for the last `days` days; 0 if they do now. More than the limit fits once
        nothing else is in it. What is reserved is settled soon."""
        today = int(wall // DAY)
        room = limit - min(tokens, limit)
        for ahead in range(days):
            if (spent := self._since(today + ahead - days)) <= room:
                if ahead:
                    return max(0.0, (today + ahead) * DAY - wall)
                return 0.0 if spent + self._reserved <= room else _SOON
        return (today + days) * DAY - wall

    def reserve(self, tokens: int) -> None:
        """`tokens` may be spent soon."""
        self._reserved += tokens

    def settle(self, reserved: int, used: int, wall: float) -> tuple[int, int]:
        """Instead of `reserved`, `used` were spent; today, and all that was spent on it."""
        today = int(wall // DAY)
        self._reserved -= reserved
        self._spent[today] = self._spent.get(today, 0) + used
        for day in [day for day in self._spent if day <= today - MONTH]:
            del self._spent[day]
        return today, self._spent[today]

    def _since(self, day: int) -> int:
        return sum(tokens for when, tokens in self._spent.items() if when > day)


class Allowance:
    """The allowance of the key `name`; `spent`: its tokens by the day, as far as they are known from before."""

    def __init__(self, name: str, terms: GatewayKey, spent: Mapping[int, int], now: float) -> None:
        self.name = name
        self.terms = terms
        self._running = 0
        self._requests = _bucket(terms.requests_per_minute, now)
        self._tokens = _bucket(terms.tokens_per_minute, now)
        self._budget = Budget(spent)

    def allows(self, model: str) -> bool:
        """Whether one of the patterns fits the model's canonical id."""
        return any(fnmatchcase(model, pattern) for pattern in self.terms.models)

    def enter(self, now: float) -> None:
        """A request begins, and takes a place until `leave`; LimitReached if there is none, or too many came in a minute."""
        limit = self.terms.concurrent
        if limit is not None and self._running >= limit:
            raise LimitReached(f"This key has {limit} requests running already, as many as it may.", retry_after=1)
        if self._requests is not None:
            if wait := self._requests.wait(1, now):
                raise LimitReached(
                    f"This key may send {self._requests.capacity} requests a minute, and did.", retry_after=wait
                )
            self._requests.take(1, now)
        self._running += 1

    def leave(self) -> None:
        """A request is over."""
        self._running -= 1

    def reserve(self, model: str, tokens: int, now: float, wall: float) -> None:
        """Sets about `tokens` aside for a request, until `settle`. CallerFault (404) if the model is not for this key,
        LimitReached if they are not there."""
        if not self.allows(model):
            raise unknown_model(model)
        if self._tokens is not None and (wait := self._tokens.wait(tokens, now)):
            raise LimitReached(
                f"This key may use {self._tokens.capacity} tokens a minute, and this request takes about {tokens}.",
                retry_after=wait,
            )
        for limit, days in ((self.terms.tokens_per_day, 1), (self.terms.tokens_per_month, MONTH)):
            if limit is not None and (wait := self._budget.wait(tokens, limit, days, wall)):
                text = (
                    f"This key may use {limit} tokens in {'a day' if days == 1 else f'{days} days'}, and this request, which "
                    f"takes about {tokens}, does not fit into what is left of them."
                )
                raise LimitReached(text, code="insufficient_quota", retry_after=wait)
        self._budget.reserve(tokens)
        if self._tokens is not None:
            self._tokens.take(tokens, now)

    def settle(self, reserved: int, used: int, now: float, wall: float) -> tuple[int, int]:
        """What was reserved came to `used`; today (days since 1970), and all that was used on it: for the journal."""
        if self._tokens is not None:
            self._tokens.take(used - reserved, now)
        return self._budget.settle(reserved, used, wall)

    def headers(self, now: float) -> list[tuple[str, str]]:
        """OpenAI's `x-ratelimit-*` of what is limited; the reset is when the bucket is full again."""
        told = []
        for kind, bucket in (("requests", self._requests), ("tokens", self._tokens)):
            if bucket is not None:
                left = bucket.level(now)
                told += [
                    (f"x-ratelimit-limit-{kind}", str(bucket.capacity)),
                    (f"x-ratelimit-remaining-{kind}", str(max(0, int(left)))),
                    (f"x-ratelimit-reset-{kind}", f"{bucket.wait(bucket.capacity, now):.3f}s"),
                ]
        return told


def _bucket(limit: int | None, now: float) -> Bucket | None:
    return Bucket(limit, limit, now) if limit else None
