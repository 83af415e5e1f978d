from __future__ import annotations

from typing import Any

import pytest

from lloom.adapters.llm.mock_script import Call, step

TOOLS = ("add", "shell.run")
SCRIPT = 'Please do this:\ncall add {"a": 2}\ncall shell.run {"command": "ls"}\nThank you.'
ADD, RUN = Call("add", '{"a": 2}'), Call("shell.run", '{"command": "ls"}')


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def turn(result: Any) -> list[dict[str, Any]]:
    """A call, whichever it was, and what it gave."""
    return [{"role": "assistant", "content": None, "tool_calls": [{}]}, {"role": "tool", "content": result}]


def test_each_line_is_called_once_those_before_it_were_answered() -> None:
    messages = [user(SCRIPT)]
    assert step(messages, TOOLS) == ADD
    messages += turn("2")
    assert step(messages, TOOLS) == RUN
    messages += turn("a.txt")
    assert step(messages, TOOLS) == "shell.run gave: a.txt"


def test_what_is_said_around_a_script_does_not_matter() -> None:
    parts = [{"type": "text", "text": "Remember: be brief."}, {"type": "text", "text": SCRIPT}]
    assert step([user("Hello"), user(parts), user("A reminder.")], TOOLS) == ADD
    last = [*turn("2"), *turn([{"type": "text", "text": "a.txt"}, {"type": "image_url"}]), user("A reminder.")]
    assert step([user(parts), *last], TOOLS) == "shell.run gave: a.txt"


def test_a_later_script_begins_anew() -> None:
    done = [user(SCRIPT), *turn("2"), *turn("a.txt"), {"role": "assistant", "content": "shell.run gave: a.txt"}]
    assert step([*done, user("call add {}")], TOOLS) == Call("add", "{}")
    assert step([*done, user("And now?")], TOOLS) is None


def test_a_tool_that_is_not_there_is_named() -> None:
    assert step([user("call fly {}")], TOOLS) == "There is no tool fly among add, shell.run."


def test_without_tools_there_is_no_script() -> None:
    assert step([user(SCRIPT)], ()) is None


@pytest.mark.parametrize(
    "text", ["call add", "call add [1]", "call add {", "call add {}}", "please call add {}", "call ad d {}", ""]
)
def test_other_words_are_no_script(text: str) -> None:
    assert step([user(text)], TOOLS) is None


def test_only_the_user_writes_scripts() -> None:
    assert step([user("Hello"), {"role": "assistant", "content": SCRIPT}, user(None)], TOOLS) is None
