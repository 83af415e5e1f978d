"""Puts a question to a running gateway as any OpenAI client would. It is quick to start: the standard library only."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import Struct

from lloom.core.errors import ConfigError, LloomError
from lloom.core.sse import DONE, Splitter, payload

CONNECT_SECONDS: Final = 2.0
"""The gateway is on this machine."""
TRAILER: Final = b": lloom "
"""The comment after a stream in which our gateway tells who served it."""
LIMIT: Final = 16 * 1024 * 1024


class AskFailed(LloomError):
    """Raised when the gateway refused or broke off; the text is the gateway's own."""


class Served(Struct, frozen=True):
    """What the gateway says of an answer."""

    executor: str = ""
    attempts: int = 1
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, whole. Times are seconds."""

    model: str
    text: str
    served: Served
    first_token_seconds: float
    seconds: float


class _Delta(Struct, frozen=True):
    content: str | None = None
    refusal: str | None = None


class _Choice(Struct, frozen=True):
    delta: _Delta = _Delta()


class _Error(Struct, frozen=True):
    message: str = "the gateway gave no reason"


class _Chunk(Struct, frozen=True):
    choices: list[_Choice] = []
    error: _Error | None = None


class _Models(Struct, frozen=True):
    data: list[dict[str, Any]]


class _Health(Struct, frozen=True):
    node: str = ""


class Gateway:
    """A gateway at `url` (`http://host:port`). `seconds`: the longest silence that is borne; `key`: empty if it needs none."""

    def __init__(self, url: str, seconds: float, key: str = "") -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._seconds = seconds
        self._key = key

    def node(self) -> str | None:
        """The address of the node behind it; None if nothing of ours answers there."""
        try:
            with self._call("GET", "/health", None, CONNECT_SECONDS) as answer:
                return msgspec.json.decode(answer.read(LIMIT), type=_Health).node
        except (OSError, http.client.HTTPException, msgspec.DecodeError):
            return None

    def models(self) -> list[dict[str, Any]]:
        """What the network serves, as `/v1/models` lists it; AskFailed if it cannot be had."""
        with self._call("GET", "/v1/models", None, self._seconds) as answer:
            body = answer.read(LIMIT)
            if answer.status != http.client.OK:
                raise AskFailed(_reason(body))
            return msgspec.json.decode(body, type=_Models).data

    def routing(self, model: str) -> list[dict[str, Any]]:
        """Whom the client would ask for `model`, and why (`core/routing/explain.py`); AskFailed if nobody serves it."""
        with self._call("GET", f"/lloom/routing/{quote(model)}", None, self._seconds) as answer:
            body = answer.read(LIMIT)
            if answer.status != http.client.OK:
                raise AskFailed(_reason(body))
            return msgspec.json.decode(body, type=_Models).data

    def ask(self, model: str, prompt: str, show: Callable[[str], None]) -> Answer:
        """Streams the answer to `prompt` through `show`, piece by piece; AskFailed if there is none, or not all of it."""
        began, first, text = time.monotonic(), 0.0, []
        body = msgspec.json.encode({"model": model, "messages": [{"role": "user", "content": prompt}], "stream": True})
        served = Served()
        with self._call("POST", "/v1/chat/completions", body, self._seconds) as answer:
            if answer.status != http.client.OK:
                raise AskFailed(_reason(answer.read(LIMIT)))
            for event in _events(answer):
                if event.startswith(TRAILER):
                    served = msgspec.json.decode(event[len(TRAILER) :], type=Served)
                for piece in _pieces(event):
                    first = first or time.monotonic() - began
                    text.append(piece)
                    show(piece)
        return Answer(model, "".join(text), served, first, time.monotonic() - began)

    def _call(self, method: str, path: str, body: bytes | None, seconds: float) -> http.client.HTTPResponse:
        link = http.client.HTTPConnection(self._host, self._port, timeout=seconds)
        headers = {"Content-Type": "application/json", "Connection": "close"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            link.request(method, path, body, headers)
            return link.getresponse()
        except OSError as error:
            link.close()
            raise AskFailed(f"the gateway at {self._host}:{self._port} does not answer ({error})") from error


def only_model(models: list[dict[str, Any]]) -> str:
    """The one model that chats; ConfigError asks for a choice where there are several, or says that there is none."""
    chatting = [model for model in models if "chat" in model["lloom"]["operations"] and not _is_alias(model)]
    names = sorted(str(model["id"]) for model in chatting)
    if len(names) == 1:
        return names[0]
    if not names:
        raise ConfigError(
            "nobody on this network serves a model right now: is an executor running, and the bootstrap right?"
        )
    raise ConfigError(f"say which model to ask with model=…; the network serves {', '.join(names)}")


def _is_alias(model: dict[str, Any]) -> bool:
    """Whether it only stands for others."""
    meant = model["lloom"].get("alias_of")
    return meant is not None and model["id"] not in meant


def _events(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    splitter = Splitter()
    while data := answer.read1(65536):
        yield from splitter.feed(data)


def _pieces(event: bytes) -> Iterator[str]:
    """The text in one event; AskFailed if it is an error."""
    data = payload(event)
    if not data or data == DONE:
        return
    chunk = msgspec.json.decode(data, type=_Chunk)
    if chunk.error is not None:
        raise AskFailed(chunk.error.message)
    for choice in chunk.choices:
        yield from (piece for piece in (choice.delta.content, choice.delta.refusal) if piece)


def _reason(body: bytes) -> str:
    """The message of OpenAI's error envelope."""
    try:
        error = msgspec.json.decode(body, type=_Chunk).error
    except msgspec.DecodeError:
        error = None
    return (error or _Error()).message
