"""What every endpoint of the gateway must know of its callers: how they write requests, and read answers and errors.

Behind all of them is one thing, a stream of the network's events. A dialect is pure: it never waits and keeps nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from lloom.core.api.request import ApiRequest
from lloom.core.messages import Done

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Failure:
    """What a caller is told of an error: an HTTP status from 400 and a sentence; `param` and `code` as in OpenAI's API."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    headers: Headers = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Served:
    """Who gave an answer (its address), at which attempt."""

    executor: str
    attempts: int


class Stream(Protocol):
    """Writes one answer as events. Errors of the executor are PeerFault or RetryElsewhere."""

    def feed(self, data: bytes) -> bytes:
        """The caller's bytes for the next bytes of the answer; may be empty. The first ones reach to the first content."""
        ...

    def end(self, done: Done, served: Served) -> bytes:
        """The last events of an answer that is whole."""
        ...

    def failed(self, failure: Failure) -> bytes:
        """The last events of one that is not; perhaps nothing was fed yet."""
        ...


class Whole(Protocol):
    """Folds one answer into a JSON document. Errors as in `Stream`."""

    def feed(self, data: bytes) -> None:
        """Takes the next bytes of the answer."""
        ...

    def end(self, done: Done) -> bytes:
        """The document; PeerFault if the answer was cut."""
        ...


class Asked(Protocol):
    """One request that was understood, and how its answer is written: one of both, as `request.stream` says."""

    @property
    def request(self) -> ApiRequest:
        """What the network is asked."""
        ...

    def stream(self) -> Stream: ...
    def whole(self) -> Whole: ...


class Dialect(Protocol):
    """The language of one endpoint."""

    @property
    def id_header(self) -> bytes:
        """The header of every answer that carries the request's id."""
        ...

    @property
    def waiting(self) -> bytes:
        """An event that clients skip: it keeps a silent stream alive."""
        ...

    def read(self, body: bytes, request_id: str) -> Asked:
        """Understands a request; CallerFault names the field that is wrong. Answers may bear `request_id` in their ids."""
        ...

    def refusal(self, failure: Failure, request_id: str) -> bytes:
        """The body of an answer that is an error."""
        ...
