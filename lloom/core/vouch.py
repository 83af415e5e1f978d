"""What a validator saw of an executor, signed, for a while. It never measures and never says whom to prefer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from lloom.core.errors import PeerFault
from lloom.core.honesty import Conduct
from lloom.core.identity import ADDRESS_BYTES, SIGNATURE_BYTES, Identity, NodeId, verify
from lloom.core.messages import Address, decode, decoder
from lloom.core.offer import Endpoint, ModelId

MAX_VOUCH_BYTES: Final = 16 * 1024
MAX_LIFETIME: Final = 86_400
"""Seconds."""
MAX_SKEW: Final = 120
"""Seconds by which the clocks of honest nodes differ at most."""


class Probe(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One model as it answered a real request."""

    model: ModelId
    answered: bool
    ttft_ms: Annotated[int, Meta(ge=0, lt=1 << 32)] = 0
    """To the first content."""
    tokens_per_second: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    """After the first content."""
    context: Annotated[int, Meta(ge=0, lt=1 << 32)] = 0
    """Tokens of the longest prompt that was answered."""
    conduct: Conduct = Conduct()
    """How honest its latest answers looked to this validator; not only those of this probe."""


class Vouch(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`validator` saw this of `executor`. Times are Unix seconds."""

    validator: Address
    executor: Address
    issued: Annotated[int, Meta(ge=0, lt=1 << 53)]
    expires: Annotated[int, Meta(ge=0, lt=1 << 53)]
    reached: Annotated[tuple[Endpoint, ...], Meta(max_length=64)]
    """Where it answered and proved who it is."""
    probes: Annotated[tuple[Probe, ...], Meta(max_length=128)]

    def probe(self, model: str) -> Probe | None:
        """What was seen of `model`, None if it was not tried."""
        return next((probe for probe in self.probes if probe.model == model), None)

    @property
    def answers(self) -> bool:
        """Whether the executor was reached, and some model answered."""
        return bool(self.reached) and any(probe.answered for probe in self.probes)

    @property
    def tells(self) -> bool:
        """Whether it says anything: of an executor that was reached, and not asked since that costs money, it does not."""
        return bool(self.probes) or not self.reached

    @property
    def doubted(self) -> bool:
        """Whether some model's conduct is worse than chance makes it: whoever lies with one may with all."""
        return any(probe.conduct.doubts() for probe in self.probes)


_PROBES: Final = 128
_PROBES_BYTES: Final = 12 * 1024
"""The rest of a vouch has room for the endpoints."""

_decoder = decoder(Vouch)


def fitting(probes: Sequence[Probe]) -> tuple[Probe, ...]:
    """As many of `probes`, from the first on, as there is room for in a vouch: ids of models can be long."""
    sizes = accumulate(len(msgspec.msgpack.encode(probe)) for probe in probes[:_PROBES])
    return tuple(probes[: sum(size <= _PROBES_BYTES for size in sizes)])


def seal(vouch: Vouch, identity: Identity, network: str) -> bytes:
    """The signed bytes of `vouch`: msgpack followed by a 65-byte signature."""
    payload = msgspec.msgpack.encode(vouch)
    return payload + identity.sign("vouch", network, payload)


def unseal(sealed: bytes, network: str, now: float) -> Vouch:
    """The vouch within, checked: size, form, its validator's signature, in force at `now` (Unix seconds); else PeerFault.

    Whether that validator is to be believed is the caller's business.
    """
    if not SIGNATURE_BYTES + ADDRESS_BYTES < len(sealed) <= MAX_VOUCH_BYTES:
        raise PeerFault("a vouch of impossible size", code="bad_vouch")
    payload, signature = sealed[:-SIGNATURE_BYTES], sealed[-SIGNATURE_BYTES:]
    vouch = decode(payload, _decoder)
    verify("vouch", network, payload, signature, NodeId(vouch.validator))
    if vouch.validator == vouch.executor:
        raise PeerFault("a vouch for oneself", code="bad_vouch")
    if not vouch.issued - MAX_SKEW <= now < vouch.expires:
        raise PeerFault("a vouch that is not in force", code="bad_vouch")
    if vouch.expires - vouch.issued > MAX_LIFETIME:
        raise PeerFault("a vouch that wants to hold too long", code="bad_vouch")
    if not all(probe.conduct.possible for probe in vouch.probes):
        raise PeerFault("a vouch with counts that contradict each other", code="bad_vouch")
    for endpoint in vouch.reached:
        endpoint.check()
    return vouch
