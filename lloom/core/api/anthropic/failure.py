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


def error(failure: Failure, request_id: str) -> dict[str, Any]:
    """The whole envelope."""
    usual = "invalid_request_error" if failure.status < 500 else "api_error"
    inner = {"type": _TYPES.get(failure.status, usual), "message": failure.message}
    return {"type": "error", "error": inner, "request_id": request_id}
