from __future__ import annotations

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from lloom.core.bridge.certificate import (
    BACKDATE,
    MAX_LIFETIME,
    Certificate,
    Endorsement,
    check,
    endorse,
    issue,
    new_key,
    public_hash,
)
from lloom.core.errors import PeerFault
from lloom.core.identity import Identity

NOW = 1_700_000_000.0
NETWORK = "test"
NODE = Identity(b"\x01" * 32)
OTHER = Identity(b"\x02" * 32)
KEY = new_key()
ENDORSEMENT = endorse(NODE, NETWORK, public_hash(KEY), NOW, 3600)
DER = issue(KEY, ENDORSEMENT)


def test_a_certificate_proves_the_node_that_endorsed_it() -> None:
    check(DER, NODE.address, NETWORK, NOW)


def test_it_fails_for_every_node_but_the_one_that_endorsed_it() -> None:
    with pytest.raises(PeerFault, match="not 0x"):
        check(DER, OTHER.address, NETWORK, NOW)


def test_it_fails_on_another_network() -> None:
    with pytest.raises(PeerFault, match="did not sign"):
        check(DER, NODE.address, "mainnet", NOW)


@pytest.mark.parametrize("now", [NOW - BACKDATE - 1, NOW + 3601])
def test_it_fails_outside_its_time(now: float) -> None:
    with pytest.raises(PeerFault, match="not valid now"):
        check(DER, NODE.address, NETWORK, now)


def test_it_is_good_for_a_dialler_whose_clock_is_a_little_behind() -> None:
    check(DER, NODE.address, NETWORK, NOW - BACKDATE + 1)


def test_an_endorsement_does_not_fit_another_tls_key() -> None:
    with pytest.raises(PeerFault, match="did not sign"):
        check(issue(new_key(), ENDORSEMENT), NODE.address, NETWORK, NOW)


def test_nobody_endorses_for_more_than_a_day() -> None:
    with pytest.raises(ValueError, match="up to"):
        endorse(NODE, NETWORK, public_hash(KEY), NOW, MAX_LIFETIME + 1)


def test_an_endorsement_for_more_than_a_day_is_refused_though_it_is_signed() -> None:
    start, end = int(NOW), int(NOW + 2 * MAX_LIFETIME)
    statement = NODE.address + public_hash(KEY) + start.to_bytes(8, "big") + end.to_bytes(8, "big")
    endorsement = Endorsement(NODE.address, start, end, NODE.sign("certificate", NETWORK, statement))
    with pytest.raises(PeerFault, match="longer than a day"):
        check(issue(KEY, endorsement), NODE.address, NETWORK, NOW)


@pytest.mark.parametrize("field", ["not_before", "not_after"])
def test_its_times_cannot_be_changed(field: str) -> None:
    changed = msgspec.structs.replace(ENDORSEMENT, **{field: getattr(ENDORSEMENT, field) + 1})
    with pytest.raises(PeerFault, match="did not sign"):
        check(issue(KEY, changed), NODE.address, NETWORK, NOW)


def test_a_certificate_without_endorsement_is_refused() -> None:
    name = x509.Name([])
    start, end = (
        x509.load_der_x509_certificate(DER).not_valid_before_utc,
        x509.load_der_x509_certificate(DER).not_valid_after_utc,
    )
    bare = (
        x509.CertificateBuilder(name, name, KEY.public_key(), x509.random_serial_number(), start, end)
        .sign(KEY, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )
    with pytest.raises(PeerFault, match="without a readable endorsement"):
        check(bare, NODE.address, NETWORK, NOW)


@given(st.binary(max_size=300))
def test_any_bytes_instead_of_a_certificate_are_a_peer_fault(data: bytes) -> None:
    with pytest.raises(PeerFault):
        check(data, NODE.address, NETWORK, NOW)


@given(st.integers(0, len(DER) - 1), st.integers(1, 255))
def test_no_changed_byte_makes_it_good_for_somebody_else(place: int, change: int) -> None:
    changed = DER[:place] + bytes([DER[place] ^ change]) + DER[place + 1 :]
    with pytest.raises(PeerFault):
        check(changed, OTHER.address, NETWORK, NOW)


def test_a_certificate_never_shows_its_key() -> None:
    assert "PrivateKey" not in repr(Certificate(KEY, DER))


def test_keys_are_fresh_and_on_p256() -> None:
    assert isinstance(KEY.curve, ec.SECP256R1)
    assert public_hash(new_key()) != public_hash(KEY)
    assert public_hash(KEY.public_key()) == public_hash(KEY)
