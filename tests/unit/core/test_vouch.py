"""A vouch is believed only if it is whole, and if its counts can be true."""

from __future__ import annotations

import msgspec
import pytest

from lloom.core import vouch
from lloom.core.errors import PeerFault
from lloom.core.honesty import MEMORY, Conduct
from lloom.core.identity import Identity
from lloom.core.offer import Endpoint
from lloom.core.vouch import Probe, Vouch

VALIDATOR, EXECUTOR = Identity(bytes(31) + b"\x01"), Identity(bytes(31) + b"\x02")
HERE = Endpoint("127.0.0.1", 9000)


def says(*probes: Probe) -> Vouch:
    return Vouch(VALIDATOR.address, EXECUTOR.address, 1000, 2000, (HERE,), probes)


def test_what_was_seen_of_an_executor_arrives_as_it_was_said() -> None:
    said = says(Probe("m", True, 12, 3.5, 400, Conduct(9, 8, 1, 1, 2, 3)), Probe("n", False))
    assert vouch.unseal(vouch.seal(said, VALIDATOR, "test"), "test", 1500) == said


@pytest.mark.parametrize(
    "conduct",
    [Conduct(1, 2), Conduct(3, 2, 3), Conduct(1, repeated=2), Conduct(1, hurried=2), Conduct(0, miscounted=1)],
)
def test_counts_that_contradict_each_other_are_refused(conduct: Conduct) -> None:
    sealed = vouch.seal(says(Probe("m", True, conduct=conduct)), VALIDATOR, "test")
    with pytest.raises(PeerFault, match="contradict"):
        vouch.unseal(sealed, "test", 1500)


@pytest.mark.parametrize("count", [-1, MEMORY + 1])
def test_counts_out_of_bounds_are_refused(count: int) -> None:
    sealed = vouch.seal(says(Probe("m", True, conduct=Conduct(count))), VALIDATOR, "test")
    with pytest.raises(PeerFault):
        vouch.unseal(sealed, "test", 1500)


@pytest.mark.parametrize(("name", "fits"), [("m", 128), ("m" * 120, 80)])
def test_no_vouch_gets_too_long_to_be_read(name: str, fits: int) -> None:
    probes = [Probe(f"{name}{number}", True, 2**31, 1e6, 2**31, Conduct(*[MEMORY] * 6)) for number in range(200)]
    kept = vouch.fitting(probes)
    assert kept == tuple(probes[: len(kept)])
    assert fits <= len(kept) <= 128
    said = Vouch(VALIDATOR.address, EXECUTOR.address, 1000, 2000, (Endpoint("2001:db8::" + "1" * 4, 65535),) * 16, kept)
    assert vouch.unseal(vouch.seal(said, VALIDATOR, "test"), "test", 1500) == said


def test_a_cut_or_changed_one_is_refused() -> None:
    sealed = vouch.seal(says(Probe("m", True)), VALIDATOR, "test")
    for bad in (sealed[:-1], sealed[1:], msgspec.msgpack.encode(says()) + sealed[-65:]):
        with pytest.raises(PeerFault):
            vouch.unseal(bad, "test", 1500)


def test_nobody_vouches_for_himself() -> None:
    said = Vouch(EXECUTOR.address, EXECUTOR.address, 1000, 2000, (HERE,), (Probe("m", True),))
    with pytest.raises(PeerFault, match="oneself"):
        vouch.unseal(vouch.seal(said, EXECUTOR, "test"), "test", 1500)
