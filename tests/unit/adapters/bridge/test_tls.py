"""TLS without a network: what came is whole, however it was cut, and ends where the peer ends it."""

from __future__ import annotations

import pytest

from lloom.adapters.bridge.tls import Tls, client_context, server_context
from lloom.core.identity import Identity
from tests.integration.bridge_support import certificate


@pytest.fixture
def pair() -> tuple[Tls, Tls]:
    """A client and a server that have shaken hands."""
    client = Tls(client_context(), server_side=False)
    server = Tls(server_context(certificate(Identity.generate())), server_side=True)
    client.handshake()
    while not server.secured:
        server.receive(client.take())
        client.receive(server.take())
    return client, server


def test_records_that_come_together_are_read_together(pair: tuple[Tls, Tls]) -> None:
    client, server = pair
    for piece in (b"one, ", b"two, ", bytes(100_000)):
        client.send(piece)
    assert server.receive(client.take()) == b"one, two, " + bytes(100_000)


def test_a_record_is_read_once_it_is_whole(pair: tuple[Tls, Tls]) -> None:
    client, server = pair
    client.send(b"hello")
    *first, last = client.take()
    assert not any(server.receive(bytes([byte])) for byte in first)
    assert server.receive(bytes([last])) == b"hello"
    assert not server.over


def test_the_peers_end_comes_after_what_it_sent_and_nothing_comes_after_that(pair: tuple[Tls, Tls]) -> None:
    client, server = pair
    client.send(b"goodbye")
    client.end()
    assert server.receive(client.take() + b"and one more thing") == b"goodbye"
    assert server.over
    assert server.receive(b"and another") == b""
