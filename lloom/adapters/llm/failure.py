"""What a backend's error means to the caller: try elsewhere, or mend the request. It never tells of the operator's account."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import msgspec

from lloom.core.errors import CallerFault, RetryElsewhere

MAX_BODY: Final = 64 * 1024
"""Bytes of an error's body that are read at all."""
MAX_TEXT: Final = 1000
MAX_RETRY_AFTER: Final = 86_400.0

CALLERS: Final = frozenset({400, 413, 422})
OUR_KEY: Final = frozenset({401, 402, 403})

# Some providers answer 400 where it is the operator who should pay or mend a key.
_ACCOUNT = re.compile(
    r"credit balance|billing|quota|api[ _-]?key|organization|subscription|unauthorized", re.IGNORECASE
)
_NAMES = re.compile(r"\b(?:sk|pk|org|proj|req|key|acct)[-_][A-Za-z0-9*_-]{4,}")
_CODES: Final = {"exceed_context_size_error": "context_length_exceeded"}


def failure(status: int, body: bytes, headers: Mapping[str, str]) -> RetryElsewhere | CallerFault:
    """The error that an answer of `status` (not 200) amounts to."""
    if status in CALLERS:
        found = _fields(body)
        message = str(found.get("message") or f"the backend refused the request ({status})")
        if not _ACCOUNT.search(message):
            return _callers(status, message, found)
    if status in OUR_KEY or status in CALLERS:
        return RetryElsewhere(f"the backend does not accept this executor's account ({status})", code="backend_account")
    if status == 404:
        # The request chose neither the path nor the backend's name of the model: another executor may have both right.
        return RetryElsewhere("the backend does not have this model", status=404, code="model_not_found")
    if status == 429:
        return RetryElsewhere(
            "the backend is at its rate limit", status=429, code="backend_busy", retry_after=retry_after(headers)
        )
    shown = {408: 504, 409: 503, 503: 503, 504: 504, 529: 503}.get(status, 502)
    return RetryElsewhere(
        f"the backend answered {status}", status=shown, code="backend_error", retry_after=retry_after(headers)
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from 0 to a day (RFC 9110, 10.2.3: a number or a date; OpenAI adds `retry-after-ms`)."""
    known = {name.lower(): value for name, value in headers.items()}
    if (value := known.get("retry-after-ms")) and re.fullmatch(r"\d{1,12}(\.\d*)?", value):
        return min(float(value) / 1000, MAX_RETRY_AFTER)
    value = known.get("retry-after", "")
    if re.fullmatch(r"\d{1,12}(\.\d*)?", value):
        return min(float(value), MAX_RETRY_AFTER)
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    wait = (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(wait, 0.0), MAX_RETRY_AFTER)


def stalled(seconds: float) -> RetryElsewhere:
    """The backend fell silent."""
    return RetryElsewhere(f"the backend sent nothing for {seconds:g} s", status=504, code="backend_stalled")


def cut(what: str) -> RetryElsewhere:
    """The backend's answer broke off; `what` is no text of the backend's."""
    return RetryElsewhere(f"the backend's answer broke off: {what}", code="backend_cut")


def unreachable(what: str) -> RetryElsewhere:
    """The backend cannot be connected to; `what` is no text of the backend's."""
    return RetryElsewhere(f"the backend cannot be reached: {what}", status=503, code="backend_unreachable")


def _callers(status: int, message: str, found: Mapping[str, Any]) -> CallerFault:
    code, param = found.get("code"), found.get("param")
    if not isinstance(code, str):
        code = found.get("type") if isinstance(found.get("type"), str) else None
    return CallerFault(
        _NAMES.sub("…", message)[:MAX_TEXT],
        status=status,
        code=_CODES.get(code, code)[:64] if code else None,
        param=param[:64] if isinstance(param, str) else None,
    )


def _fields(body: bytes) -> Mapping[str, Any]:
    """OpenAI's error object, or the nearest to it: `{"error": "…"}` (Ollama), `{"detail": "…"}` (FastAPI), the object itself."""
    try:
        whole = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return {}
    if not isinstance(whole, Mapping):
        return {}
    error = whole.get("error", whole.get("detail", whole))
    if isinstance(error, Mapping):
        return error
    return {"message": error} if isinstance(error, str) else {}
