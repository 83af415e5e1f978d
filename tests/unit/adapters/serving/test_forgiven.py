"""How long it is believed that what was sent did not arrive."""

from __future__ import annotations

from lloom.adapters.serving.forgiven import Forgiven

A, B, C = (bytes([number]) * 20 for number in range(3))


def test_a_client_is_believed_up_to_a_bound_of_its_own() -> None:
    sums = Forgiven(10)
    assert sums.add(A, 6, 10)
    assert not sums.add(A, 5, 10)
    assert sums.add(A, 4, 10)
    assert not sums.add(A, 1, 10)
    assert sums.add(B, 10, 10)


def test_who_pays_is_believed_again_but_not_in_advance() -> None:
    sums = Forgiven(10)
    sums.reduce(A, 100)
    assert not sums.add(A, 11, 10)
    assert sums.add(A, 10, 10)
    sums.reduce(A, 3)
    assert not sums.add(A, 4, 10)
    assert sums.add(A, 3, 10)
    sums.reduce(A, 100)
    assert not sums.add(A, 11, 10)


def test_a_client_earns_nothing_by_receiving_more_than_was_sent() -> None:
    sums = Forgiven(10)
    assert sums.add(A, 10, 10)
    assert sums.add(A, -5, 10)
    assert not sums.add(A, 1, 10)


def test_no_more_clients_are_remembered_than_there_is_room_for() -> None:
    sums = Forgiven(2)
    for client in (A, B, A, C):
        sums.add(client, 1, 10)
    assert set(sums._sums) == {A, C}
