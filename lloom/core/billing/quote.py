"""One model's terms, as both sides derive them from its executor's offer, and what tokens cost by them. It is never sent."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import msgspec
from msgspec import Struct

from lloom.core.eip712 import StructType
from lloom.core.identity import ADDRESS_BYTES, keccak
from lloom.core.offer import ModelOffer, Offer, Payment

PRICE_UNIT: Final = 10**6
"""Prices are per this many tokens."""
QUOTE: Final = StructType(
    "Quote(address executor,bytes32 model,address token,uint128 inputPrice,uint128 cachedPrice,uint128 outputPrice,"
    "uint128 requestFee,uint128 minWindow,uint64 validFrom,uint64 validUntil,bytes32 tokenizerHash,uint8 basis,"
    "bytes32 termsHash,uint64 seq)"
)


class Basis(IntEnum):
    """How tokens are counted."""

    TEXT = 0
    """From the text, with the quote's tokenizer: a client can count them itself."""
    BACKEND = 1
    """As the backend reports them (reasoning, images); with the quote's tokenizer where it reports nothing."""


class Quote(Struct, frozen=True):
    """One model's terms. Amounts are smallest units of `token`, prices per `PRICE_UNIT` tokens, times Unix seconds."""

    executor: bytes
    model: bytes
    token: bytes
    input_price: int
    cached_price: int
    output_price: int
    request_fee: int
    min_window: int
    """Least amount a client has to grant ahead while an answer streams."""
    valid_from: int
    valid_until: int
    tokenizer_hash: bytes
    basis: int
    terms_hash: bytes
    seq: int


def model_hash(model: str) -> bytes:
    """32 bytes that stand for a canonical model id in signed data."""
    return keccak(model.encode())


def quote_of(offer: Offer, model: ModelOffer, payment: Payment | None = None) -> Quote:
    """The quote that a signed offer implies for one of its models; both sides derive it alike, so none is sent.

    `payment`: the one of the offer that is chosen; None: nobody pays, and the prices only tell what it is worth.
    It is valid as long as the offer and bears its number; a new offer makes new quotes, and an executor honours the old ones
    until they expire. An offer names no cached price and no fee: cached input costs as any input. Chain and contract are
    among the terms: the same price in the same token is another quote on another chain.
    """
    terms = msgspec.msgpack.encode([model.context, model.max_output, model.operations, model.features, payment])
    rate = PRICE_UNIT if payment is None else payment.rate
    input_price, output_price = _scaled(model.input_price, rate), _scaled(model.output_price, rate)
    return Quote(
        executor=offer.executor,
        model=model_hash(model.id),
        token=bytes(ADDRESS_BYTES) if payment is None else payment.token,
        input_price=input_price,
        cached_price=input_price,
        output_price=output_price,
        request_fee=0,
        min_window=-(-offer.window * output_price // PRICE_UNIT),
        valid_from=0,
        valid_until=offer.expires,
        tokenizer_hash=keccak(model.encoding.encode()),
        basis=Basis.BACKEND,
        terms_hash=keccak(terms),
        seq=offer.seq,
    )


def quotes_of(offer: Offer, model: ModelOffer) -> list[tuple[Payment | None, Quote]]:
    """All quotes of an offer for one of its models: one for each way to pay; where nothing is to be paid, the one without."""
    free = not offer.payments or not (model.input_price or model.output_price)
    ways: list[Payment | None] = [None] if free else list(offer.payments)
    return [(way, quote_of(offer, model, way)) for way in ways]


def _scaled(price: int, rate: int) -> int:
    return -(-price * rate // PRICE_UNIT)


def quote_hash(quote: Quote) -> bytes:
    """`hashStruct` of the quote: what a request names it by."""
    return QUOTE.hash(QUOTE.encode(msgspec.structs.astuple(quote)))


def cost(quote: Quote, input_tokens: int, cached_tokens: int, output_tokens: int) -> int:
    """What so many tokens cost, in smallest units of the quote's token: rounded up once, for the whole request."""
    by_tokens = (
        input_tokens * quote.input_price + cached_tokens * quote.cached_price + output_tokens * quote.output_price
    )
    return quote.request_fee + -(-by_tokens // PRICE_UNIT)
