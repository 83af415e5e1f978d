"""What a Worker's backends serve at this moment. It asks them again and again, and knows nothing of offers or clients."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from loguru import logger

from lloom.adapters.llm.engine import Engine
from lloom.core.errors import RetryElsewhere
from lloom.core.lineup import Lineup
from lloom.core.offer import ModelOffer

FIRST_RETRY_SECONDS: Final = 1.0
"""After a first failure; twice as long after each further one."""
FAILURES: Final = 2
"""In a row, after which the models of a backend that was there are withdrawn: one may be a hiccup."""


class Menu(Mapping[str, tuple[Engine, ModelOffer]]):
    """Engine and terms by model id. Of two backends that serve a model, the first one has it."""

    def __init__(self, engines: Sequence[Engine], pause: float) -> None:
        """`pause`: seconds between two looks at a backend, and the longest between two tries to reach one."""
        self.changed = asyncio.Event()
        self._engines = engines
        self._pause = pause
        self._lineups: dict[str, Lineup] = {}
        self._failures = dict.fromkeys((engine.name for engine in engines), 0)
        self._remarks: set[str] = set()
        self._served: dict[str, tuple[Engine, ModelOffer]] = {}

    def __getitem__(self, model: str) -> tuple[Engine, ModelOffer]:
        return self._served[model]

    def __iter__(self) -> Iterator[str]:
        return iter(self._served)

    def __len__(self) -> int:
        return len(self._served)

    @property
    def missing(self) -> list[str]:
        """Backends that serve nothing now."""
        return [engine.name for engine in self._engines if engine.name not in self._lineups]

    async def look(self) -> None:
        """Asks every backend once."""
        await asyncio.gather(*map(self._look, self._engines))

    async def run(self) -> None:
        """Asks again, for ever. `changed` is set whenever something else is served."""
        async with asyncio.TaskGroup() as group:
            for engine in self._engines:
                group.create_task(self._follow(engine))

    async def _follow(self, engine: Engine) -> None:
        while True:
            await asyncio.sleep(self.patience(engine.name))
            await self._look(engine)

    def patience(self, name: str) -> float:
        """Seconds until a backend is asked again."""
        failures = self._failures[name]
        return min(self._pause, FIRST_RETRY_SECONDS * 2 ** (failures - 1)) if failures else self._pause

    async def _look(self, engine: Engine) -> None:
        name = engine.name
        try:
            found = await engine.look()
        except RetryElsewhere as error:
            self._failures[name] = min(self._failures[name] + 1, 30)
            self._failed(name, error)
        else:
            if self._failures[name] and name not in self._lineups:
                logger.info("llm={} is there: it serves {}", name, ", ".join(found.served) or "nothing")
            self._failures[name] = 0
            self._lineups[name] = found
            self._remark(found)
        self._compose()

    def _failed(self, name: str, error: RetryElsewhere) -> None:
        failures = self._failures[name]
        if failures == FAILURES and self._lineups.pop(name, None) is not None:
            logger.warning("llm={}: {}; its models are withdrawn until it is back", name, error)
        elif failures == 1 and name not in self._lineups:
            logger.warning("llm={}: {}; its models will be offered as soon as it is there", name, error)

    def _remark(self, found: Lineup) -> None:
        """Says what its owner should know, once."""
        for remark in found.remarks:
            if remark not in self._remarks:
                self._remarks.add(remark)
                logger.warning("{}", remark)

    def _compose(self) -> None:
        served: dict[str, tuple[Engine, ModelOffer]] = {}
        for engine in self._engines:
            for model, each in self._lineups.get(engine.name, Lineup({})).served.items():
                served.setdefault(model, (engine, each.offer))
        if served != self._served:
            self._served = served
            self.changed.set()
