"""Identities made of a validator's key: the same again after a restart, and nobody else's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from lloom.core.identity import Identity, NodeId
from lloom.core.visitors import number, payer, visitor

ME, OTHER = Identity(bytes(31) + b"\x01"), Identity(bytes(31) + b"\x02")


def settings(role: str, purse: int = 0) -> Any:
    return cast(Any, SimpleNamespace(role=role, validator=SimpleNamespace(purse=purse)))


def test_epoch_number_and_owner_make_an_identity() -> None:
    made = {
        visitor(owner, epoch, which).address for owner in (ME, OTHER) for epoch in (0, 1, 11) for which in (0, 1, 10)
    }
    assert len(made) == 18
    assert visitor(ME, 1, 1).address == visitor(Identity(ME.secret), 1, 1).address
    assert ME.address not in made


def test_visitors_are_spread_over_executors_in_a_way_that_only_the_owner_knows() -> None:
    executors = [NodeId(bytes([each]) * 20) for each in range(64)]
    ours, theirs = ([number(owner, each, 4) for each in executors] for owner in (ME, OTHER))
    assert set(ours) == {0, 1, 2, 3}
    assert ours != theirs
    assert ours == [number(ME, each, 4) for each in executors]


def test_a_validator_pays_under_another_name_and_a_client_under_its_own() -> None:
    assert payer(ME, settings("client")) is ME
    purses = {payer(ME, settings("validator", purse)).address for purse in range(3)}
    assert len(purses) == 3
    assert ME.address not in purses
