"""A client, an executor and what it offers, one request; changes to them."""

from __future__ import annotations

from typing import Any

import msgspec

from lloom.core.billing.quote import cost, quote_hash, quote_of
from lloom.core.billing.request import Request, request_hash, sign_request
from lloom.core.eip712 import Domain
from lloom.core.identity import Identity
from lloom.core.offer import ModelOffer, Offer

CLIENT = Identity(bytes(31) + b"\x01")
EXECUTOR = Identity(bytes(31) + b"\x02")
OFF = Domain()
SALT = bytes(range(16))
NOW = 1_800_000_000.0
MODEL = ModelOffer(
    id="smollm2-135m",
    context=8192,
    max_output=2048,
    parallel=2,
    encoding="o200k_base",
    backend="smollm2",
    input_price=150_000,
    output_price=600_000,
)
OFFER = Offer(
    executor=EXECUTOR.address, seq=7, expires=int(NOW) + 900, endpoints=(), models=(MODEL,), software="lloom/test"
)
TERMS = quote_of(OFFER, MODEL)
REQUESTED = Request(
    quote_hash=quote_hash(TERMS),
    client=CLIENT.address,
    lane=3,
    request_id=bytes(32),
    request_hash=request_hash(SALT, "chat", MODEL.id, b"{}"),
    max_input_tokens=100,
    max_output_tokens=50,
    max_cost=cost(TERMS, 100, 0, 50),
    deadline=int(NOW) + 60,
)
ENCODED, DIGEST, SIGNATURE = sign_request(REQUESTED, CLIENT, OFF)


def changed(value: Any, **fields: Any) -> Any:
    return msgspec.structs.replace(value, **fields)


def other(value: int | bytes) -> int | bytes:
    return value ^ 1 if isinstance(value, int) else bytes([value[0] ^ 1]) + value[1:]
