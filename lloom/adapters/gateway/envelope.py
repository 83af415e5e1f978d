"""Errors as OpenAI's clients expect them: `{"error": {message, type, param, code}}`. It never adds details of its own."""

from __future__ import annotations

import http
import math
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException

from lloom.core.errors import CallerFault, LloomError, RetryElsewhere

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Failure:
    """What a caller is told: `error` is the inner object of the envelope."""

    status: int
    error: dict[str, Any]
    headers: Headers


def failure(error: Exception) -> Failure:
    """The answer that `error` amounts to; a bug (anything but our own errors) shows nothing of itself."""
    match error:
        case CallerFault():
            return _failure(error.status, str(error), param=error.param, code=error.code)
        case RetryElsewhere():
            headers: Headers = []
            if error.retry_after is not None:
                headers = [(b"retry-after", b"%d" % max(1, math.ceil(error.retry_after)))]
            return _failure(error.status, str(error), code=error.code, headers=headers)
        case LloomError():
            return _failure(500, str(error))
        case HTTPException():
            pairs = [(name.lower().encode(), value.encode()) for name, value in (error.headers or {}).items()]
            return _failure(error.status_code, error.detail, headers=pairs)
        case _:
            return _failure(500, "The gateway failed; its log tells why.", code="internal_error")


def _failure(
    status: int, message: str, *, param: str | None = None, code: str | None = None, headers: Headers | None = None
) -> Failure:
    if not 400 <= status <= 599:
        status = http.HTTPStatus.BAD_GATEWAY
    return Failure(status, {"message": message, "type": _type(status), "param": param, "code": code}, headers or [])


def _type(status: int) -> str:
    if status == http.HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limit_error"
    return "invalid_request_error" if status < http.HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
