"""Errors, classed by what the caller must do next; it never says how they are shown."""

from __future__ import annotations


class LloomError(Exception):
    """Raised never by itself: the base of every error that Lloom means to raise. Its text is fit for a user's screen."""


class ConfigError(LloomError):
    """Raised when the node cannot start as configured; one sentence that says what to change. Exit status 2."""


class RetryElsewhere(LloomError):
    """Raised when this executor failed or refused, and another one may well succeed.

    `status` is the HTTP status the caller would see if nobody else can serve, `code` a stable word for programs,
    `retry_after` seconds after which the same executor may be asked again (None: it did not say).
    """

    def __init__(
        self, message: str, *, status: int = 502, code: str = "executor_failed", retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after = retry_after


class PeerFault(RetryElsewhere):
    """Raised when the peer broke the protocol or lied: retry elsewhere, and remember it."""

    def __init__(self, message: str, *, code: str = "peer_fault") -> None:
        super().__init__(message, status=502, code=code)


class CallerFault(LloomError):
    """Raised when the request itself is wrong and would fail anywhere: stop and tell the caller.

    `status` is an HTTP 4xx, `param` the offending field of the request (None: the whole of it).
    """

    def __init__(self, message: str, *, status: int = 400, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param


class LimitReached(CallerFault):
    """Raised when a caller has had what it may have for now (429): stop and tell it.

    `retry_after`: seconds until it may have more.
    """

    def __init__(self, message: str, *, code: str = "rate_limit_exceeded", retry_after: float) -> None:
        super().__init__(message, status=429, code=code)
        self.retry_after = retry_after


class LocalProtocolError(Exception):
    """Raised when our own code asks a protocol for what its rules do not allow at that point: a bug on this side of the wire."""
