"""Errors in Anthropic's words (https://docs.anthropic.com/en/api/errors)."""

from __future__ import annotations

from typing import Any, Final

from lloom.core.api.dialect import Failure

_TYPES: Final = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}

NO_THREADS: Final = "thread_unsupported_request"
"""What makes Anthropic's SDKs, whose tool runners begin by asking for a thread, send the whole conversation each time."""


def error(failure: Failure, request_id: str) -> dict[str, Any]:
    """The whole envelope."""
    usual = "invalid_request_error" if failure.status < 500 else "api_error"
    inner: dict[str, Any] = {"type": _TYPES.get(failure.status, usual), "message": failure.message}
    if failure.code == NO_THREADS:
        inner["details"] = {"error_code": NO_THREADS}
    return {"type": "error", "error": inner, "request_id": request_id}
