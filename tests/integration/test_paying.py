"""The client's part of an accounting actor as a purse reaches it, without Ray between them and with a chain that is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from accounting_support import place as journal_place
from payables_support import CLIENT, EXECUTOR, FakeContract, judged

from lloom.actors import outbox
from lloom.actors.accounting import Accounting
from lloom.actors.bank import Bank
from lloom.actors.place import Place
from lloom.adapters.chain.chain import Chain
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.payment.events import Seen
from lloom.core.payment.payable import LaneEntry
from lloom.core.payment.promises import Ask, Raised
from tests.money_support import chain


class FakeChain(FakeContract):
    """What an actor opens; `run` ends when told to, as a chain that turns out to be another one does."""

    def __init__(self) -> None:
        super().__init__()
        self.on_events: Callable[[Sequence[Seen]], None] | None = None
        self.closed = asyncio.Event()

    async def run(self) -> None:
        assert self.on_events is not None
        await asyncio.Event().wait()

    async def close(self) -> None:
        self.closed.set()


@pytest.fixture
async def opened(monkeypatch: pytest.MonkeyPatch) -> FakeChain:
    """The chain that the actor will find."""
    found = FakeChain()

    async def open_(*_arguments: Any) -> FakeChain:
        return found

    monkeypatch.setattr(Chain, "open", open_)
    monkeypatch.setattr(outbox, "RETRY_SECONDS", 0.01)
    return found


def place(home: Path, role: str = "client") -> Place:
    made: Any = journal_place(home, CLIENT)
    made.settings.role, made.settings.chain = role, {"anvil": chain()}
    made.provider_keys = dict
    return cast(Place, made)


@asynccontextmanager
async def serving(home: Path) -> AsyncIterator[Accounting]:
    subject = Accounting(place(home), "anvil")
    life = asyncio.create_task(subject.serve())
    try:
        async with asyncio.timeout(30):
            await subject.ready()
            yield subject
    finally:
        life.cancel()
        with suppress(asyncio.CancelledError):
            await life


def bank(subject: Accounting, script: list[Exception] | None = None) -> Bank:
    """A bank whose calls reach `subject`, after raising what `script` holds."""
    calls = list(script or ())

    async def ask(actor: str, method: str, *arguments: Any, seconds: float) -> Any:
        assert (actor, seconds > 0) == ("accounting-anvil", True)
        if calls:
            raise calls.pop(0)
        return await getattr(subject, method)(*arguments)

    return Bank(cast(Place, SimpleNamespace(ask=ask, settings=subject.place.settings)), "anvil")


async def test_a_purse_reaches_its_ledger_and_finds_it_again_after_a_restart(tmp_path: Path, opened: FakeChain) -> None:
    async with serving(tmp_path) as subject:
        reached = bank(subject)
        while (await reached.purchasing()).available is None:  # noqa: ASYNC110 - the chain is being opened
            await asyncio.sleep(0)
        assert await reached.lane(EXECUTOR.address) is None
        assert await reached.raise_ceiling(Ask(EXECUTOR.address, 0, 500, 500)) == Raised(500)
        reached.keep(judged(1))
        reached.keep(judged(2, "too many tokens"))
        await reached.close()
    assert opened.closed.is_set()
    async with serving(tmp_path) as subject:
        entry = await bank(subject).lane(EXECUTOR.address)
        assert entry is not None
        assert (entry.ceiling, entry.accepted, entry.left_out) == (500, 100, (2,))
        assert await bank(subject).adopt(EXECUTOR.address, LaneEntry(9)) == LaneEntry(9)


async def test_receipts_wait_for_a_ledger_that_is_away(tmp_path: Path, opened: FakeChain) -> None:
    async with serving(tmp_path) as subject:
        await bank(subject).adopt(EXECUTOR.address, LaneEntry(0))
        away = bank(subject, [RetryElsewhere("it restarts", code="restarting")] * 3)
        away.keep(judged(1))
        await away.close()
        entry = await bank(subject).lane(EXECUTOR.address)
        assert entry is not None
        assert entry.accepted == 100
    with pytest.raises(RetryElsewhere):
        await bank(subject).lane(EXECUTOR.address)


async def test_an_error_of_the_actor_is_told_in_its_own_words(tmp_path: Path, opened: FakeChain) -> None:
    async with serving(tmp_path) as subject:
        wrapped = PeerFault("a traceback of many lines")
        wrapped.cause = RetryElsewhere("The disk is full.", code="journal_stuck")  # type: ignore[attr-defined]
        with pytest.raises(RetryElsewhere, match="The disk is full"):
            await bank(subject, [wrapped]).lane(EXECUTOR.address)


async def test_until_it_is_there_a_ledger_says_so(tmp_path: Path) -> None:
    subject = Accounting(place(tmp_path), "anvil")
    with pytest.raises(RetryElsewhere) as caught:
        await bank(subject).purchasing()
    assert (caught.value.status, caught.value.code) == (503, "accounting_away")


@pytest.mark.parametrize(("role", "name"), [("executor", "anvil"), ("client", "")])
def test_only_a_client_that_pays_has_this_part(tmp_path: Path, role: str, name: str) -> None:
    subject = Accounting(place(tmp_path, role), name)
    assert list(subject.paying(name, CLIENT, cast(Any, None))) == []
