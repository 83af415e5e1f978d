"""The rest of an answer by another executor, made to look like the first one's. It never lets a word through twice."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from lloom.core.api.request import Operation
from lloom.core.continuation.record import Head
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.sse import DONE, Splitter, event, payloads

_object = msgspec.json.Decoder(dict[str, Any])
DIVERGED: Final = "diverged"
"""The code of the error when another executor gives another answer: that is nobody's fault."""

_REASONING: Final = ("reasoning_content", "reasoning")
_OTHERS: Final = ("tool_calls", "function_call", "refusal")
"""What an answer may say instead of text."""


def ending(head: Head, operation: Operation, reason: str) -> bytes:
    """The event that ends an answer of which nothing more is to come."""
    plain = operation == "completions"
    said: dict[str, Any] = {"text": ""} if plain else {"delta": {}}
    choice = {"index": 0, **said, "logprobs": None, "finish_reason": reason}
    kind = "text_completion" if plain else "chat.completion.chunk"
    return event(msgspec.json.encode({**msgspec.structs.asdict(head), "object": kind, "choices": [choice]}))


class Splice:
    """Fed with the new executor's events, it gives those that continue the old ones.

    `skip`: text that is said again and left out; RetryElsewhere (DIVERGED) if something else is said. `before`: the text so far,
    and `stops` the strings that end the answer: where one begins in the old text and ends in the new, no backend notices;
    `stopped` is set then.
    """

    def __init__(self, head: Head, before: str, skip: str, stops: tuple[str, ...]) -> None:
        self.stopped = False
        self._head = head
        self._events = Splitter()
        self._skip = skip
        self._skipped = 0
        """Characters of `skip` that were said again."""
        self._stops = stops
        longest = max(map(len, stops), default=1) - 1
        self._tail = before[-longest:] if longest else ""
        self._held = ""
        """New text that may yet complete a stop string; nothing is held any more once it is longer than each of them."""
        self._holding = bool(self._tail)

    def feed(self, data: bytes) -> bytes:
        """What is to be passed on; may be empty. PeerFault if what comes is no continuation."""
        return b"".join(self._join(chunk) for chunk in payloads(self._events.block(data)) if chunk)

    def _join(self, data: bytes) -> bytes:
        if data == DONE or self.stopped:
            return b""
        try:
            chunk = _object.decode(data)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise PeerFault("the executor sent a chunk that is none", code="bad_stream") from error
        choices = chunk.get("choices")
        if not choices:
            return b""
        if not isinstance(choices, list) or len(choices) > 1 or not isinstance(choices[0], dict):
            raise PeerFault("the executor sent more choices than one", code="bad_stream")
        if not self._fit(choices[0]):
            return b""
        chunk.update(id=self._head.id, created=self._head.created, model=self._head.model)
        return event(msgspec.json.encode(chunk))

    def _fit(self, choice: dict[str, Any]) -> bool:
        """Makes one choice continue the text; whether anything of it is left."""
        delta = choice.get("delta")
        holder, key = (delta, "content") if isinstance(delta, dict) else (choice, "text")
        if isinstance(delta, dict):
            for name in ("role", *_REASONING):
                delta.pop(name, None)
        text, finish = holder.get(key), choice.get("finish_reason")
        rest = self._text(text if isinstance(text, str) else "", bool(finish))
        if self._skipped < len(self._skip) and (finish or (isinstance(delta, dict) and any(map(delta.get, _OTHERS)))):
            raise RetryElsewhere("another executor gives another answer", code=DIVERGED)
        if self.stopped:
            choice["finish_reason"] = finish = "stop"
        holder[key] = rest
        others = isinstance(delta, dict) and any(value for name, value in delta.items() if name != key)
        return bool(rest or finish or others)

    def _text(self, text: str, last: bool) -> str:
        """What of the next `text` is new, and certain not to be part of a stop string."""
        text = self._unsaid(text)
        if not self._holding:
            return text
        self._held += text
        whole = self._tail + self._held
        for stop in self._stops:
            if 0 <= whole.find(stop, max(0, len(self._tail) - len(stop) + 1)) < len(self._tail):
                self.stopped, self._holding = True, False
                return ""
        if not last and len(self._held) < max(map(len, self._stops)) - 1:
            return ""
        text, self._held, self._holding = self._held, "", False
        return text

    def _unsaid(self, text: str) -> str:
        """What of `text` comes after all that is skipped."""
        both = min(len(self._skip) - self._skipped, len(text))
        if not self._skip.startswith(text[:both], self._skipped):
            raise RetryElsewhere("another executor gives another answer", code=DIVERGED)
        self._skipped += both
        return text[both:]
