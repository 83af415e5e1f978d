from __future__ import annotations

from lloom.core.api.conversation import Conversation, image_part, text_part


def test_instructions_come_first_in_one_message() -> None:
    talk = Conversation()
    talk.system("Be brief.")
    talk.system("Be kind.")
    assert talk.messages() == [{"role": "system", "content": "Be brief.\n\nBe kind."}]


def test_later_instructions_become_the_users() -> None:
    talk = Conversation()
    talk.user([text_part("Hello")])
    talk.system("Be brief.")
    assert talk.messages() == [{"role": "user", "content": "Hello\n<system>\nBe brief.\n</system>"}]


def test_turns_that_come_together_are_one_message() -> None:
    talk = Conversation()
    talk.user([text_part("a")])
    talk.user([text_part("b")])
    talk.assistant("c")
    talk.user([text_part("d")])
    assert [message["content"] for message in talk.messages()] == ["a\nb", "c", "d"]


def test_text_beside_a_picture_stays_in_parts() -> None:
    talk = Conversation()
    talk.user([text_part("a")])
    talk.user([image_part("https://example.com/a.png")])
    assert talk.messages()[0]["content"] == [text_part("a"), image_part("https://example.com/a.png")]


def test_pictures_of_tools_come_after_all_results_and_before_what_is_said_next() -> None:
    talk = Conversation()
    talk.call("1", "f", "{}")
    talk.call("2", "f", "{}")
    talk.result("1", [image_part("data:,1")])
    talk.result("2", [text_part("two")])
    talk.assistant("Nice.")
    assert talk.messages()[1:] == [
        {"role": "tool", "tool_call_id": "1", "content": "(shown below: 1 from 1)"},
        {"role": "tool", "tool_call_id": "2", "content": "two"},
        {"role": "user", "content": [text_part("From 1:"), image_part("data:,1")]},
        {"role": "assistant", "content": "Nice."},
    ]


def test_what_is_said_after_a_call_stands_beside_it_so_that_its_result_can_follow() -> None:
    talk = Conversation()
    talk.user([text_part("Hello")])
    talk.call("c1", "f", "{}")
    talk.assistant("Let me see.")
    talk.assistant(" Soon.")
    talk.result("c1", [text_part("1")])
    talk.assistant("It is 1.")
    _, called, result, said = talk.messages()
    assert (called["content"], len(called["tool_calls"])) == ("Let me see. Soon.", 1)
    assert (result["role"], said) == ("tool", {"role": "assistant", "content": "It is 1."})
