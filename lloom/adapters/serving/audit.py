"""Whether a backend counts tokens as clients will: looked at now and then, and told to the operator. It changes no bill."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Final

from loguru import logger

from lloom.core.billing.quote import Basis
from lloom.core.payment.counting import accepted
from lloom.core.settings import AccountingSettings

LOOK_SECONDS: Final = 60.0
"""Between two answers of one model that are counted here as well: it costs some tenths of a millisecond."""
WARN_SECONDS: Final = 3600.0
"""Between two warnings about one model."""


class Audit:
    """One for all models of a Worker, so it holds no more than it serves. `clock`: seconds on any steady clock."""

    def __init__(self, settings: AccountingSettings, clock: Callable[[], float] = monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._looked: dict[str, float] = {}
        self._warned: dict[str, float] = {}

    def due(self, model: str) -> bool:
        """Whether the next answer of `model` should be counted; that is taken as done."""
        return _passed(self._looked, model, self._clock(), LOOK_SECONDS)

    def compare(self, model: str, encoding: str, reported: tuple[int, int], counted: tuple[int, int]) -> None:
        """Tokens in and out, by the backend and by us. What is as far apart as clients do not accept is warned of."""
        for what, said, found in zip(("a prompt", "an answer"), reported, counted, strict=True):
            if self._alike(said, found) or not _passed(self._warned, model, self._clock(), WARN_SECONDS):
                continue
            logger.warning(
                "the backend of {} reports {} tokens of {} that has {} by {}: either it counts wrongly, or `encoding` does not "
                "fit the model. Clients hold what is claimed beyond their own count against this executor",
                model,
                said,
                what,
                found,
                encoding,
            )

    def _alike(self, one: int, other: int) -> bool:
        return max(one, other) <= accepted(min(one, other), Basis.BACKEND, self._settings)


def _passed(last: dict[str, float], model: str, now: float, seconds: float) -> bool:
    """Whether it is so long ago for `model`; then it is now."""
    if now - last.get(model, -seconds) < seconds:
        return False
    last[model] = now
    return True
