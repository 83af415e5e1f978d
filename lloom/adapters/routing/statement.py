"""What an executor says of a lane, and can prove: the client's best voucher, and receipts. It decides nothing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import msgspec

from lloom.adapters.bridge import Connection, Stream
from lloom.core.billing.lane import Lane
from lloom.core.billing.receipt import RECEIPT, Receipt, read_receipt
from lloom.core.eip712 import Domain, signer
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.identity import NodeId, checksum
from lloom.core.messages import MAX_PAGE, LaneCall, LaneState, SignedReceipt, amount, decode
from lloom.core.payment.voucher import CheckedVoucher, check

_decoder = msgspec.msgpack.Decoder(LaneState)
LANE_TIMEOUT: Final = "lane_timeout"
_SECONDS: Final = 10.0
"""An executor answers from its journal; longer than this it is away."""


@dataclass(frozen=True, slots=True)
class Statement:
    """`seq`, `charged`: the executor's word. The voucher is ours, and the receipts are signed by the executor."""

    seq: int
    charged: int
    voucher: CheckedVoucher | None
    receipts: tuple[tuple[SignedReceipt, Receipt], ...]


async def statement(connection: Connection, domain: Domain, lane: Lane, since: int) -> Statement:
    """What the peer says of `lane`, with receipts after `since`.

    RetryElsewhere if it does not answer in time, PeerFault if it shows what we, or it, did not sign.
    """
    executor = connection.peer
    try:
        async with asyncio.timeout(_SECONDS):
            stream = await connection.open(LaneCall(domain.chain_id, lane.token, lane.number, since))
            try:
                await stream.finish()
                state = decode(await _page(stream), _decoder)
            finally:
                stream.cancel()
    except TimeoutError as error:
        message = f"{checksum(executor)} did not say how the lane to it stands."
        raise RetryElsewhere(message, status=504, code=LANE_TIMEOUT) from error
    voucher = None if state.voucher is None else check(state.voucher, executor, domain)
    if voucher is not None and voucher.lane != lane:
        raise PeerFault(f"{checksum(executor)} shows a voucher of another lane", code="bad_voucher")
    receipts = await asyncio.to_thread(_read, state.receipts, executor, domain) if state.receipts else ()
    return Statement(state.seq, amount(state.charged), voucher, receipts)


def _read(
    receipts: tuple[SignedReceipt, ...], executor: NodeId, domain: Domain
) -> tuple[tuple[SignedReceipt, Receipt], ...]:
    """Each with what it says; a signature takes a tenth of a millisecond."""
    for signed in receipts:
        if signer(domain.digest(RECEIPT, signed.receipt), signed.signature) != executor:
            raise PeerFault(f"{checksum(executor)} shows a receipt that it did not sign", code="bad_signature")
    return tuple((signed, read_receipt(signed.receipt)) for signed in receipts)


async def _page(stream: Stream) -> bytes:
    parts, size = [], 0
    while (part := await stream.receive()) is not None:
        size += len(part)
        if size > MAX_PAGE:
            raise PeerFault("a state of a lane without end", code="bad_message")
        parts.append(part)
    return b"".join(parts)
