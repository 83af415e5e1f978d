"""A process that redeems a voucher and is killed at one point of it: python chain_victim.py URL JOURNAL CLIENT EXECUTOR POINT."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chain_support import COIN, FINNEY, Local, watching

from lloom.adapters.chain.rpc import Rpc
from lloom.adapters.journal import transactions
from lloom.core.identity import Identity


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying(what: Any, name: str, *, after: bool, when: Callable[..., bool] = lambda *_: True) -> None:
    """Has `what.name` kill the process, before or after its work."""
    true = getattr(what, name)

    def sync(*words: Any, **more: Any) -> Any:
        if not after:
            die()
        found = true(*words, **more)
        die()
        return found

    async def asynchronous(*words: Any, **more: Any) -> Any:
        if not when(*words):
            return await true(*words, **more)
        if not after:
            die()
        found = await true(*words, **more)
        die()
        return found

    setattr(what, name, asynchronous if asyncio.iscoroutinefunction(true) else sync)


def prepare(point: str) -> None:
    """`before-` or `after-` and: a function of the journal, or `broadcast`."""
    when, _, what = point.partition("-")
    if what == "broadcast":
        dying(Rpc, "call", after=when == "after", when=lambda _, method, *__: method == "eth_sendRawTransaction")
    else:
        dying(transactions, what, after=when == "after")


async def main(url: str, journal: str, client: str, executor: str, point: str) -> None:
    local, payer, payee = Local(url), Identity(bytes.fromhex(client)), Identity(bytes.fromhex(executor))
    async with watching(Path(journal), local.settings(), payee) as it:
        await it.chain.settle(COIN, [local.claim(payer, payee, FINNEY)])
        if point == "after-add":
            die()
        prepare(point)
        for _ in range(3):
            await it.chain.step()
            await local.mine()


asyncio.run(main(*sys.argv[1:]))
