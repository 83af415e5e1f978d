from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from lloom.core.bridge.hello import Audience, check, greet
from lloom.core.errors import PeerFault
from lloom.core.identity import Identity
from lloom.core.messages import Limits

NOW = 1_700_000_000.0
CLIENT = Identity(b"\x01" * 32)
SERVER = Identity(b"\x02" * 32)
AUDIENCE = Audience("test", SERVER.address, b"the certificate")
HELLO = greet(CLIENT, AUDIENCE, Limits(1, 1, 1, 8192), NOW)


def test_a_hello_proves_who_said_it() -> None:
    assert check(HELLO, AUDIENCE, NOW, 60) == CLIENT.address


@pytest.mark.parametrize(
    "audience",
    [
        replace(AUDIENCE, server=CLIENT.address),
        replace(AUDIENCE, certificate=b"another certificate"),
        replace(AUDIENCE, network="mainnet"),
    ],
)
def test_a_hello_is_of_no_use_for_another_audience(audience: Audience) -> None:
    with pytest.raises(PeerFault, match="did not sign"):
        check(HELLO, audience, NOW, 60)


@pytest.mark.parametrize("late", [-61, 61])
def test_a_hello_from_another_time_is_refused(late: float) -> None:
    with pytest.raises(PeerFault, match="clocks"):
        check(HELLO, AUDIENCE, NOW + late, 60)


def test_a_hello_under_a_borrowed_address_is_refused() -> None:
    with pytest.raises(PeerFault, match="did not sign"):
        check(msgspec.structs.replace(HELLO, address=SERVER.address), AUDIENCE, NOW, 60)


def test_the_timestamp_is_signed() -> None:
    with pytest.raises(PeerFault, match="did not sign"):
        check(msgspec.structs.replace(HELLO, timestamp=HELLO.timestamp + 1), AUDIENCE, NOW, 60)


def test_another_version_is_told_from_a_forgery() -> None:
    with pytest.raises(PeerFault, match="version"):
        check(msgspec.structs.replace(HELLO, version=2), AUDIENCE, NOW, 60)
