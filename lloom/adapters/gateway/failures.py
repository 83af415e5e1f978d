"""Errors as HTTP; a dialect puts them into its callers' words. It never adds details of its own."""

from __future__ import annotations

import http
import math

from starlette.exceptions import HTTPException

from lloom.core.api.dialect import Failure, Headers
from lloom.core.errors import CallerFault, LimitReached, LloomError, RetryElsewhere


def failure(error: Exception) -> Failure:
    """The answer that `error` amounts to; a bug (anything but our own errors) shows nothing of itself."""
    match error:
        case CallerFault():
            return Failure(_status(error.status), str(error), error.param, error.code, _headers(error))
        case RetryElsewhere():
            return Failure(_status(error.status), str(error), code=error.code, headers=_headers(error))
        case LloomError():
            return Failure(500, str(error))
        case HTTPException():
            pairs = [(name.lower().encode(), value.encode()) for name, value in (error.headers or {}).items()]
            return Failure(_status(error.status_code), error.detail, headers=pairs)
        case _:
            return Failure(500, "The gateway failed; its log tells why.", code="internal_error")


def _headers(error: CallerFault | RetryElsewhere) -> Headers:
    """What helps: when to come again (RFC 9110, 10.2.3, whole seconds), or how to show a key (11.6.1)."""
    match error:
        case (
            LimitReached(retry_after=float() | int() as seconds)
            | RetryElsewhere(retry_after=float() | int() as seconds)
        ):
            return [(b"retry-after", b"%d" % max(1, math.ceil(seconds)))]
        case CallerFault(status=http.HTTPStatus.UNAUTHORIZED):
            return [(b"www-authenticate", b'Bearer realm="lloom"')]
    return []


def _status(status: int) -> int:
    return status if 400 <= status <= 599 else http.HTTPStatus.BAD_GATEWAY
