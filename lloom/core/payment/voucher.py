"""Vouchers: how much a client ever promises on a lane, signed; what the contract pays against. It keeps no ledger.

A voucher travels as its encoded words and a signature (`messages.SignedVoucher`); only `check` makes a `CheckedVoucher` of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from msgspec import Struct

from lloom.core.billing.lane import Lane
from lloom.core.eip712 import WORD, Domain, StructType, signer
from lloom.core.errors import PeerFault
from lloom.core.identity import Identity, NodeId, checksum, keccak
from lloom.core.messages import SignedVoucher, Usage

VOUCHER: Final = StructType(
    "Voucher(address client,address executor,address token,uint64 lane,uint128 cumulative,uint128 accepted,bytes32 usageHash)"
)
RESERVE: Final = StructType(
    "Reserve(address client,address executor,address token,uint64 lane,uint128 total,uint64 deadline)"
)
SIGNER_PROOF: Final = StructType(
    "SignerProof(address client,address signer,uint40 validUntil,uint8 flags,uint256 deadline)"
)

MAX_MODELS: Final = 16
"""Models whose usage the contract takes with one voucher; on a lane with more, the others are not published."""
MAX_AMOUNT: Final = (1 << 128) - 1

_RECOVERY: Final = 27
_HIGH_BIT: Final = 1 << 255


class Voucher(Struct, frozen=True):
    """`cumulative` is everything ever promised on the lane, in smallest units of `token`; `accepted` is what of it the client has
    accepted receipts for: what the usage costs. Members in the order that is signed.
    """

    client: bytes
    executor: bytes
    token: bytes
    lane: int
    cumulative: int
    accepted: int
    usage_hash: bytes


class CheckedVoucher(Struct, frozen=True):
    """A voucher that its client did sign, with the usage that its hash stands for."""

    voucher: Voucher
    usages: tuple[Usage, ...]
    signed: SignedVoucher

    @property
    def lane(self) -> Lane:
        """The lane at the executor that the voucher names."""
        return Lane(self.voucher.client, self.voucher.token, self.voucher.lane)


class Claim(Struct, frozen=True):
    """A voucher that is redeemed until `up_to` was ever paid on its lane: what was charged, however much more it promises."""

    checked: CheckedVoucher
    up_to: int


def sign(
    voucher: Voucher, usages: tuple[Usage, ...], left_out: tuple[int, ...], by: Identity, domain: Domain
) -> SignedVoucher:
    """`voucher` as it travels; `left_out`: numbers of the receipts that the client does not accept.

    OverflowError if an amount is larger than its field.
    """
    encoded = VOUCHER.encode(msgspec.structs.astuple(voucher))
    return SignedVoucher(encoded, by.sign_digest(domain.digest(VOUCHER, encoded)), usages, left_out)


def check(signed: SignedVoucher, executor: NodeId, domain: Domain) -> CheckedVoucher:
    """The voucher within, for `executor`, signed by its client; PeerFault if it is not, or its usage is not what was signed."""
    voucher = read(signed)
    if voucher.executor != executor:
        raise PeerFault("a voucher for somebody else", code="bad_voucher")
    if signer(domain.digest(VOUCHER, signed.voucher), signed.signature) != voucher.client:
        raise PeerFault(f"a voucher that {checksum(NodeId(voucher.client))} did not sign", code="bad_signature")
    if usage_hash(signed.usages) != voucher.usage_hash:
        raise PeerFault("a voucher whose usage is not the one that was signed", code="bad_voucher")
    return CheckedVoucher(voucher, signed.usages, signed)


def read(signed: SignedVoucher) -> Voucher:
    """The voucher within, unchecked but for its form; PeerFault if it is none."""
    return Voucher(*VOUCHER.decode(signed.voucher))  # type: ignore[arg-type]


def usage_hash(usages: Iterable[Usage]) -> bytes:
    """`keccak256(abi.encode(ModelUsage[]))`, as the contract computes it; OverflowError if a number is larger than its field."""
    words = [_words(usage) for usage in usages]
    head = WORD.to_bytes(WORD, "big") + len(words).to_bytes(WORD, "big")
    return keccak(head + b"".join(words))


def usages_of(totals: Mapping[bytes, Usage]) -> tuple[Usage, ...]:
    """What of a lane's usage, by model, goes into a voucher: sorted by model, of too many the busiest."""
    busiest = sorted(totals.values(), key=lambda usage: usage.requests, reverse=True)[:MAX_MODELS]
    return tuple(sorted(busiest, key=lambda usage: usage.model))


def compact(signature: bytes) -> tuple[bytes, bytes]:
    """`r` and `vs` of a 65-byte signature: the 64 bytes that the contract takes (EIP-2098)."""
    s, recovery = int.from_bytes(signature[WORD : 2 * WORD], "big"), signature[2 * WORD]
    odd = (recovery - _RECOVERY if recovery >= _RECOVERY else recovery) & 1
    return signature[:WORD], (s | _HIGH_BIT * odd).to_bytes(WORD, "big")


def _words(usage: Usage) -> bytes:
    for amount, bits in ((usage.input_tokens, 80), (usage.output_tokens, 80), (usage.requests, 56)):
        if amount >> bits:
            raise OverflowError(f"a usage of {amount} does not fit {bits} bits")
    numbers = (usage.input_tokens, usage.output_tokens, usage.requests)
    return usage.model + b"".join(number.to_bytes(WORD, "big") for number in numbers)
