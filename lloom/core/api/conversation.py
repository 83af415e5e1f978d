"""A conversation as OpenAI's chat wants it, put together turn by turn by dialects that are cut otherwise. It checks nothing."""

from __future__ import annotations

from typing import Any

Part = dict[str, Any]


def text_part(text: str) -> Part:
    """A piece of text."""
    return {"type": "text", "text": text}


def image_part(url: str, detail: str | None = None) -> Part:
    """An image by its address, or whole as a `data:` URL."""
    return {"type": "image_url", "image_url": {"url": url} | ({"detail": detail} if detail else {})}


def file_part(name: str, data: str) -> Part:
    """A file, whole as a `data:` URL."""
    return {"type": "file", "file": {"filename": name, "file_data": data}}


class Conversation:
    """The messages so far, in a form that every model takes: instructions first, turns in turn, text as plain strings.

    Results of tools can only be text in a chat, and stand together: their images follow as the user's.
    """

    def __init__(self) -> None:
        self._messages: list[dict[str, Any]] = []
        self._shown: list[Part] = []

    def system(self, text: str) -> None:
        """Instructions. Later ones become the user's, in a tag: many models take none there, or take no more than one."""
        if not self._messages:
            self._messages.append({"role": "system", "content": []})
        if self._messages[-1]["role"] == "system":
            self._messages[-1]["content"].append(text_part(text))
        else:
            self.user([text_part(f"<system>\n{text}\n</system>")])

    def user(self, parts: list[Part]) -> None:
        """What the user says and shows, after the images of results before it; all that comes together is one message."""
        shown, self._shown = self._shown, []
        if not self._messages or self._messages[-1]["role"] != "user":
            self._messages.append({"role": "user", "content": []})
        self._messages[-1]["content"] += shown + parts

    def assistant(self, text: str) -> None:
        """What the model said; after a call, it belongs to the same message, since only its result may come next."""
        self._show()
        last = self._messages[-1] if self._messages else {}
        if "tool_calls" in last:
            last["content"] = (last["content"] or "") + text
        else:
            self._messages.append({"role": "assistant", "content": text})

    def call(self, id: str, name: str, arguments: str) -> None:
        """A call of the model, in the same message as what it said and called just before."""
        self._show()
        if not self._messages or self._messages[-1]["role"] != "assistant":
            self._messages.append({"role": "assistant", "content": None})
        call = {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
        self._messages[-1].setdefault("tool_calls", []).append(call)

    def result(self, id: str, parts: list[Part]) -> None:
        """What a call gave."""
        texts = [part["text"] for part in parts if part["type"] == "text"]
        shown = [part for part in parts if part["type"] != "text"]
        if shown:
            texts.append(f"(shown below: {len(shown)} from {id})")
            self._shown += [text_part(f"From {id}:"), *shown]
        self._messages.append({"role": "tool", "tool_call_id": id, "content": "\n".join(texts)})

    def messages(self) -> list[dict[str, Any]]:
        """All of it, in OpenAI's wire form."""
        self._show()
        return [_plain(message) for message in self._messages]

    def _show(self) -> None:
        if self._shown:
            self.user([])


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    parts = message["content"]
    if not isinstance(parts, list) or any(part["type"] != "text" for part in parts):
        return message
    gap = "\n\n" if message["role"] == "system" else "\n"
    return message | {"content": gap.join(part["text"] for part in parts)}
