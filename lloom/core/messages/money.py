"""Receipts, vouchers, and what is said about them. The signed bytes within are checked elsewhere (core/billing, core/payment)."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from lloom.core.messages.base import Address, ChainId, Hash, LaneNumber, Message, Sequence, Signature, Wei


class Usage(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Everything ever asked of one model on a lane. `model`: keccak of its canonical id."""

    model: Hash
    input_tokens: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
    output_tokens: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
    requests: Annotated[int, Meta(ge=0, lt=1 << 56)]


class SignedVoucher(Message, frozen=True):
    """Control, from a client: the exact bytes of a voucher (core/payment/voucher.py), and what its usage hash stands for."""

    voucher: Annotated[bytes, Meta(max_length=1024)]
    signature: Signature
    usages: Annotated[tuple[Usage, ...], Meta(max_length=16)] = ()
    """Sorted by model."""
    left_out: Annotated[tuple[Sequence, ...], Meta(max_length=64)] = ()
    """Numbers of receipts that the client does not accept, the latest ones."""


class SignedReceipt(Message, frozen=True):
    """One receipt: the exact bytes that were signed and journaled."""

    receipt: Annotated[bytes, Meta(max_length=1024)]
    signature: Signature


class Receipts(Message, frozen=True):
    """Control: receipts of finished requests, batched."""

    items: Annotated[list[SignedReceipt], Meta(max_length=256)]


class Need(Message, frozen=True):
    """Control, to a client: running answers go on once its vouchers of this lane reach `cumulative`."""

    chain: ChainId
    token: Address
    lane: LaneNumber
    cumulative: Wei


class LaneState(Message, frozen=True):
    """Answer to `LaneCall`, at most `MAX_PAGE` bytes. A lane nobody knows has zeros and no voucher."""

    charged: Wei
    """Everything ever charged on the lane."""
    seq: Sequence
    """Number of its last receipt."""
    credit_limit: Wei
    """What this client may owe here beyond its vouchers."""
    voucher: SignedVoucher | None
    """The client's own best one: it proves what it promised, even to a client that lost its journal."""
    receipts: Annotated[tuple[SignedReceipt, ...], Meta(max_length=1000)]
    """Those after `since`, in their order, the first of them."""


class LaneCall(Message, frozen=True):
    """OPEN: what the executor knows of the caller's lane. Answered by `LaneState`, as DATA."""

    chain: ChainId
    token: Address
    lane: LaneNumber
    since: Sequence = 0
    """Receipts with larger numbers are wanted."""


Control = Receipts | SignedVoucher | Need
