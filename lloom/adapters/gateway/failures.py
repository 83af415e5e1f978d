"""Errors as HTTP; a dialect puts them into its callers' words. It never adds details of its own."""

from __future__ import annotations

import http
import math

from starlette.exceptions import HTTPException

from lloom.core.api.dialect import Failure, Headers
from lloom.core.errors import CallerFault, LloomError, RetryElsewhere


def failure(error: Exception) -> Failure:
    """The answer that `error` amounts to; a bug (anything but our own errors) shows nothing of itself."""
    match error:
        case CallerFault():
            return Failure(_status(error.status), str(error), error.param, error.code)
        case RetryElsewhere():
            headers: Headers = []
            if error.retry_after is not None:
                headers = [(b"retry-after", b"%d" % max(1, math.ceil(error.retry_after)))]
            return Failure(_status(error.status), str(error), code=error.code, headers=headers)
        case LloomError():
            return Failure(500, str(error))
        case HTTPException():
            pairs = [(name.lower().encode(), value.encode()) for name, value in (error.headers or {}).items()]
            return Failure(_status(error.status_code), error.detail, headers=pairs)
        case _:
            return Failure(500, "The gateway failed; its log tells why.", code="internal_error")


def _status(status: int) -> int:
    return status if 400 <= status <= 599 else http.HTTPStatus.BAD_GATEWAY
