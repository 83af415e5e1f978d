"""Anthropic's official client: all that changed for it is `base_url`."""

from __future__ import annotations

import anthropic
from checks import ADDITION, GATEWAY, MOCK, QUESTION, REAL, SUM, Thing, run

client = anthropic.Anthropic(base_url=GATEWAY, api_key="unused", max_retries=0, timeout=120)


@anthropic.beta_tool
def add(a: int, b: int) -> str:
    """Adds two numbers."""
    return str(a + b)


def a_message_is_the_same_plain_and_streamed() -> None:
    asked = {"model": REAL, "messages": QUESTION, "max_tokens": 12, "extra_body": {"temperature": 0}}
    plain = client.messages.create(**asked)
    assert "ravity" in plain.content[0].text
    with client.messages.stream(**asked) as stream:
        streamed = stream.get_final_message()
    assert streamed.content[0].text == plain.content[0].text
    assert streamed.usage.output_tokens == plain.usage.output_tokens


def tools_are_run_until_there_is_an_answer() -> None:
    asked = {"model": MOCK, "max_tokens": 999, "messages": [{"role": "user", "content": ADDITION}], "tools": [add]}
    assert client.beta.messages.tool_runner(**asked).until_done().content[0].text == SUM
    for stream in client.beta.messages.tool_runner(**asked, stream=True):
        message = stream.get_final_message()
    assert message.content[0].text == SUM


def a_message_is_parsed_by_its_schema() -> None:
    message = client.messages.parse(model=MOCK, messages=QUESTION, max_tokens=999, output_format=Thing)
    assert isinstance(message.parsed_output, Thing)


def tokens_are_counted_and_models_listed() -> None:
    asked = {"model": MOCK, "messages": QUESTION}
    counted = client.messages.count_tokens(**asked).input_tokens
    assert counted == client.messages.create(**asked, max_tokens=1).usage.input_tokens
    assert {REAL, MOCK} <= {model.id for model in client.models.list()}


run(
    a_message_is_the_same_plain_and_streamed,
    tools_are_run_until_there_is_an_answer,
    a_message_is_parsed_by_its_schema,
    tokens_are_counted_and_models_listed,
)
