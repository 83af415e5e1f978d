"""Requests, answers, and how they end."""

from __future__ import annotations

import math
from typing import Annotated

from msgspec import Meta

from lloom.core.api.request import Operation
from lloom.core.errors import CallerFault, RetryElsewhere
from lloom.core.messages.base import ChainId, Message, Signature, Text, Tokens, Word
from lloom.core.messages.money import SignedVoucher


class ModelCall(Message, frozen=True):
    """OPEN: work for a model. `request` is an encoded, signed `billing.request.Request`; the body follows as DATA."""

    request: Annotated[bytes, Meta(max_length=1024)]
    signature: Signature
    salt: Annotated[bytes, Meta(min_length=16, max_length=16)]
    """Mixed into the hashes of request and response, so that a published hash gives nothing away."""
    model: Annotated[str, Meta(min_length=1, max_length=128)]
    operation: Operation = "chat"
    chain: ChainId = 0
    """The chain (EIP-155) of the domain that the request is signed in; 0: nobody pays."""
    voucher: SignedVoucher | None = None
    """Covers what the request may cost before its first receipt, as far as earlier ones do not."""


class OfferCall(Message, frozen=True):
    """OPEN: the executor's own signed offer, whole, as DATA."""


class Done(Message, frozen=True):
    """END of an answer: what was counted. Empty for calls that count nothing.

    DATA of a chat carries neither the usage chunk nor `[DONE]`: usage stands here, the gateway writes both as its caller wants.
    """

    input_tokens: Tokens = 0
    output_tokens: Tokens = 0
    usage: Annotated[bytes, Meta(max_length=4096)] = b""
    """OpenAI's usage object as JSON, with the details that the backend gave."""


class Refusal(Message, frozen=True):
    """RESET or GOAWAY: why it ends. `status` is the HTTP status it amounts to; `elsewhere`: another executor may succeed."""

    status: Annotated[int, Meta(ge=400, le=599)]
    code: Word
    message: Text
    elsewhere: bool = True
    retry_after: Annotated[float, Meta(ge=0, le=86_400)] | None = None
    param: Word | None = None

    def error(self) -> RetryElsewhere | CallerFault:
        """The exception this refusal amounts to at the dialler."""
        if self.elsewhere:
            return RetryElsewhere(self.message, status=self.status, code=self.code, retry_after=self.retry_after)
        return CallerFault(self.message, status=self.status, code=self.code, param=self.param)

    @classmethod
    def of(cls, error: RetryElsewhere | CallerFault) -> Refusal:
        """The refusal that carries `error` to the dialler; what a backend said out of bounds is brought within them."""
        status = error.status if 400 <= error.status <= 599 else 502
        message = _clean(str(error), 1000)
        if isinstance(error, CallerFault):
            param = None if error.param is None else _clean(error.param, 64)
            return cls(status, _clean(error.code or "invalid_request", 64), message, False, None, param)
        wait = error.retry_after
        if wait is not None:
            wait = min(max(wait, 0.0), 86_400.0) if math.isfinite(wait) else None
        return cls(status, _clean(error.code, 64), message, True, wait)


class Cancel(Message, frozen=True):
    """CANCEL: the dialler lost interest; stop the work. `received` bytes of DATA arrived: that much is billed."""

    received: Annotated[int, Meta(ge=0)]


def _clean(text: str, length: int) -> str:
    """`text` that UTF-8 can carry (JSON may hold lone surrogates), cut to `length` characters."""
    return text[:length].encode(errors="replace").decode()
