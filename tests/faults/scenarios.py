"""The faults: what two of three executors do wrong, and what a caller may notice of it at most."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from lloom.adapters.llm.mock_server import Behaviour, MockServer
from lloom.core.messages import Done
from lloom.core.settings import Faults
from tests.faults import load
from tests.faults.load import Result
from tests.faults.network import PATIENCE, ROUTING, client
from tests.faults.sellers import BEGINNING, HANG_UP, TOKENS, Seller, lying, mute, process, refusing, serving, unsteady

REQUESTS, PARALLEL = 64, 16
HEALTHY = Faults(error=0, stall=0, cut=0, wrong_usage=0, seed=0)
Faulty = Callable[[Seller, str], AbstractAsyncContextManager[Any]]


@dataclass(frozen=True)
class Scenario:
    """`goes_on`: a streamed answer that has begun is completed all the same; else it may end with an error in band."""

    name: str
    faulty: Faulty
    goes_on: bool = True
    features: tuple[str, ...] = ("prefill",)
    fields: dict[str, Any] = field(default_factory=dict)
    pause: float = 0.0
    kill: bool = False
    """What `faulty` gives beside the executor is killed while it answers."""
    times: int = 1

    @property
    def budget(self) -> float:
        """Seconds that no caller waits longer than."""
        return ROUTING.total_seconds + self.pause


def upstream(fault: str) -> Faulty:
    """An honest executor whose backend commits `fault`."""
    return lambda seller, url: serving(seller, url, fault)


def liar(*script: Any) -> Faulty:
    """An executor that sends `script`."""
    return lambda seller, _: lying(seller, *script)


BEFORE = [
    Scenario("refused connection", lambda seller, _: refusing(seller)),
    Scenario("slow connect (no handshake)", lambda seller, _: mute(seller)),
    Scenario("backend: 500", upstream("500")),
    Scenario("backend: 503, Retry-After", upstream("503")),
    Scenario("backend: 429, Retry-After", upstream("429")),
    Scenario("backend: hangs before the first token", upstream("stall")),
    Scenario("backend: empty 200", upstream("empty")),
    Scenario("executor: nonsense before content", liar(b"data: nonsense\n\n")),
    Scenario("executor: ends without an answer", liar(Done(3, 2))),
    Scenario("executor: hangs up at once", liar(HANG_UP)),
]
WITHIN = [
    Scenario("backend: cut in the middle", upstream("cut")),
    Scenario("backend: stalls in the middle", upstream("pause")),
    Scenario("backend: malformed chunk", upstream("malformed")),
    Scenario("executor: killed (kill -9) while it answers", lambda seller, url: process(seller, url), kill=True),
]
NOBODY_GOES_ON = [
    Scenario(f"{each.name}, nobody can go on", each.faulty, goes_on=False, features=(), kill=each.kill)
    for each in WITHIN
]
REGENERATED = [
    Scenario(f"{each.name}, said again", each.faulty, features=(), fields={"temperature": 0}, kill=each.kill)
    for each in WITHIN
]
OTHERS = [
    Scenario("backend: usage ten times too high", upstream("wrong_usage")),
    Scenario("slow reader, longer than a stall", upstream("none"), pause=2 * PATIENCE),
    Scenario("executor: nonsense within", liar(BEGINNING, b"data: nonsense\n\n")),
    Scenario("executor: error within", liar(BEGINNING, b'data: {"error":{"message":"x"}}\n\n')),
    Scenario("executor: ends as if whole", liar(BEGINNING, Done(3, 2))),
    Scenario("executor: hangs up within", liar(BEGINNING, HANG_UP)),
    Scenario("connection: breaks twice, nobody else can go on", unsteady, features=(), kill=True, times=2),
]
ALL = [*BEFORE, *WITHIN, *REGENERATED, *NOBODY_GOES_ON, *OTHERS]


async def play(scenario: Scenario, requests: int = REQUESTS, parallel: int = PARALLEL) -> Result:
    """One fault at two executors that are asked first, beside a healthy one."""
    async with AsyncExitStack() as stack:
        token_seconds = 0.01 if scenario.kill else 0.0
        behaviour = Behaviour((), TOKENS, 0.0, token_seconds, HEALTHY)
        mock = await stack.enter_async_context(MockServer.run(behaviour, "127.0.0.1", 0))
        sellers, kills = [], []
        for price in (1, 2):
            seller = Seller(price, scenario.features)
            made = await stack.enter_async_context(scenario.faulty(seller, mock.url))
            sellers.append(seller)
            if scenario.kill:
                kills += [made[1]] * scenario.times
        good = Seller(3, scenario.features)
        await stack.enter_async_context(serving(good, mock.url, "none"))
        port = await stack.enter_async_context(client([*sellers, good]))
        return await load.run(port, requests, parallel, scenario.pause, _killing(kills), **scenario.fields)


def _killing(victims: list[Any]) -> Callable[[], None]:
    """Kills the next one of `victims` whenever five streams have begun."""
    heard = 0

    def hear() -> None:
        nonlocal heard
        heard += 1
        if victims and heard % 5 == 0:
            victims.pop(0).kill()

    return hear
